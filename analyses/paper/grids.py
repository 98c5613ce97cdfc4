"""Grids of images that figures share: trajectories, samples with neighbours, outputs."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.paper.cells import Cells, Request
from analyses.paper.needs import near
from analyses.paper.sheets import Mosaic
from analyses.trials import across

__all__ = ["DENOISERS", "ends", "images", "named", "neighbours", "outputs", "trajectories"]

DENOISERS = {"network": "network", "linear": "D_L", "gaussian": "D_G", "empirical": "D_M"}
"""Denoisers that are followed from a latent, and how figures call them."""
SHOWN = 5
"""Inputs whose outputs are shown."""


def images(array: xr.DataArray, row: str, column: str) -> Float[np.ndarray, "r c d"]:
    """Images in rows and columns."""
    return array.transpose(row, column, "pixel").values.astype(float)


def named(axis: str, values: np.ndarray) -> tuple[str, ...]:
    """Rows of a grid along an axis.

    >>> named("kimg", np.array([4.0])), named("width", np.array([64]))
    (('4 kimg',), ('width 64',))
    """
    texts = (f"{v:g}" if isinstance(v, int | float | np.number) else str(v) for v in values)
    if axis == "kimg":
        return tuple(f"{text} kimg" for text in texts)
    return tuple(f"{axis.removeprefix('training_')} {text}" for text in texts)


def trajectories(cells: Cells, title: str) -> Mosaic:
    """What each denoiser says at its own Euler state, from the first latent, by falling sigma."""
    data = cells.one()["trajectory"].isel(shown=0)
    data = data.sel(trajectory_denoiser=list(DENOISERS)).sortby("sigma", ascending=False)
    levels = [f"{s:.2g}" for s in data["sigma"].values]
    rows = tuple(DENOISERS.values())
    return Mosaic(title, images(data, "trajectory_denoiser", "sigma"), rows, levels)


def ends(data: xr.Dataset) -> xr.DataArray:
    """The last output of each trajectory, which is the sample."""
    last = int(data["sigma"].values.astype(float).argmin())
    return data["trajectory"].isel(sigma=last, drop=True)


def neighbours(
    request: Request, cells: Cells, axis: str, count: int, title: str, *, captions: bool = False
) -> Mosaic:
    """The first samples by `axis`; below them, where known, their nearest training images."""
    data = cells.one()
    shown = data["samples"].isel(sample=slice(count))
    rows, labels, numbers = [], [], []
    distance = data["nearest_distance"].isel(sample=slice(count)) if captions else None
    for value, name in zip(data[axis].values, named(axis, data[axis].values), strict=True):
        rows.append(shown.sel({axis: value}).transpose("sample", "pixel").values.astype(float))
        labels.append(name)
        if distance is not None:
            numbers.append(distance.sel({axis: value}).values.astype(float))
        if request.train is not None and "nearest_index" in data:
            rows.append(_nearest(request, data.sel({axis: value}), count))
            labels.append("nearest")
            numbers += [np.full(count, np.nan)] if captions else []
    below = np.stack(numbers) if captions else None
    words = "nearest_distance (pixel)" if captions else ""
    return Mosaic(title, np.stack(rows), tuple(labels), captions=below, caption=words)


def _nearest(request: Request, data: xr.Dataset, count: int) -> Float[np.ndarray, "c d"]:
    """The training images nearest to the first samples of one cell."""
    where = {str(d): data[d].item() for d in across(request.cube) if d in data.coords}
    points = np.asarray(request.train(where), float).reshape(-1, data.sizes["pixel"])
    index = data["nearest_index"].isel(sample=slice(count)).values
    found = np.full((count, points.shape[1]), np.nan)
    known = np.isfinite(index)
    found[known] = points[index[known].astype(int)]
    return found


def outputs(cells: Cells, axis: str, letters: Sequence[str], sigma: float = 4.0) -> list[Mosaic]:
    """What the denoiser says by `axis` at noisy held-out images, and at pure noise."""
    data = cells.one()
    at = data.isel(sigma=near(data, sigma), input=slice(SHOWN))
    level = f"sigma {float(at['sigma']):.3g}"
    found = []
    for letter, name, what in zip(
        letters, ("outputs", "outputs_noise"), ("noisy images", "pure noise"), strict=True
    ):
        rows, shown = list(named(axis, at[axis].values)), images(at[name], axis, "input")
        if f"{name}_gaussian" in at:
            reference = at[f"{name}_gaussian"]
            if axis in reference.dims:
                reference = reference.isel({axis: -1})
            wiener = reference.transpose("input", "pixel").values.astype(float)
            rows, shown = [*rows, "D_G"], np.concatenate([shown, wiener[None]])
        found.append(Mosaic(f"{letter}{what}, {level}", shown, rows))
    return found
