r"""What a figure of the paper consists of, before anything is drawn: lines, image grids, matrices.

A `Sheet` holds exactly the numbers that will be seen, so that the picture and the table beside it
come from the same objects and cannot differ. A *line* is a mean over the replicates, the (seed,
draw) pairs, with a band under the one rule of `analyses.tables.banded`: an interval of the mean
where every point has enough replicates, else their range, else 1.96 standard errors of one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.tables import banded, replicated

__all__ = ["Line", "Matrix", "Mosaic", "Panel", "Sheet", "image_shape", "line"]


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    label: str
    x: Float[np.ndarray, " k"]
    """Increasing."""
    value: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    replicates: Float[np.ndarray, " k"]
    """(seed, draw) pairs that were measured, at each point."""
    band: str
    """What `low` and `high` are, in words; empty: no band is drawn."""
    style: Mapping[str, object]
    """Keywords of `Axes.plot`."""
    name: str
    """The variable, and what was done to it."""
    shown: bool = True
    """Whether the legend names it: an oracle drawn once per line is named once, by `notes`."""

    @property
    def measured(self) -> bool:
        """Whether it holds a measured number; an oracle, whose lines have no markers, does not."""
        return "marker" in self.style and bool(np.isfinite(self.value).any())


@dataclass(frozen=True)
class Panel:
    """Lines over a common axis."""

    title: str
    x: str
    """Label of the axis; its first word is the column's name in the table."""
    y: str
    lines: Sequence[Line]
    legend: str = ""
    """Title of the legend."""
    notes: Sequence[tuple[str, Mapping[str, object]]] = ()
    """Further entries of the legend: label and style."""
    x_scale: str = "log"
    y_scale: str = "linear"
    limits: tuple[float, float] | None = None
    """Ends of the x axis."""
    y_limits: tuple[float | None, float | None] = (None, None)
    places: Sequence[str] = ()
    """Names of x = 0, 1, ... where the axis has no numbers."""
    exposure: xr.DataArray | None = None
    """Share of training draws near each noise level; rare ones are shaded."""


@dataclass(frozen=True)
class Mosaic:
    """A grid of images in the fixed range [-1, 1], and a number under each if there is one."""

    title: str
    images: Float[np.ndarray, "r c d"]
    """CHW order; NaN where not measured."""
    rows: Sequence[str]
    columns: Sequence[str] = ()
    captions: Float[np.ndarray, "r c"] | None = None
    caption: str = ""
    """What the captions are."""


@dataclass(frozen=True)
class Matrix:
    """Shares in [0, 1] as colours."""

    title: str
    values: Float[np.ndarray, "r c"]
    x: str
    y: str
    name: str


@dataclass(frozen=True)
class Sheet:
    """A whole figure."""

    where: str
    """Cells that it shows, in words."""
    panels: Sequence[Panel] = ()
    """Side by side, on the left."""
    pictures: Sequence[Mosaic | Matrix] = ()
    """On the right, in rows of `across`."""
    across: int = 1
    notes: Sequence[str] = ()
    """Sentences under the title."""
    size: tuple[float, float] = (7.2, 4.6)
    """Width and height in inches."""
    share: float = 1.0
    """Width of the pictures over that of the panels."""
    replicates: Mapping[str, int] = field(default_factory=dict)
    """Number of seeds and of draws."""


def line(
    label: str,
    values: xr.DataArray,
    x: str,
    style: Mapping[str, object],
    *,
    name: str = "",
    se: xr.DataArray | None = None,
    of: str = "held-out images",
    shown: bool = True,
    band: bool = True,
) -> Line:
    """Mean over seeds and draws of `values` (x, and any of seed and draw) along increasing x.

    `se` is the standard error of one replicate over what `of` names, the band where there is no
    second replicate.
    """
    place = values[x].values.astype(float) if x in values.coords else np.arange(values.sizes[x])
    order = np.argsort(place)
    table = replicated(values, [x])[order]
    error = None if se is None else replicated(se, [x])[order]
    count = (~np.isnan(table)).sum((1, 2))
    mean, low, high, words = banded(table, error, of)
    if not band or words.startswith("none"):
        low, high, words = np.full_like(mean, np.nan), np.full_like(mean, np.nan), ""
    ends = (place[order].astype(float), mean, low, high, count.astype(float))
    return Line(label, *ends, words, style, name or str(values.name), shown)


def image_shape(d: int) -> tuple[int, int, int]:
    """(c, h, w) of a square image of d pixels, grey or with three channels.

    >>> image_shape(64), image_shape(3072)
    ((1, 8, 8), (3, 32, 32))
    """
    for channels in (1, 3):
        side = math.isqrt(d // channels)
        if channels * side**2 == d and side > 1:
            return channels, side, side
    raise ValueError(f"images of {d} pixels are not square")
