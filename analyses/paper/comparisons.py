"""Figures that set denoisers of other kinds side by side: preconditionings, one noise level.

A denoiser trained at a single noise level is read at that level alone, so that a sweep over
`training.sigma` gives one line: each of its points is another network.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analyses.paper.cells import Cells, Request, choose
from analyses.paper.curves import FLOOR, SIGMA, drawn
from analyses.paper.needs import compared
from analyses.paper.sheets import Line, Panel, Sheet
from analyses.style import line_style

__all__ = ["distances", "errors"]

SINGLE = "training_sigma"
SAME = 0.05
"""Relative difference below which a noise level is that of the training."""
RMSE = ("denoiser_rmse", "RMSE to D_G (pixel)")
NMSE = ("denoiser_nmse", "|D - D_G| / |D|")


def distances(request: Request) -> Sheet:
    """Distance to D_G by kind of denoiser, to D_G and to D_kappa (figure 24)."""
    cells, axis = _cells(request.cube)
    panels = [
        _panel(cells, axis, *RMSE, "(a) to D_G of the training set", "gaussian"),
        _panel(cells, axis, "denoiser_rmse", "RMSE (pixel)", "(b) to D_kappa", "kappa"),
    ]
    return _sheet(cells, axis, panels)


def errors(request: Request) -> Sheet:
    """The same distance as RMSE and relative to the output's norm (figure 27)."""
    cells, axis = _cells(request.cube)
    panels = [
        _panel(cells, axis, *RMSE, "(a) RMSE", "gaussian"),
        _panel(cells, axis, *NMSE, "(b) NMSE", "gaussian"),
    ]
    return _sheet(cells, axis, panels)


def _cells(cube: xr.Dataset) -> tuple[Cells, str]:
    """The cells of the first axis of kinds; the sizes of the training set where there is none."""
    axis = SINGLE if cube.sizes.get(SINGLE, 0) > 1 else compared(cube) or "n_train"
    return choose(cube, axis), axis


def _sheet(cells: Cells, axis: str, panels: Sequence[Panel]) -> Sheet:
    notes = ["Held-out inputs."]
    if axis == SINGLE:
        notes.append("Each point is a network trained at that noise level alone.")
    return Sheet(cells.where, panels, notes=notes, size=(9.4, 4.6), replicates=cells.replicates)


def _panel(cells: Cells, axis: str, name: str, y: str, title: str, reference: str) -> Panel:
    data = cells.data
    at = {"reference": reference}
    if axis == SINGLE:
        lines = [drawn(_single(data), name, "one noise level each", line_style(0, 2), **at)]
        memory = _single(data)
    else:
        values = data[axis].values
        lines = [
            drawn(data, name, _label(v), line_style(i, len(values)), **{axis: v}, **at)
            for i, v in enumerate(values)
        ]
        memory = data.isel({axis: -1})
    lines += _memory(memory, name, reference)
    exposure = data.get("exposure") if axis != SINGLE else None
    legend = "" if axis == SINGLE else axis.replace("training_", "")
    return Panel(title, SIGMA, y, lines, legend, y_limits=(0.0, None), exposure=exposure)


def _memory(data: xr.Dataset, name: str, reference: str) -> list[Line]:
    """D_M's own distance to D_G, where it is the same quantity."""
    known = name == "denoiser_rmse" and reference == "gaussian"
    return [drawn(data, "empirical_gaussian_rmse", "D_M to D_G", FLOOR)] if known else []


def _single(data: xr.Dataset) -> xr.Dataset:
    """Each training noise level read at itself: one dim `sigma` in place of both."""
    sigma = data["sigma"].values.astype(float)
    parts = []
    for value in np.sort(data[SINGLE].values.astype(float)):
        at = int(np.abs(np.log(sigma / value)).argmin())
        if abs(sigma[at] / value - 1) > SAME:
            raise ValueError(
                f"training.sigma {value:g} is not among the noise levels that are measured"
            )
        parts.append(data.sel({SINGLE: value}, drop=True).isel(sigma=[at]))
    needed = ("denoiser_rmse", "denoiser_nmse", "empirical_gaussian_rmse")
    names = [n for each in needed for n in (each, f"{each}_se") if n in data]
    return xr.concat([part[names] for part in parts], "sigma", join="override")


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
