"""What a figure needs of a cube, in words, and what of it a cube lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from analyses.paper.sheets import image_shape

__all__ = ["COMPARED", "Needs", "compared", "enumerated", "near"]

FACTOR = 2.0
"""Ratio within which a noise level stands for the one that the paper shows."""
NAMES = {
    "width": ("width", "widths"),
    "n_train": ("value of n_train", "values of n_train"),
    "kimg": ("snapshot", "snapshots"),
    "split": ("split", "splits"),
    "alpha2": ("value of alpha2", "values of alpha2"),
    "training_preconditioning": ("preconditioning", "preconditionings"),
}
"""One and several values of an axis."""
PLACES = {
    "kimg": "kimg",
    "alpha2": "the option alpha2 of the analysis mixing",
}
"""Where a sweep says the values of an axis, if not under axes."""
COMPARED = ("training_preconditioning", "training_sigma")
"""Axes along which denoisers of one data set are compared, beside those of the backbone."""


@dataclass(frozen=True)
class Needs:
    """What a figure needs; all of it."""

    analyses: Mapping[str, tuple[str, ...]]
    """The analyses, and which of their variables are drawn."""
    axes: Mapping[str, int] = field(default_factory=dict)
    """Least number of values on an axis."""
    any_axis: tuple[str, ...] = ()
    """Axes of which one must have at least 2 values; `backbone` stands for all of its options."""
    level: float | None = None
    """There must be a noise level within a factor 2 of it."""
    levels: tuple[float, float] | None = None
    """There must be at least 2 noise levels in this range."""
    images: bool = False
    """Whether pixels must form a square image."""

    def words(self) -> str:
        """All needs, as an enumeration."""
        parts = [f"at least {n} {_count(a, n)} ({_place(a)})" for a, n in self.axes.items()]
        if self.any_axis:
            names = " or ".join(_place(axis) for axis in self.any_axis)
            parts.append(f"at least 2 values of {names}")
        kind = "the analyses" if len(self.analyses) > 1 else "the analysis"
        if self.analyses:
            parts.append(f"{kind} {enumerated(self.analyses)}")
        if self.level is not None:
            parts.append(f"a noise level within a factor {FACTOR:g} of {self.level:g}")
        if self.levels is not None:
            low, high = self.levels
            parts.append(f"at least 2 noise levels between {low:g} and {high:g}")
        if self.images:
            parts.append("square images")
        return enumerated(parts)

    def lacking(self, cube: xr.Dataset) -> list[str]:
        """What the cube has, or has not, in place of each need that it does not meet."""
        found = []
        for axis, n in self.axes.items():
            if cube.sizes.get(axis, 0) < n:
                have = cube.sizes.get(axis, 0)
                found.append(f"{have or 'no'} {_count(axis, have or 2)}")
        if self.any_axis and not any(cube.sizes[a] > 1 for a in _present(cube, self.any_axis)):
            found.append("no more than one value of each")
        for analysis, variables in self.analyses.items():
            missing = [name for name in variables if name not in cube]
            if missing:
                found.append(f"no {enumerated(missing, 'or')} ({analysis})")
        return found + self._unusable(cube)

    def _unusable(self, cube: xr.Dataset) -> list[str]:
        """Noise levels and images that are there, but not as the figure needs them."""
        found = []
        sigma = cube["sigma"].values.astype(float) if "sigma" in cube.coords else np.array([])
        if self.level is not None and _distance(sigma, self.level) > np.log(FACTOR):
            levels = ", ".join(f"{s:g}" for s in sigma)
            found.append(f"the noise levels {levels}" if levels else "no noise levels")
        if self.levels is not None:
            inside = int(((sigma >= self.levels[0]) & (sigma <= self.levels[1])).sum())
            if inside < 2:
                found.append(f"{inside or 'no'} noise level{'s' * (inside != 1)} there")
        if self.images and "pixel" in cube.sizes:
            try:
                image_shape(cube.sizes["pixel"])
            except ValueError as error:
                found.append(str(error))
        return found


def near(cube: xr.Dataset, sigma: float) -> int:
    """Position of the noise level nearest to `sigma` on a log scale."""
    return int(np.abs(np.log(cube["sigma"].values.astype(float) / sigma)).argmin())


def compared(cube: xr.Dataset) -> str | None:
    """The first axis with at least 2 values along which denoisers are compared, if any."""
    present = _present(cube, ("training_preconditioning", "backbone"))
    return next((axis for axis in present if cube.sizes[axis] > 1), None)


def enumerated(parts: Iterable[str], last: str = "and") -> str:
    """Parts as an enumeration.

    >>> enumerated(["a", "b", "c"])
    'a, b and c'
    """
    *first, end = parts
    return f"{', '.join(first)} {last} {end}" if first else end


def _present(cube: xr.Dataset, axes: Iterable[str]) -> list[str]:
    """Those of `axes` that the cube has; of the backbone, every option."""
    dims = [str(d) for d in cube.dims]
    return [d for axis in axes for d in dims if d == axis or _option_of(d, axis)]


def _option_of(dim: str, axis: str) -> bool:
    return axis == "backbone" and dim.startswith("backbone_")


def _distance(sigma: np.ndarray, level: float) -> float:
    """Distance to the nearest of `sigma` on a log scale."""
    return float(np.abs(np.log(sigma / level)).min()) if len(sigma) else np.inf


def _count(axis: str, n: int) -> str:
    one, many = NAMES.get(axis, (f"value of {axis}", f"values of {axis}"))
    return one if n == 1 else many


def _place(axis: str) -> str:
    """Where the axis stands in a sweep's file."""
    if axis in PLACES:
        return PLACES[axis]
    key = axis.replace("_", ".", 1) if axis.startswith("training_") else axis
    return f"axes.{key}.*" if axis == "backbone" else f"axes.{key}"
