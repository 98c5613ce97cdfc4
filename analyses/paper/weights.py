"""Figures of the affine fit's weights and of the Jacobian: their modes against the data's."""

import math
from dataclasses import replace

import numpy as np
import xarray as xr

from analyses.paper.cells import Cells, Request, choose
from analyses.paper.curves import FLOOR, SIGMA, Bracket, constant, drawn, levels, panel, within
from analyses.paper.needs import near
from analyses.paper.sheets import Line, Matrix, Panel, Sheet, line
from analyses.style import line_style

__all__ = [
    "jacobian_modes",
    "jacobian_subspace",
    "singular_values",
    "weight_distance",
    "weights_and_vectors",
]

CLOSED = (
    "The fit is in closed form: where the paper shows epochs of a distillation, this shows noise "
    "levels. A weight near W_G is no sign of linearity, hence R2 beside it."
)
BOTH = (
    ("weight_distance", "(a) weight", "|W_L - W_G|_F / |W_G|_F"),
    ("affine_r2", "(b) linearity", "affine R2, cross-fitted"),
)
"""Variables that stand side by side: either alone misleads."""
RANGE = (0.1, 10.0)
"""Noise levels at which the singular values are neither all 1 nor all 0."""
MODES = 25
"""Leading modes of the paper's figure."""


def weights_and_vectors(request: Request) -> Sheet:
    """Weight distance and affine R2; |cosines| of singular vectors and axes (figure 4)."""
    cells = choose(request.cube)
    data = cells.one()["singular_correlation"]
    grids = [
        Matrix(
            f"({letter}) sigma {s:.3g}",
            data.sel(sigma=s).transpose("fit_mode", "wiener_mode").values.astype(float),
            "principal axis of the training set",
            "left singular vector of W_L",
            "|cosine|",
        )
        for letter, s in zip("cdef", levels(cells.data, 4), strict=False)
    ]
    return Sheet(
        cells.where,
        _weights(cells),
        grids,
        across=2,
        notes=(CLOSED,),
        size=(13.0, 5.4),
        share=0.8,
        replicates=cells.replicates,
    )


def weight_distance(request: Request) -> Sheet:
    """Weight distance and affine R2 by n_train (figure 22)."""
    cells = choose(request.cube, "n_train")
    panels = [
        panel(
            cells,
            "n_train",
            name,
            title,
            y,
            (Bracket(f"{name}_empirical", "D_M, memorizes all", FLOOR, each=True),),
        )
        for name, title, y in BOTH
    ]
    panels[0] = replace(panels[0], y_scale="log")
    return Sheet(
        cells.where, panels, notes=(CLOSED,), size=(9.4, 4.6), replicates=cells.replicates
    )


def _weights(cells: Cells) -> list[Panel]:
    """Weight distance, and the linearity that it does not show, over noise level."""
    found = []
    for name, title, y in BOTH:
        lines = [
            drawn(cells.data, name, "network", line_style(0, 2)),
            drawn(cells.data, f"{name}_empirical", "D_M, memorizes all", FLOOR),
        ]
        scale = "log" if name == "weight_distance" else "linear"
        exposure = cells.data.get("exposure")
        found.append(Panel(title, SIGMA, y, lines, y_scale=scale, exposure=exposure))
    return found


def singular_values(request: Request) -> Sheet:
    """Asymmetry of W_L in time; its singular values and vectors (figure 14)."""
    cells = choose(request.cube, "kimg")
    floor = (Bracket("weight_asymmetry_empirical", "D_M, memorizes all", FLOOR),)
    y = "|W_L - W_L^T|_F / |W_L|_F"
    first = panel(cells, "kimg", "weight_asymmetry", "(a) asymmetry", y, floor)
    last = choose(request.cube)
    note = (
        f"(b), (c): {last.where}. (b): thin lines are lam / (lam + sigma^2) of the training set's "
        "variances lam. A symmetric W_L is no sign of linearity either."
    )
    return Sheet(
        f"(a): {cells.where}",
        (first, _gains(last), _directions(last)),
        notes=(note,),
        size=(12.5, 4.8),
        replicates=cells.replicates,
    )


def _gains(cells: Cells) -> Panel:
    """Singular values at a few noise levels beside those of the Wiener filter."""
    lines: list[Line] = []
    shown = levels(within(cells, *RANGE).data, 4)
    for i, sigma in enumerate(shown):
        style = line_style(i, len(shown)) | {"linestyle": "none"}
        values = _modes(cells.data["weight_singular_value"].sel(sigma=sigma, drop=True))
        lines.append(line(f"{sigma:.3g}", values, "mode", style, band=False))
        lam = _modes(cells.data["train_eigenvalues"])
        gain = lam / (lam + sigma**2)
        thin = {"color": style["color"], "linewidth": 0.8}
        name = "train_eigenvalues / (train_eigenvalues + sigma^2)"
        label = f"Wiener, {sigma:.3g}"
        lines.append(line(label, gain, "mode", thin, name=name, shown=False, band=False))
    notes = [("Wiener filter (thin)", {"color": "0.4", "linewidth": 0.8})]
    return Panel(
        "(b) singular values",
        "mode, the largest first",
        "gain",
        lines,
        legend="sigma",
        notes=notes,
        x_scale="linear",
        y_limits=(0.0, None),
    )


def _directions(cells: Cells) -> Panel:
    """Leading singular vectors at sigma near 4 against principal axes."""
    at = cells.data.isel(sigma=near(cells.data, 4.0))
    single = line(
        "singular vector k to axis k",
        _modes(at["singular_vector_cosine"]),
        "mode",
        line_style(0, 2) | {"linestyle": "none"},
        band=False,
    )
    angles = line(
        "principal angle k of the spans",
        _modes(at["principal_cosine"]),
        "mode",
        line_style(1, 2) | {"linestyle": "none", "markerfacecolor": "none"},
        band=False,
    )
    title = f"(c) vectors, sigma {float(at['sigma']):.3g}"
    return Panel(
        title,
        "mode, the largest first",
        "|cosine|",
        (single, angles),
        x_scale="linear",
        y_limits=(0.0, 1.05),
    )


def _modes(values: xr.DataArray) -> xr.DataArray:
    """The first modes, counted from 1."""
    count = min(MODES, values.sizes["mode"])
    return values.isel(mode=slice(count)).assign_coords(mode=np.arange(1, count + 1))


def jacobian_modes(request: Request) -> Sheet:
    """Left singular vectors of the Jacobian against principal axes, by n_train (figure 28)."""
    cells = choose(request.cube, "n_train")
    d = cells.data.sizes["mode"]
    sigma = cells.data["sigma"].values.astype(float)
    chance = constant(
        "random vectors, sqrt(2 / pi d)", sigma, math.sqrt(2 / (math.pi * d)), "chance"
    )
    panels = [
        panel(
            replace(cells, data=_mode(cells.data, k)),
            "n_train",
            "jacobian_mode_overlap",
            f"({letter}) mode {k}",
            "|cosine|",
            more=(chance,),
            y_limits=(0.0, 1.02),
        )
        for letter, k in (("a", 1), ("b", 2), ("c", 5))
    ]
    note = "Mean over held-out inputs. Vectors mix where singular values nearly agree."
    return Sheet(cells.where, panels, notes=(note,), size=(12.5, 4.4), replicates=cells.replicates)


def _mode(data: xr.Dataset, k: int) -> xr.Dataset:
    return data.isel(mode=k - 1, drop=True)


def jacobian_subspace(request: Request) -> Sheet:
    """Span of the leading singular vectors, and the Jacobian's asymmetry (figure 29)."""
    cells = choose(request.cube, "n_train")
    sigma = cells.data["sigma"].values.astype(float)
    overlap = panel(
        cells,
        "n_train",
        "jacobian_subspace_overlap",
        "(a) leading subspace",
        "mean squared cosine of principal angles",
        y_limits=(0.0, 1.02),
    )
    asymmetry = panel(
        cells, "n_train", "jacobian_asymmetry", "(b) asymmetry", "|J - J^T|_F / |J|_F"
    )
    zero = constant("any posterior mean", sigma, 0.0, "zero")
    note = "Left singular vectors of J against principal axes, mean over held-out inputs."
    return Sheet(
        cells.where,
        (overlap, replace(asymmetry, lines=[*asymmetry.lines, zero])),
        notes=(note,),
        size=(9.4, 4.6),
        replicates=cells.replicates,
    )
