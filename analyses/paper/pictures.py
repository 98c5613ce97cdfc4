"""Figures that are mostly images: samples from equal noise, twins, outputs, perturbations."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analyses.paper.cells import Cells, Request, choose, smallest, told_apart
from analyses.paper.curves import constant, levels
from analyses.paper.grids import DENOISERS, ends, images, named, neighbours, outputs
from analyses.paper.needs import compared
from analyses.paper.sheets import Mosaic, Panel, Sheet, line
from analyses.style import line_style

__all__ = [
    "final_samples",
    "high_noise",
    "intermediate_noise",
    "perturbations",
    "samples_by_model",
    "samples_with_neighbours",
    "twins",
]

EULER = "Samples by Euler steps over the listed noise levels, equal for all rows."


def final_samples(request: Request) -> Sheet:
    """Samples of the network, D_L, D_G and D_M from the same latents (figure 3)."""
    cells = choose(request.cube)
    shown = ends(cells.one()).sel(trajectory_denoiser=list(DENOISERS))
    grid = images(shown, "trajectory_denoiser", "shown")
    picture = Mosaic("one latent per column", grid, tuple(DENOISERS.values()))
    return Sheet(cells.where, pictures=(picture,), notes=(EULER,), size=(4.6, 4.4))


def samples_with_neighbours(request: Request) -> Sheet:
    """Samples by n_train, with their nearest training images or distances (figure 12)."""
    cells = choose(request.cube, "n_train")
    what = "distance to the nearest training image below each"
    picture = neighbours(request, cells, "n_train", 10, f"same latents; {what}", captions=True)
    height = 1.0 + 0.65 * len(picture.rows)
    return Sheet(cells.where, pictures=(picture,), size=(7.2, height))


def samples_by_model(request: Request) -> Sheet:
    """Samples of D_G and of each preconditioning or backbone option (figures 23 and 25)."""
    axis = str(compared(request.cube))
    cells = choose(request.cube, axis)
    data = ends(cells.one())
    wiener = data.sel(trajectory_denoiser="gaussian").isel({axis: 0})
    network = images(data.sel(trajectory_denoiser="network"), axis, "shown")
    grid = np.concatenate([wiener.transpose("shown", "pixel").values[None], network])
    rows = ("D_G", *named(axis, cells.data[axis].values))
    picture = Mosaic("one latent per column", grid.astype(float), rows)
    height = 1.2 + 0.8 * len(rows)
    return Sheet(cells.where, pictures=(picture,), notes=(EULER,), size=(5.2, height))


def twins(request: Request) -> Sheet:
    """Samples of trainings on disjoint halves from the same latents (figures 9 and 26)."""
    settings = _settings(request)
    same, own = told_apart([*settings.values()])
    grids = []
    for letter, words, (name, cells) in zip("cdef", own, settings.items(), strict=True):
        samples = cells.one()["samples"].isel(sample=slice(6))
        rows = named("split", cells.data["split"].values)
        title = f"({letter}) {name}\n{words}"
        grids.append(Mosaic(title, images(samples, "split", "sample"), rows))
    note = (
        "(b): |x_a - x_b| over the distance of x_a to its nearest training image, medians. "
        "Blurry or untrained pairs agree too: read (a) beside the images."
    )
    return Sheet(
        same,
        (
            _agreement(settings, "(a) split a to split b", "twin_mse"),
            _agreement(settings, "(b) relative to the training set", "twin_to_train_ratio"),
        ),
        grids,
        across=2,
        notes=(note,),
        size=(14.0, 4.8),
        share=0.9,
        replicates=next(iter(settings.values())).replicates,
    )


def _agreement(settings: Mapping[str, Cells], title: str, name: str) -> Panel:
    """A comparison of the two splits in each setting."""
    parts = [cells.data[name].reset_coords(drop=True) for cells in settings.values()]
    values = xr.concat(parts, "setting")
    ratio = name == "twin_to_train_ratio"
    style = line_style(0, 2) | {"linestyle": "none"}
    shown = values if ratio else values**0.5
    of = name if ratio else f"root of {name}"
    lines = [line("samples", shown, "setting", style, name=of, shown=False)]
    if ratio:
        lines.append(constant("copies lie above 1", np.array([-0.5, 3.5]), 1.0, "level"))
    return Panel(
        title,
        "setting",
        "ratio of medians" if ratio else "RMSE of the samples (pixel)",
        lines,
        x_scale="linear",
        y_limits=(0.0, None),
        places=tuple(setting.replace(", ", ",\n") for setting in settings),
    )


def _settings(request: Request) -> dict[str, Cells]:
    """Four places of the sweep: large and small N, and the two ways back from copying."""
    cube, early = request.cube, _early(request)
    return {
        "large N": choose(cube, "split"),
        "small N": choose(cube, "split", n_train=smallest),
        "small N, early": choose(cube, "split", n_train=smallest, kimg=early),
        "small N, small width": choose(cube, "split", n_train=smallest, width=smallest),
    }


def _early(request: Request) -> object:
    """The snapshot nearest to D_G, median over trials of the smallest n_train; else the first.

    It is one before the last, or there would be nothing to compare.
    """
    kimg = request.cube["kimg"].values
    kimg = kimg[kimg < kimg.max()]
    kimg = kimg[kimg > 0] if (kimg > 0).any() else kimg
    if "tau_gauss" in request.phase:
        cells = choose(request.phase, "split", n_train=smallest)
        times = cells.data["tau_gauss"].sel(reference="gaussian").values
        known = times[np.isfinite(times)]
        if known.size:
            return kimg[int(np.abs(kimg - np.median(known)).argmin())]
    return kimg.min()


def high_noise(request: Request) -> Sheet:
    """Outputs at pure noise of the largest level, against D_G's (figure 17)."""
    found, top = [], float(request.cube["sigma"].max())
    axes = _several(request.cube)
    chosen = [choose(request.cube, axis) for axis in axes]
    same, own = told_apart(chosen)
    for letter, axis, cells, words in zip("abc", axes, chosen, own, strict=False):
        data = cells.one()["trajectory"].sel(sigma=top)
        wiener = data.sel(trajectory_denoiser="gaussian").isel({axis: -1})
        network = images(data.sel(trajectory_denoiser="network"), axis, "shown")
        grid = np.concatenate([network, wiener.transpose("shown", "pixel").values[None]])
        rows = (*named(axis, cells.data[axis].values), "D_G")
        title = f"({letter}) by {axis}\n{words}"
        found.append(Mosaic(title, grid.astype(float), rows))
    note = f"D(sigma z; sigma) at sigma {top:g}, one latent z per column."
    return Sheet(
        same, pictures=found, across=len(found), notes=(note,), size=(3.6 * len(found), 4.4)
    )


def intermediate_noise(request: Request) -> Sheet:
    """Outputs at sigma near 4 by n_train, width and kimg (figure 18)."""
    found, axes = [], _several(request.cube)
    picks = {axis: {} if axis == "n_train" else {"n_train": smallest} for axis in axes}
    chosen = [choose(request.cube, axis, **picks[axis]) for axis in axes]
    same, own = told_apart(chosen)
    for i, (axis, cells, words) in enumerate(zip(axes, chosen, own, strict=True)):
        letters = [f"({letter}) {words}\n" for letter in "abcdef"[2 * i : 2 * i + 2]]
        found += outputs(cells, axis, letters)
    height = 0.8 + 2.1 * len(axes)
    return Sheet(same, pictures=found, across=2, size=(8.0, height))


def perturbations(request: Request) -> Sheet:
    """Outputs at y + step u_1, u_1 the first left singular vector of the Jacobian (figure 30)."""
    cells = choose(request.cube)
    data = cells.one()["jacobian_perturbation"]
    shown = levels(cells.data, 4)
    steps = [f"{step:.2g}" for step in data["step"].values]
    rows = tuple(f"sigma {s:.3g}" for s in shown)
    picture = Mosaic(
        "by step along u_1, in units of sigma",
        images(data.sel(sigma=shown), "sigma", "step"),
        rows,
        steps,
    )
    return Sheet(cells.where, pictures=(picture,), size=(7.2, 4.4))


def _several(cube: xr.Dataset) -> list[str]:
    """Axes of the phase diagram with more than one value."""
    return [a for a in ("n_train", "width", "kimg") if cube.sizes.get(a, 0) > 1]
