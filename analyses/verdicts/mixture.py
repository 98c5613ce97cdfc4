"""L13: how many trainable means a mixture needs to memorize its training points."""

import numpy as np
import xarray as xr

from analyses import onset
from analyses.onset_laws import MIN_REPLICATES
from analyses.survival import Groups, survival_fit
from analyses.verdicts.cells import PLAIN, setting
from analyses.verdicts.judging import (
    INTERVAL,
    UNDECIDED,
    Estimate,
    Law,
    Measured,
    Need,
    axis,
    combine,
    judge,
    measured,
    variables,
)
from analyses.verdicts.kernels import exponent_along

__all__ = ["LAWS"]

RATIO, LINEAR = (0.7, 0.9), (0.8, 1.2)
LEVELS = (0.05, 0.5)
"""Memorized shares at which the critical number is read; the second is judged."""


def critical(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L13: M*/N, M* the width from which on half of the samples are copies, and M* ~ N^1."""
    share = cube["memorized_fraction"].isel(kimg=-1, drop=True)
    detail, found, power = [setting(cube)], None, None
    for level in LEVELS:
        low, high = _critical(share, level)
        found, power = _ratio(low, high), exponent_along(low, high, "n_train")
        detail.append(
            f"f_mem above {level:.0%} from M* on: M*/N {found}, exponent of M* in N {power}"
        )
        detail += [
            f"  N {n}: M* in {_intervals(low.sel(n_train=n), high.sel(n_train=n))}"
            for n in low["n_train"].values
        ]
    linear = judge(power, LINEAR) if power.count else UNDECIDED
    quantity = f"M*/N at which half of the samples are copies, {float(cube['kimg'][-1]):g} kimg"
    return measured(quantity, found, combine([judge(found, RATIO), linear]), detail)


def _critical(share: xr.DataArray, level: float) -> tuple[xr.DataArray, xr.DataArray]:
    """M* in (low, high] per (n_train, seed, draw)."""
    dims = ("n_train", "seed", "draw")
    ordered = share.transpose(*dims, "width")
    ends = onset.onset(ordered.values.astype(float), ordered["width"].values.astype(float), level)
    return tuple(xr.DataArray(a, {"n_train": ordered["n_train"]}, dims) for a in ends)


def _ratio(low: xr.DataArray, high: xr.DataArray) -> Estimate:
    """Geometric mean of M*/N, intervals and all n_train together; seeds and draws as groups."""
    seed, draw = np.indices(low.shape)[1:].reshape(2, -1)
    ends = [(a / a["n_train"]).values.astype(float).ravel() for a in (low, high)]
    pairs = {p for p, x in zip(zip(seed, draw, strict=True), ends[0], strict=True) if x == x}
    nothing = np.zeros((len(seed), 0))
    if len(pairs) >= MIN_REPLICATES:
        fit = survival_fit(nothing, *ends, Groups(seed, draw))
        numbers = [float(a[0, 0]) for a in (fit.coefficients, fit.low, fit.high)]
        return Estimate(*np.exp(numbers), INTERVAL, len(pairs))
    fits = [survival_fit(nothing, *ends).coefficients[0, 0]]
    for s, d in sorted(pairs):
        own = (seed == s) & (draw == d)
        fits.append(survival_fit(nothing[own], *(a[own] for a in ends)).coefficients[0, 0])
    value, *each = np.exp(fits)
    known = [x for x in each if not np.isnan(x)]
    least, most = (min(known), max(known)) if known else (np.nan, np.nan)
    return Estimate(value, least, most, f"range over {len(known)} replicates", len(known))


def _intervals(low: xr.DataArray, high: xr.DataArray) -> str:
    pairs = zip(low.values.ravel(), high.values.ravel(), strict=True)
    return ", ".join(f"({a:g}, {b:g}]" for a, b in sorted(set(pairs)) if a == a)


LAWS = (
    Law(
        "L13",
        "a mixture denoiser memorizes from M* trainable means on, in proportion to n_train",
        "M* = .8 N",
        "arXiv:2508.17689",
        "M*/N in [.7, .9] and exponent of M* in N in [.8, 1.2]",
        (
            PLAIN,
            axis("width", 3),
            axis("n_train", 2),
            *variables("memorized_fraction"),
            Need("the backbone gmm", lambda cube, phase: cube.attrs.get("backbone") == "gmm"),
        ),
        critical,
    ),
)
