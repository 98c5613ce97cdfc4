r"""How the onset of memorization grows with n_train: three laws per width, as variables.

The laws are those of `onset_laws`: a bare power law, one that is linear after an offset, and a
power law of the time from the Gaussian stage. Replicates are the (seed, draw) pairs; a replicate
keeps all its n_train (the subsets are nested). From `MIN_REPLICATES` on, ends are 95 % intervals
that take seeds and draws as separate sources of variance and resample the generated samples; with
one draw, or one seed, they are about that one alone. With fewer replicates, the least and the
greatest of the fits to single replicates stand in their place and `onset_is_range` is 1;
replicates whose onsets lie between the same snapshots then agree exactly, so what the snapshots
leave open stands beside it: the slopes of the power laws that pass through every onset interval.
The spread of the first slope between seeds, between draws and of the rest is given where it can
be told apart. Onsets are intervals throughout: see `regression`. 2505.17638 reports a slope of 1
for :math:`\tau_{mem}`.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.onset_laws import (
    MIN_REPLICATES,
    ONSET_LEVEL,
    Replicates,
    intervals,
    laws,
    resampled,
    sample_variance,
)
from analyses.regression import admitted_slopes
from analyses.variance import components

__all__ = ["LABELS", "MIN_REPLICATES", "ONSET_LEVEL", "slopes"]

LABELS = {
    "tau_mem_slope": ("slope of log tau_mem in log n_train", "1"),
    "tau_mem_scatter": ("scatter of log tau_mem about its power law, at least its floor", "1"),
    "tau_mem_offset": ("tau_0 of tau_mem = tau_0 + c n_train", "kimg"),
    "tau_mem_rate": ("c of tau_mem = tau_0 + c n_train", "kimg"),
    "tau_mem_minus_gauss_slope": ("slope of log(tau_mem - tau_gauss) in log n_train", "1"),
}


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
    ids = np.indices([cube.sizes[d] if d in dims else 1 for d in ("seed", "draw")]).reshape(2, -1)
    hits = _hits(cube, order, len(group))
    shape = low.shape[: len(group)]
    rows = [
        _one_width(
            n, Replicates(low[i], high[i], gauss[i], *ids), cube, None if hits is None else hits[i]
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
    counts = _counts(onsets, known)
    if not known.any():
        onsets = onsets._replace(low=np.nan * onsets.low, high=np.nan * onsets.high)
    else:
        onsets = Replicates(*(a[known] for a in onsets))
        hits = None if hits is None else hits[known]
    count = len(onsets.low)
    single = {k: v[:, 0] for k, v in laws(n, onsets, np.eye(count))[0].items()}
    if known.sum() >= MIN_REPLICATES:
        time = cube["kimg"].values.astype(float)
        extra = sample_variance(n, resampled(onsets, time, hits))
        fits = {k: [float(x[0]) for x in v] for k, v in intervals(n, onsets, extra).items()}
    else:
        whole = laws(n, onsets, np.ones((1, count)))[0]
        fits = {k: [float(v[0, 0]), *_range(single[k])] for k, v in whole.items()}
    admitted = admitted_slopes(np.tile(n, count), np.ravel(onsets.low), np.ravel(onsets.high))
    between = _between(onsets, single["tau_mem_slope"])
    return _described(fits) | between | _admitted(admitted) | counts


def _between(onsets: Replicates, slope: Float[np.ndarray, " r"]) -> dict[str, tuple]:
    """Standard deviations of the single replicates' slopes: between seeds, draws, and the rest."""
    table = np.full((onsets.seed.max() + 1, onsets.draw.max() + 1), np.nan)
    table[onsets.seed, onsets.draw] = slope
    found = components(table)
    out = {}
    for source, text in (
        ("seed", "between seeds"),
        ("draw", "between draws"),
        ("residual", "left when seeds and draws are accounted for"),
    ):
        what = f"standard deviation of the slope of log tau_mem in log n_train {text}"
        what += " (with one level of the other factor: of both together with the rest)"
        for end in ("", "_low", "_high"):
            value = np.sqrt(getattr(found, source + end))
            of = f"{end[1:]} end of the 95 % interval of: " if end else ""
            attrs = {"long_name": f"{of}{what}", "units": "1"}
            out[f"tau_mem_slope_{source}_sd{end}"] = (float(value), attrs)
    return out


def _range(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest, ignoring NaN."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)


def _described(fits: dict[str, list[float]]) -> dict[str, tuple]:
    """Estimates and interval ends with long_name and units; success beside each slope."""
    out = {}
    for name, (long_name, units) in LABELS.items():
        value, low, high = fits[name]
        ends = f"{long_name}, %s end of the 95 %% interval (or of the range over replicates)"
        out[name] = (value, {"long_name": long_name, "units": units})
        out[f"{name}_low"] = (low, {"long_name": ends % "lower", "units": units})
        out[f"{name}_high"] = (high, {"long_name": ends % "upper", "units": units})
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


def _counts(onsets: Replicates, known: np.ndarray) -> dict[str, tuple]:
    """How much data the regressions had."""
    inside = ((onsets.low > 0) & np.isfinite(onsets.high)).any(axis=0).sum()
    is_range = np.int8(known.sum() < MIN_REPLICATES)
    texts = {
        "onset_replicates": (known.sum(), "(seed, draw) replicates with an onset time"),
        "onset_seeds": (len(set(onsets.seed[known])), "number of seeds among the replicates"),
        "onset_draws": (len(set(onsets.draw[known])), "number of draws among the replicates"),
        "onset_inside": (inside, "number of n_train whose onset lies between two snapshots"),
        "onset_is_range": (
            is_range,
            f"1 where the ends are the range over fewer than {MIN_REPLICATES} replicates instead "
            "of a 95 % interval",
        ),
    }
    return {k: (v, {"long_name": text, "units": "1"}) for k, (v, text) in texts.items()}
