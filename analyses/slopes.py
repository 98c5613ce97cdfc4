r"""How the onset of memorization grows with n_train: three regressions per width.

1. the bare power law :math:`\tau_{mem} \propto n^b`;
2. :math:`\tau_{mem} = \tau_0 + c\,n`, an onset that is linear in n after an offset;
3. the power law of :math:`\tau_{mem} - \tau_{gauss}`, the time from the Gaussian stage to the
   onset (:math:`\tau_{gauss}` = the snapshot of least distance, taken as exact; trials whose
   minimum is not interior, or whose onset is not after it, are left out).

Replicates are the (seed, draw) pairs. From `MIN_REPLICATES` on, intervals are 95 % percentiles
over resamples of replicates (a replicate keeps all its n_train: the subsets are nested) and,
within each, of generated samples (the same indices at every kimg and n_train: they come from the
same latents). With fewer, the least and the greatest of the fits to single replicates stand in
their place and `onset_is_range` is 1; replicates whose onsets lie between the same snapshots then
agree exactly, so what the snapshots leave open stands beside it: the slopes of the power laws that
pass through every onset interval. Onsets are intervals throughout: see `regression`.
2505.17638 reports a slope of 1 for :math:`\tau_{mem}`.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses import onset
from analyses.regression import admitted_slopes, fit_offset, fit_power
from analyses.statistics import percentile_interval

ONSET_LEVEL = 0.05
"""Memorized share that counts as the onset of memorization."""
MIN_REPLICATES = 4
"""Fewest (seed, draw) replicates that are resampled."""
RESAMPLES = 200
"""Resamples of replicates and samples; each is refitted."""
LABELS = {
    "tau_mem_slope": ("slope of log tau_mem in log n_train", "1"),
    "tau_mem_scatter": ("scatter of log tau_mem about its power law, at least its floor", "1"),
    "tau_mem_offset": ("tau_0 of tau_mem = tau_0 + c n_train", "kimg"),
    "tau_mem_rate": ("c of tau_mem = tau_0 + c n_train", "kimg"),
    "tau_mem_minus_gauss_slope": ("slope of log(tau_mem - tau_gauss) in log n_train", "1"),
}


class Replicates(NamedTuple):
    """Onsets of one width: "r n" arrays over replicates and n_train."""

    low: Float[np.ndarray, "r n"]
    high: Float[np.ndarray, "r n"]
    gauss: Float[np.ndarray, "r n"]
    """tau_gauss where its minimum is interior, else NaN."""


def slopes(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """Slopes, offset and their intervals per width (and split and further axes).

    `found` holds `tau_mem_low`, `tau_mem_high` and, for the third regression, `tau_gauss`. Empty
    if there is no onset time or no n_train axis.
    """
    if "tau_mem_low" not in found or "n_train" not in found["tau_mem_low"].dims:
        return xr.Dataset()
    dims = found["tau_mem_low"].dims
    group = [d for d in dims if d not in ("n_train", "seed", "draw")]
    order = [*group, *(d for d in ("seed", "draw") if d in dims), "n_train"]
    n = cube["n_train"].values.astype(float)
    low, high, gauss = (_stacked(a, order, len(group)) for a in _onsets(found))
    hits = _hits(cube, order, len(group))
    shape = low.shape[: len(group)]
    rows = [
        _one_width(
            n, Replicates(low[i], high[i], gauss[i]), cube, None if hits is None else hits[i]
        )
        for i in np.ndindex(shape)
    ]
    data = {
        name: (group, np.array([row[name][0] for row in rows]).reshape(shape), row_attrs)
        for name, row_attrs in ((k, v[1]) for k, v in rows[0].items())
    }
    return xr.Dataset(data, coords={d: cube[d] for d in group if d in cube.coords})


def _onsets(found: xr.Dataset) -> list[xr.DataArray]:
    """Bounds of tau_mem and tau_gauss where interior (NaN where it is not known)."""
    low, high = found["tau_mem_low"], found["tau_mem_high"]
    if "tau_gauss" not in found or "gaussian" not in found["reference"].values:
        return [low, high, xr.full_like(low, np.nan)]
    own = found[["tau_gauss", "tau_gauss_interior"]].sel(reference="gaussian", drop=True)
    return [low, high, own["tau_gauss"].where(own["tau_gauss_interior"] == 1)]


def _stacked(array: xr.DataArray, order: list[str], groups: int) -> np.ndarray:
    """Array as (*group, replicate, n_train)."""
    values = array.transpose(*order).values.astype(float)
    return values.reshape(*values.shape[:groups], -1, values.shape[-1])


def _hits(cube: xr.Dataset, order: list[str], groups: int) -> np.ndarray | None:
    """Whether each sample is a copy, NaN where missing: (*group, replicate, n_train, kimg, s)."""
    if "nearest_ratio" not in cube:
        return None
    ratio = cube["nearest_ratio"].transpose(*order, "kimg", "sample").values
    share = cube["memorized_fraction"].transpose(*order, "kimg").values.astype(float)[..., None]
    # The share says how many of the smallest ratios count: the threshold need not be known here.
    copies = np.rint(np.nan_to_num(share) * (~np.isnan(ratio)).sum(-1, keepdims=True))
    hits = np.where(np.isnan(share), np.nan, ratio.argsort(-1).argsort(-1) < copies)
    return hits.reshape(*hits.shape[:groups], -1, *hits.shape[-3:])


def _one_width(
    n: np.ndarray, onsets: Replicates, cube: xr.Dataset, hits: np.ndarray | None
) -> dict[str, tuple]:
    """All numbers of one width: name -> (value, attributes)."""
    known = ~np.isnan(onsets.low).all(axis=1)
    onsets = Replicates(*(a[known] for a in onsets))
    replicates = int(known.sum())
    if replicates == 0:
        nothing = np.full((1, len(n)), np.nan)
        onsets = Replicates(nothing, nothing, nothing)
    estimate = _fits(n, Replicates(*(a.reshape(1, 1, -1) for a in onsets)))
    resampled = replicates >= MIN_REPLICATES
    if resampled:
        drawn = _resamples(onsets, cube, None if hits is None else hits[known])
        spread = {k: _interval(v) for k, v in _fits(n, drawn).items()}
    else:
        single = _fits(n, Replicates(*(a[:, None] for a in onsets)))
        spread = {k: _range(v) for k, v in single.items()}
    admitted = admitted_slopes(np.tile(n, len(onsets.low)), *map(np.ravel, onsets[:2]))
    counts = _counts(onsets, replicates, resampled)
    return _described(estimate, spread) | _admitted(admitted) | counts


def _fits(n: np.ndarray, onsets: Replicates) -> dict[str, np.ndarray]:
    """The three regressions for a batch; arrays "b r n" (or "b 1 o"), one result per b."""
    low, high, gauss = (a.reshape(len(a), -1) for a in onsets)
    n = np.tile(n, low.shape[1] // len(n))
    power, offset = fit_power(n, low, high), fit_offset(n, low, high)
    after = high > gauss
    excess = fit_power(
        n,
        np.where(after, np.maximum(low - gauss, 0.0), np.nan),
        np.where(after, high - gauss, np.nan),
    )
    return {
        "tau_mem_slope": power.slope,
        "tau_mem_scatter": power.scatter,
        "tau_mem_offset": offset.offset,
        "tau_mem_rate": offset.rate,
        "tau_mem_minus_gauss_slope": excess.slope,
    }


def _resamples(onsets: Replicates, cube: xr.Dataset, hits: np.ndarray | None) -> Replicates:
    """Onsets of resampled replicates and samples: arrays "b r n"."""
    count = len(onsets.low)
    rng = np.random.default_rng([2, count, RESAMPLES])
    picked = rng.integers(count, size=(RESAMPLES, count))
    low, high, gauss = (a[picked] for a in onsets)
    if hits is None:
        return Replicates(low, high, gauss)
    time, samples = cube["kimg"].values.astype(float), hits.shape[-1]
    for replicate in range(count):
        slots = picked == replicate
        weights = rng.multinomial(samples, np.full(samples, 1 / samples), size=slots.sum())
        # A snapshot without samples is NaN in every one: the sum keeps it NaN.
        share = np.moveaxis(hits[replicate] @ (weights.T / samples), -1, 0)
        low[slots], high[slots] = onset.onset(share, time, ONSET_LEVEL)
    return Replicates(low, high, gauss)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile interval; NaN where more than a tenth of the resamples identify nothing."""
    if np.isnan(values).mean() > 0.1:
        return np.nan, np.nan
    return tuple(float(end) for end in percentile_interval(values))


def _range(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest, ignoring NaN."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)


def _described(estimate: dict, spread: dict) -> dict[str, tuple]:
    """Estimates and interval ends with long_name and units; success beside each slope."""
    out = {}
    for name, (long_name, units) in LABELS.items():
        value = float(estimate[name][0])
        ends = f"{long_name}, %s end of the 95 %% interval (or of the range over replicates)"
        out[name] = (value, {"long_name": long_name, "units": units})
        low, high = spread[name]
        out[f"{name}_low"] = (float(low), {"long_name": ends % "lower", "units": units})
        out[f"{name}_high"] = (float(high), {"long_name": ends % "upper", "units": units})
        out[f"{name}_success"] = (
            np.int8(np.isfinite(value)),
            {
                "long_name": f"1 where {long_name} is identified and its fit converged",
                "units": "1",
            },
        )
    return out


def _admitted(ends: tuple[float, float]) -> dict[str, tuple]:
    """What the snapshots leave open of the first slope."""
    of = "slope of the power laws of n_train that pass through every onset interval"
    return {
        f"tau_mem_slope_admitted_{end}": (
            value,
            {"long_name": f"{which} {of} (NaN: none does)", "units": "1"},
        )
        for end, which, value in zip(("low", "high"), ("least", "greatest"), ends, strict=True)
    }


def _counts(onsets: Replicates, replicates: int, resampled: bool) -> dict[str, tuple]:
    """How much data the regressions had."""
    inside = ((onsets.low > 0) & np.isfinite(onsets.high)).any(axis=0).sum()
    return {
        "onset_replicates": (
            replicates,
            {"long_name": "(seed, draw) replicates with an onset time", "units": "1"},
        ),
        "onset_inside": (
            int(inside),
            {
                "long_name": "number of n_train whose onset lies between two snapshots",
                "units": "1",
            },
        ),
        "onset_is_range": (
            np.int8(not resampled),
            {
                "long_name": f"1 where the ends are the range over fewer than {MIN_REPLICATES} "
                "replicates instead of a 95 % interval",
                "units": "1",
            },
        ),
    }
