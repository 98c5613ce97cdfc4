"""Small measurements along one axis of a cube, for every (seed, draw) replicate."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.clock import line_slope, line_spearman
from analyses.exponents import exponent
from analyses.onset_laws import MIN_REPLICATES
from analyses.regression import admitted_slopes
from analyses.trials import REPLICATES
from analyses.verdicts.judging import EVERYWHERE, INTERVAL, Estimate, Region, estimate

__all__ = [
    "CORRELATION",
    "bounded",
    "by",
    "exponent_along",
    "judged_width",
    "sides",
    "slope",
    "trend",
    "valley",
    "widened",
]

CORRELATION: Region = (-1.0, 1.0)
"""Bounds of a `trend`."""


def trend(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Spearman's rank correlation with the coordinate `dim`; NaN below three points."""
    x = values[dim].values.astype(float)
    return _along(line_spearman, values, dim, x)


def slope(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Least-squares slope of log values on log `dim`; NaN below two positive points."""
    return _along(line_slope, values, dim, values[dim].values.astype(float))


def valley(values: xr.DataArray, dim: str) -> xr.Dataset:
    """`at`, `fall`, `rise` of a minimum along `dim`, per replicate.

    Where the minimum is, is read from the *other* replicates' mean; how much this one falls to
    there from the first point, and rises from there to the last, is then free of the bias of
    having been chosen (both are 0 on average for a flat curve). NaN with a single replicate.
    """
    curve = values.transpose(*REPLICATES, dim).values.astype(float)
    flat = curve.reshape(-1, curve.shape[-1])
    known = ~np.isnan(flat)
    filled = np.where(known, flat, 0.0)
    count = known.sum(axis=0) - known
    mean = (filled.sum(axis=0) - filled) / np.where(count > 0, count, np.nan)
    open_ = np.isnan(mean).all(axis=1)
    least = np.where(np.isnan(mean), np.inf, mean).argmin(axis=1)
    own = np.take_along_axis(flat, least[:, None], axis=1)[:, 0]
    place = values[dim].values.astype(float)[least]
    found = {"at": place, "fall": flat[:, 0] - own, "rise": flat[:, -1] - own}
    shape = curve.shape[:-1]
    return xr.Dataset(
        {
            name: (REPLICATES, np.where(open_ | np.isnan(own), np.nan, a).reshape(shape))
            for name, a in found.items()
        }
    )


def sides(values: xr.DataArray, dim: str) -> tuple[dict[str, Estimate], str]:
    """Estimates of `at`, `fall` and `rise` of a `valley`, and the name of its weaker side.

    Both sides are to be judged, each for itself: the smaller of two numbers that are 0 on average
    is below 0 on average.
    """
    found = {str(name): estimate(array) for name, array in valley(values, dim).items()}
    weaker = min(("fall", "rise"), key=lambda side: np.nan_to_num(found[side].low, nan=-np.inf))
    return found, weaker


def exponent_along(low: xr.DataArray, high: xr.DataArray, dim: str) -> Estimate:
    """Exponent on `dim` of what lies in (low, high], over (dim, seed, draw): see `exponents`."""
    order = (dim, *REPLICATES)
    ends = [a.transpose(*order).values.astype(float).ravel() for a in (low, high)]
    places = np.indices([low.sizes[d] for d in order]).reshape(3, -1)
    x = low[dim].values.astype(float)[places[0]]
    found = exponent(x, *ends, *places[1:])
    value, count = float(found["estimate"]), int(found["replicates"])
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, "nothing measured", 0)
    kind = f"range over {count} replicates" if count < MIN_REPLICATES else INTERVAL
    kind = "Wald's interval of a single replicate" if count == 1 else kind
    fit = Estimate(value, float(found["low"]), float(found["high"]), kind, count)
    return widened(fit, x, *ends)


def widened(
    found: Estimate,
    x: Float[np.ndarray, " o"],
    low: Float[np.ndarray, " o"],
    high: Float[np.ndarray, " o"],
) -> Estimate:
    """A range over replicates, extended to all slopes that the intervals (low, high] leave open.

    Two or three replicates with the same onsets agree exactly, whatever the truth: how far the
    snapshots are apart then says more than their range. From four replicates on the interval
    knows it already (see `exponents`).
    """
    if not found.kind.startswith("range"):
        return found
    ends = admitted_slopes(x, low, high)
    return found._replace(
        low=float(np.fmin(found.low, ends[0])),
        high=float(np.fmax(found.high, ends[1])),
        kind=f"{found.kind} and what the snapshots leave open",
    )


def bounded(low: xr.DataArray, high: xr.DataArray, dim: str) -> xr.DataArray:
    """At how many values of `dim` some replicate's interval is bounded on both sides."""
    inside = (low > 0) & np.isfinite(high)
    return inside.any([d for d in REPLICATES if d in inside.dims]).sum(dim)


def judged_width(phase: xr.Dataset, dim: str = "n_train") -> int:
    """The largest width with onsets inside the grid at two values of `dim`; else the largest."""
    inside = bounded(phase["tau_mem_low"], phase["tau_mem_high"], dim)
    widths = inside["width"].values
    good = widths[inside.values >= 2]
    return int(good.max() if len(good) else widths.max())


def by(values: xr.DataArray, dim: str, within: Region = EVERYWHERE) -> str:
    """The estimate at each value of `dim`, as text."""
    parts = (
        f"{values[dim].values[i]}: {estimate(values.isel({dim: i}), within)}"
        for i in range(values.sizes[dim])
    )
    return f"{dim} " + ", ".join(parts)


def _along(line: object, values: xr.DataArray, dim: str, x: np.ndarray) -> xr.DataArray:
    ordered = values.transpose(..., dim)
    coords = {d: ordered[d] for d in ordered.dims[:-1] if d in ordered.coords}
    return xr.DataArray(line(ordered.values.astype(float), x), coords, ordered.dims[:-1])
