r"""Is the distance to the Gaussian denoiser a matter of capacity, or only of time?

At an equal kimg a wide network has got further than a narrow one, and a run on few points further
towards memorizing than one on many: their distances differ though each would pass the same point
sooner or later. So every distance is read twice: at each kimg, and at the run's own minimum over
kimg. A trend over width or n_train that is there in the first and not in the second is a clock
effect; one that stays is an effect of capacity (or of the data). A minimum at the first or last
snapshot is not known to be one and is left out.

A trend is Spearman's rank correlation of distance and axis along every line on which all else is
equal, beside it the least-squares slope of the log distance; both are averaged over the lines of a
replicate, and over replicates with seeds and draws as separate sources of variance (`variance`).
2410.24060, figs. 6-8.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.trials import AXES, across, group_dims, heldout, labelled, per_trial
from analyses.variance import crossed_mean

__all__ = ["clock", "line_slope", "line_spearman"]

ALONG = ("width", "n_train")
"""Axes with a trend; the others are NaN."""
READINGS = {"fixed": "at equal kimg", "minimum": "at each run's own minimum over kimg"}


def clock(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """`distance_at_kimg`, `distance_at_minimum` per trial, `clock_trend_*`, `clock_slope_*`.

    `found` holds tau_gauss_rmse and tau_gauss_interior. Trends are over (axis, *split and further
    axes), `_fixed` also over kimg, with `_low`, `_high` (NaN with a single replicate) and the sign
    of the slope, 0 where its interval holds 0.
    """
    if "tau_gauss_rmse" not in found or "gaussian" not in found["reference"].values:
        return xr.Dataset()
    order = across(cube)
    distance = per_trial(
        cube, heldout(cube, "denoiser_rmse").sel(reference="gaussian", drop=True), "kimg"
    )
    own = found.sel(reference="gaussian", drop=True)
    least = own["tau_gauss_rmse"].where(own["tau_gauss_interior"] == 1).transpose(*order)
    units = found["tau_gauss_rmse"].attrs["units"]
    what = "RMSE to the Gaussian denoiser, held-out inputs, sigma nearest 0.47"
    parts = [
        labelled(cube, (*order, "kimg"), distance_at_kimg=(distance, what, units)),
        labelled(
            cube,
            order,
            distance_at_minimum=(
                least.values,
                f"least {what}; missing where the minimum is at an end of the kimg",
                units,
            ),
        ),
        _trends(cube, distance, "fixed", ("kimg",)),
        _trends(cube, least.values, "minimum", ()),
    ]
    return xr.merge(parts, compat="no_conflicts", join="outer")


def line_spearman(
    y: Float[np.ndarray, "*lines k"], x: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "*lines"]:
    """Spearman's rank correlation along the last axis; NaN below three points or without spread.

    >>> line_spearman(np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 1.0]]), np.arange(3.0)).tolist()
    [1.0, -1.0]
    """
    from scipy.stats import rankdata  # most of the seconds that importing `phase` would take

    x = np.where(np.isnan(y), np.nan, x)
    ranks = [rankdata(a, axis=-1, nan_policy="omit") for a in (x, y)]
    return _correlation(*ranks)


def line_slope(
    y: Float[np.ndarray, "*lines k"], x: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "*lines"]:
    """Least-squares slope of log y on log x along the last axis; NaN below two points.

    >>> round(float(line_slope(np.array([1.0, 4.0, 16.0]), np.array([1.0, 2.0, 4.0]))), 6)
    2.0
    """
    v = np.log(np.where(y > 0, y, np.nan))
    u = _centred(np.where(np.isnan(v), np.nan, np.log(x)))
    spread = np.nansum(u * u, axis=-1)
    return np.asarray(np.nansum(u * _centred(v), axis=-1) / np.where(spread > 0, spread, np.nan))


def _trends(
    cube: xr.Dataset, distance: np.ndarray, reading: str, own: tuple[str, ...]
) -> xr.Dataset:
    """Both trends on both axes, for one of the two readings."""
    order = (*across(cube), *own)
    dims = (*group_dims(cube), *own)
    array = xr.DataArray(distance, dims=order)
    variables = {}
    for name, along, text in (
        ("trend", line_spearman, "Spearman's correlation of distance and axis"),
        ("slope", line_slope, "slope of the log distance on the log of the axis"),
    ):
        rows = [_average(cube, array, axis, along, dims) for axis in AXES]
        value, low, high = (np.stack(a) for a in zip(*rows, strict=True))
        label = f"{text}, {READINGS[reading]}, mean over lines and replicates"
        for end, numbers in (("", value), ("_low", low), ("_high", high)):
            what = f"{label}, {end[1:]} end of 95 % interval" if end else label
            variables[f"clock_{name}_{reading}{end}"] = (numbers, what, "1")
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0)).astype(np.int8)
    text = f"sign of the slope {READINGS[reading]}; 0 where its interval holds 0 or is missing"
    variables[f"clock_sign_{reading}"] = (sign, text, "1")
    coords = {"axis": xr.DataArray(np.array(AXES, object), dims="axis")}
    return labelled(cube, ("axis", *dims), coords, **variables)


def _average(
    cube: xr.Dataset, array: xr.DataArray, axis: str, along: object, dims: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the lines of a replicate, then over seeds and draws: (mean, low, high)."""
    if axis not in ALONG or axis not in array.dims:
        return tuple(np.full((3, *(array.sizes[d] for d in dims)), np.nan))
    other = [a for a in ALONG if a != axis and a in array.dims]
    missing = {d: 1 for d in ("seed", "draw") if d not in array.dims}
    ordered = array.expand_dims(missing).transpose(*dims, "seed", "draw", *other, axis)
    lines = along(ordered.values, cube[axis].values.astype(float))
    if other:
        known = ~np.isnan(lines)
        count = known.sum(axis=-1)
        lines = np.where(known, lines, 0).sum(axis=-1) / np.where(count > 0, count, np.nan)
    return tuple(np.asarray(a) for a in crossed_mean(lines))


def _centred(values: np.ndarray) -> np.ndarray:
    """Less the mean along the last axis, ignoring NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1, keepdims=True)
    total = np.where(known, values, 0).sum(axis=-1, keepdims=True)
    return values - total / np.where(count > 0, count, np.nan)


def _correlation(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis, NaN in both at the same places."""
    known = (~np.isnan(u)).sum(axis=-1)
    u, v = (np.nan_to_num(_centred(a)) for a in (u, v))
    scale = np.sqrt((u * u).sum(axis=-1) * (v * v).sum(axis=-1))
    return np.asarray((u * v).sum(axis=-1) / np.where((scale > 0) & (known > 2), scale, np.nan))
