r"""Lines of a cube along an axis, beside the oracles that bracket them.

A line carries the value of its axis by marker, dash and shade. The denoiser that memorizes
everything, D_M, stands beside it as a thin line of the same dash where it depends on the same
axis, and once in grey where it does not; the Gaussian denoiser D_G stands in black.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.paper.cells import Cells
from analyses.paper.sheets import Line, Panel, line
from analyses.style import line_style

__all__ = [
    "CEILING",
    "FLOOR",
    "GREY",
    "SIGMA",
    "Bracket",
    "constant",
    "drawn",
    "gaps",
    "levels",
    "panel",
    "within",
]

SIGMA = "sigma, the noise level (pixel)"
CEILING = {"color": "0.1", "linewidth": 1.2, "linestyle": "-"}
FLOOR = {"color": "0.45", "linewidth": 1.2, "linestyle": (0, (6, 1.5, 1, 1.5))}
GREY = {"color": "0.45", "linewidth": 1.0, "linestyle": (0, (1, 1))}
UNITS = {"n_train": "n_train", "width": "width", "kimg": "kimg", "alpha2": "alpha^2"}
WIDTH = 0.8
"""Of a thin line."""


@dataclass(frozen=True)
class Bracket:
    """An oracle's line in a panel."""

    name: str
    label: str
    style: Mapping[str, object]
    each: bool = False
    """Whether it is drawn once per line, where the training set or the axis changes it."""


def drawn(
    data: xr.Dataset,
    name: str,
    label: str,
    style: Mapping[str, object],
    x: str = "sigma",
    *,
    shown: bool = True,
    of: str = "held-out images",
    **at: object,
) -> Line:
    """Variable `name` along `x` on held-out inputs, at the coordinates `at` that it has."""
    values, error = data[name], data.get(f"{name}_se")
    at = {"inputs": "heldout"} | at
    chosen = {k: v for k, v in at.items() if k in values.dims}
    words = [f"{k} {v}" for k, v in chosen.items() if k in ("inputs", "reference")]
    if error is not None:
        error = error.sel(chosen, drop=True)
    return line(
        label,
        values.sel(chosen, drop=True),
        x,
        style,
        name=", ".join([name, *words]),
        se=error,
        of=of,
        shown=shown,
    )


def constant(
    label: str,
    at: Float[np.ndarray, " k"],
    value: float,
    name: str,
    style: Mapping[str, object] = GREY,
) -> Line:
    """A known number, over the range of `at`."""
    x, level, none = np.array([at.min(), at.max()]), np.full(2, value), np.full(2, np.nan)
    return Line(label, x, level, none, none, np.zeros(2), "", style, name)


def panel(
    cells: Cells,
    axis: str,
    name: str,
    title: str,
    y: str,
    brackets: Sequence[Bracket] = (),
    *,
    of: str = "held-out images",
    more: Sequence[Line] = (),
    limits: tuple[float, float] | None = None,
    x_scale: str = "log",
    y_limits: tuple[float | None, float | None] = (None, None),
    **at: object,
) -> Panel:
    """One line over sigma for each value of `axis`, and the brackets."""
    data, values = cells.data, cells.data[axis].values
    lines = []
    for i, value in enumerate(values):
        style, one = line_style(i, len(values)), {axis: value, **at}
        lines.append(drawn(data, name, _label(value), style, of=of, **one))
        thin = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": WIDTH}
        for each in (b for b in brackets if b.each):
            label = f"{each.label}, {_label(value)}"
            lines.append(drawn(data, each.name, label, thin, shown=False, of=of, **one))
    once = [b for b in brackets if not b.each]
    lines += [_reference(data, axis, each, of, **at) for each in once]
    return Panel(
        title,
        SIGMA,
        y,
        [*lines, *more],
        legend=UNITS.get(axis, axis.removeprefix("training_")),
        notes=[
            (f"{b.label} (thin, same dash)", {"color": "0.4", "linewidth": WIDTH})
            for b in brackets
            if b.each
        ],
        limits=limits,
        x_scale=x_scale,
        y_limits=y_limits,
        exposure=data.get("exposure") if x_scale == "log" else None,
    )


def _reference(data: xr.Dataset, axis: str, bracket: Bracket, of: str, **at: object) -> Line:
    """An oracle drawn once: of the largest training set, where the axis changes that."""
    values = data[axis].values
    one = values.max() if axis == "n_train" else values[-1]
    label = bracket.label
    if axis in ("n_train", "alpha2"):
        label += f" ({UNITS[axis]} {_label(one)})"
    return drawn(data, bracket.name, label, bracket.style, of=of, **{axis: one}, **at)


GAPS = (
    ("denoiser_rmse", "gaussian", "network to D_G"),
    ("denoiser_rmse", "linear", "network to D_L"),
    ("denoiser_rmse", "empirical", "network to D_M"),
    ("denoiser_rmse", "kappa", "network to D_kappa"),
    ("linear_gaussian_rmse", "", "D_L to D_G"),
)


def gaps(cells: Cells, title: str, **at: object) -> Panel:
    """Distances between the network, its affine fit, D_G, D_kappa and D_M over sigma."""
    lines = [
        drawn(cells.data, name, label, line_style(i, len(GAPS)), reference=reference, **at)
        for i, (name, reference, label) in enumerate(GAPS)
    ]
    lines.append(drawn(cells.data, "empirical_gaussian_rmse", "D_M to D_G", FLOOR, **at))
    return Panel(
        title,
        SIGMA,
        "RMSE (pixel)",
        lines,
        y_limits=(0.0, None),
        exposure=cells.data.get("exposure"),
    )


def levels(data: xr.Dataset, count: int) -> list[float]:
    """At most `count` noise levels, spread evenly over those that there are, the largest first."""
    sigma = np.sort(np.unique(data["sigma"].values.astype(float)))[::-1]
    at = np.unique(np.linspace(0, len(sigma) - 1, min(count, len(sigma))).round().astype(int))
    return [float(sigma[i]) for i in at]


def within(cells: Cells, low: float, high: float) -> Cells:
    """Only the noise levels from `low` to `high`."""
    sigma = cells.data["sigma"].values.astype(float)
    kept = np.flatnonzero((sigma >= low) & (sigma <= high))
    return replace(cells, data=cells.data.isel(sigma=kept))


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
