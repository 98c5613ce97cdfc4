"""Figures of linearity and of distances to the Gaussian denoiser over noise level."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from analyses.paper.cells import Builder, Cells, Request, choose, smallest, told_apart
from analyses.paper.curves import (
    CEILING,
    FLOOR,
    Bracket,
    constant,
    drawn,
    gaps,
    panel,
    within,
)
from analyses.paper.grids import neighbours, outputs, trajectories
from analyses.paper.sheets import Line, Panel, Sheet
from analyses.style import line_style

__all__ = [
    "closeness",
    "distance_by_axis",
    "identity",
    "linearity_by_n",
    "linearity_by_preconditioning",
    "low_noise",
    "memorizing_and_generalizing",
    "mixing",
    "scores",
]

D_M = "D_M, memorizes all"
D_G = "D_G, affine"
PAIRS = "held-out pairs"


def linearity_by_n(request: Request) -> Sheet:
    """Linearity by n_train: as published, and centred (figure 1)."""
    return _linearity(choose(request.cube, "n_train"), "n_train")


def linearity_by_preconditioning(request: Request) -> Sheet:
    """Linearity by preconditioning (figure 11)."""
    axis = "training_preconditioning"
    return _linearity(choose(request.cube, axis), axis)


def mixing(request: Request) -> Sheet:
    """Linearity at several shares of the mix (figure 10)."""
    cells = choose(request.cube)
    note = "alpha^2 + beta^2 = 1. The paper's three sets of inputs are here one, held-out images."
    panels = _brackets(cells, "alpha2", "mixing_cosine")
    return Sheet(cells.where, panels, notes=(note,), size=(9.4, 4.6), replicates=cells.replicates)


def _linearity(cells: Cells, axis: str) -> Sheet:
    panels = _brackets(cells, axis, "linearity_cosine")
    note = (
        "Held-out pairs, alpha = beta. Centred, affine denoisers score 1; raw, a bias lowers it."
    )
    return Sheet(cells.where, panels, notes=(note,), size=(9.4, 4.6), replicates=cells.replicates)


def _brackets(cells: Cells, axis: str, name: str) -> tuple[Panel, ...]:
    """The score as published and the centred one, each between its oracles."""
    own = axis in ("n_train", "alpha2")
    panels = []
    for tail, title in (("", "(a) as published"), ("_centred", "(b) centred")):
        brackets = (
            Bracket(f"{name}{tail}_gaussian", D_G, CEILING),
            Bracket(f"{name}{tail}_empirical", D_M, FLOOR, each=own),
        )
        y = f"linearity (|cosine|{', centred' * bool(tail)})"
        panels.append(panel(cells, axis, f"{name}{tail}", title, y, brackets, of=PAIRS))
    return tuple(panels)


def closeness(request: Request) -> Sheet:
    """Distances between the four denoisers, and their trajectories from one latent (figure 2)."""
    cells = choose(request.cube)
    note = "D_L is the affine fit of the network on held-out inputs; trajectories are Euler steps."
    return Sheet(
        cells.where,
        (gaps(cells, "(a) distances"),),
        (trajectories(cells, "(b) D(y; sigma) from one latent, by sigma"),),
        notes=(note,),
        size=(12.5, 4.4),
        share=1.5,
        replicates=cells.replicates,
    )


def memorizing_and_generalizing(request: Request) -> Sheet:
    """Distances at the smallest and at the largest n_train; outputs at sigma near 4 (figure 5)."""
    cells = choose(request.cube, "n_train")
    sizes = cells.data["n_train"].values
    ends = (int(sizes.min()), int(sizes.max()))
    letters = ("(a) n_train {}", "(b) n_train {}")
    panels = [
        gaps(cells, letter.format(n), n_train=n) for letter, n in zip(letters, ends, strict=True)
    ]
    top = 1.05 * float(np.nanmax([each.value for one in panels for each in one.lines]))
    shared = [replace(one, y_limits=(0.0, top)) for one in panels]
    pair = cells.data.sel(n_train=list(ends))
    note = (
        "The affine fit of any posterior mean on its own training inputs is D_G, however "
        "nonlinear: these inputs are held-out."
    )
    return Sheet(
        cells.where,
        shared,
        outputs(replace(cells, data=pair), "n_train", ("(c) ", "(d) ")),
        notes=(note,),
        size=(13.0, 4.6),
        share=0.6,
        replicates=cells.replicates,
    )


def distance_by_axis(axis: str, sigma: tuple[float, float] | None = None) -> Builder:
    """RMSE to D_G and to D_kappa by `axis`, and samples (figures 6 to 8, 19 to 21)."""

    def build(request: Request) -> Sheet:
        cells = choose(request.cube, axis, **_memorizing(axis))
        shown = within(cells, *sigma) if sigma else cells
        panels = _distances(shown, axis)
        has = "samples" in request.cube
        return Sheet(
            cells.where,
            panels,
            (neighbours(request, cells, axis, 4, "(c) samples, same latents"),) if has else (),
            size=(11.5 if has else 9.4, 4.6),
            share=0.3,
            replicates=cells.replicates,
            notes=(
                "Held-out inputs. D_kappa: mean of D_G over draws of n_train, to first order.",
            ),
        )

    return build


def _memorizing(axis: str) -> dict[str, Callable[[np.ndarray], int]]:
    """The smallest n_train, unless that is the axis: what makes a network copy less is shown."""
    return {} if axis == "n_train" else {"n_train": smallest}


def _distances(
    cells: Cells, axis: str, references: tuple[str, ...] = ("gaussian", "kappa"), **more: object
) -> tuple[Panel, ...]:
    names = {"gaussian": "(a) to D_G of the training set", "kappa": "(b) to D_kappa"}
    floor = Bracket("empirical_gaussian_rmse", "D_M to D_G", FLOOR, each=axis == "n_train")
    return tuple(
        panel(
            cells,
            axis,
            "denoiser_rmse",
            names[reference],
            "RMSE (pixel)",
            (floor,) if reference == "gaussian" else (),
            y_limits=(0.0, None),
            reference=reference,
            **more,
        )
        for reference in references
    )


def low_noise(request: Request) -> Sheet:
    """Distance to D_G on a linear axis down to sigma 0, by n_train and by width (figure 16)."""
    axes = ("n_train", "width")
    found = [choose(request.cube, axis, **_memorizing(axis)) for axis in axes]
    same, own = told_apart(found)
    panels = []
    for letter, axis, cells, words in zip("ab", axes, found, own, strict=True):
        shown = within(cells, 0.0, 1.0)
        (one,) = _distances(shown, axis, ("gaussian",), x_scale="linear", limits=(0.0, 1.0))
        lines = [*one.lines, *_rank_floors(cells, axis)]
        panels.append(replace(one, title=f"({letter}) by {axis}: {words}", lines=lines))
    note = (
        "Where n_train is at most d, D_G projects on fewer dimensions than there are, and the "
        "distance of the identity to it stays above 0 as sigma falls, the same at every width."
    )
    return Sheet(same, panels, notes=(note,), size=(9.4, 4.6), replicates=cells.replicates)


def _rank_floors(cells: Cells, axis: str) -> list[Line]:
    """Distance of the identity to D_G at sigma 0, where the cube has it."""
    if "rank_floor" not in cells.data:
        return []
    floors = cells.data["rank_floor"]
    values = cells.data[axis].values if axis == "n_train" else cells.data[axis].values[:1]
    found = []
    for i, value in enumerate(values):
        one = floors.sel({axis: value}, drop=True) if axis in floors.dims else floors
        mean = float(one.mean())
        colour = line_style(i, len(values))["color"]
        style = {"color": colour if axis == "n_train" else "0.1", "linewidth": 3.0}
        label = f"floor at sigma 0, {value:g}" if axis == "n_train" else "floor at sigma 0"
        found.append(constant(label, np.array([0.0, 0.05]), mean, "rank_floor", style))
    return found


def scores(request: Request) -> Sheet:
    """Generalization score, linearity and its normalised error by n_train (figure 13)."""
    cells = choose(request.cube, "n_train")
    sizes = cells.data["n_train"].values.astype(float)
    own = drawn(
        cells.data, "generalization_score", "network", line_style(0, 2), "n_train", of="samples"
    )
    level = constant("0.6, generalizes above (paper)", sizes, 0.6, "published level")
    first = Panel(
        "(a) generalization score",
        "n_train, training images",
        "E |x - nearest| / |x|",
        (own, level),
        y_limits=(0.0, None),
    )
    others = [
        panel(
            cells,
            "n_train",
            name,
            title,
            y,
            (
                Bracket(f"{name}_gaussian", D_G, CEILING),
                Bracket(f"{name}_empirical", D_M, FLOOR, each=True),
            ),
            of=PAIRS,
        )
        for name, title, y in (
            ("linearity_cosine", "(b) linearity, as published", "|cosine|"),
            ("linearity_nmse", "(c) its error (eq. 12)", "|D(mix) - mix of D| / |D(mix)|"),
        )
    ]
    note = "The error of D_G at high noise, .414 there, is its bias and no sign of nonlinearity."
    return Sheet(
        cells.where,
        (first, *others),
        notes=(note,),
        size=(12.5, 4.6),
        replicates=cells.replicates,
    )


def identity(request: Request) -> Sheet:
    """How far D(y) is from its input (figure 15)."""
    cells = choose(request.cube, "n_train")
    panels = [
        panel(cells, "n_train", name, title, y)
        for name, title, y in (
            ("identity_distance", "(a) distance", "|D(y) - y| / |y|"),
            ("identity_cosine", "(b) direction", "cosine of D(y) and y"),
        )
    ]
    note = (
        "Held-out inputs. At low noise networks are near the identity: agreement there is trivial."
    )
    return Sheet(cells.where, panels, notes=(note,), size=(9.4, 4.6), replicates=cells.replicates)
