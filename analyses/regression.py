r"""Regression of onset times that are only known to lie between two snapshots.

An onset :math:`\tau` is observed as an interval (low, high]: low = 0 if it lies before the first
snapshot, high = inf if it was not reached. Two models, both with log-normal scatter :math:`s`:

- power law :math:`\log\tau = a + b \log n + s\,\varepsilon`,
- offset :math:`\log\tau = \log(\tau_0 + c\,n) + s\,\varepsilon`.

Both are maximum likelihood fits of interval-censored data (`censored`), for a whole batch of data
sets at once. Standard errors come from the observed information, with the scatter's variance
estimate freed of its bias, n / (n - 2) with n the number of onsets bounded on both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from analyses.censored import Maximum, maximise, middles, scatter_floor, start_scatter
from analyses.statistics import Numbers

__all__ = [
    "OffsetFit",
    "PowerFit",
    "admitted_slopes",
    "fit_offset",
    "fit_power",
    "observations",
    "scatter_floor",
]


@dataclass(frozen=True)
class PowerFit:
    """log tau = intercept + slope log n + scatter eps, one entry per data set of the batch."""

    intercept: Float[np.ndarray, " b"]
    slope: Float[np.ndarray, " b"]
    scatter: Float[np.ndarray, " b"]
    success: Bool[np.ndarray, " b"]
    slope_se: Float[np.ndarray, " b"]
    """From the observed information, as if all observations were independent."""
    freedom: Float[np.ndarray, " b"]
    """Onsets bounded on both sides, less 2."""
    coarse: Bool[np.ndarray, " b"]
    """Whether the intervals are too long to show any scatter, which is then at its floor."""


@dataclass(frozen=True)
class OffsetFit:
    """tau = offset + rate n with log-normal scatter, one entry per data set of the batch."""

    offset: Float[np.ndarray, " b"]
    rate: Float[np.ndarray, " b"]
    scatter: Float[np.ndarray, " b"]
    success: Bool[np.ndarray, " b"]
    offset_se: Float[np.ndarray, " b"]
    rate_se: Float[np.ndarray, " b"]
    """From the observed information, as if all observations were independent."""
    freedom: Float[np.ndarray, " b"]
    """Onsets bounded on both sides, less 2."""
    coarse: Bool[np.ndarray, " b"]
    """Whether the intervals are too long to show any scatter, which is then at its floor."""


def fit_power(n: Numbers, low: Numbers, high: Numbers, weights: Numbers = 1.0) -> PowerFit:
    r"""Maximum likelihood of :math:`\log\tau = a + b\log n + s\,\varepsilon`.

    `n` (" o"), `low` and `high` (" o" or "b o"), `weights` >= 0 broadcastable to them. NaN bounds
    are left out. Where fewer than two `n` have an interval bounded on both sides the slope is not
    identified: NaN and `success` False.

    >>> fit = fit_power([10, 100], [[20.0, 200.0]], [[20.0, 200.0]])
    >>> round(float(fit.slope[0]), 3), bool(fit.success[0])
    (1.0, True)
    """
    n, low, high, weights = observations(n, low, high, weights)
    found = _fit(_power_mean, _unit(np.log(n)), n, low, high, weights)
    theta, span = found.theta, np.log(n.max()) - np.log(n.min())
    run = span if span > 0 else np.nan
    slope = (theta[:, 1] - theta[:, 0]) / run
    intercept = theta[:, 0] - slope * np.log(n.min())
    freedom = _freedom(low, high, weights)
    se = _standard_error(found, np.stack([-1 / run + 0 * slope, 1 / run + 0 * slope], 1), freedom)
    return PowerFit(
        intercept, slope, np.exp(theta[:, 2]), found.converged, se, freedom, found.held
    )


def fit_offset(n: Numbers, low: Numbers, high: Numbers, weights: Numbers = 1.0) -> OffsetFit:
    r"""Maximum likelihood of :math:`\tau = \tau_0 + c\,n` with log-normal scatter.

    Arguments and failures as in `fit_power`. The curve is positive over the given `n`;
    :math:`\tau_0`, its continuation to n = 0, may be negative.

    >>> fit = fit_offset([10, 20, 40], [[70.0, 90.0, 130.0]], [[70.0, 90.0, 130.0]])
    >>> round(float(fit.offset[0]), 1), round(float(fit.rate[0]), 2)
    (50.0, 2.0)
    """
    n, low, high, weights = observations(n, low, high, weights)
    found = _fit(_offset_mean, _unit(n), n, low, high, weights)
    first, last = np.exp(found.theta[:, 0]), np.exp(found.theta[:, 1])
    run = n.max() - n.min() if n.max() > n.min() else np.nan
    rate = (last - first) / run
    freedom, start = _freedom(low, high, weights), n.min() / run
    by_offset = np.stack([(1 + start) * first, -start * last], 1)
    se = [
        _standard_error(found, g, freedom) for g in (by_offset, np.stack([-first, last], 1) / run)
    ]
    scatter = np.exp(found.theta[:, 2])
    return OffsetFit(
        first - rate * n.min(), rate, scatter, found.converged, *se, freedom, found.held
    )


def admitted_slopes(n: Numbers, low: Numbers, high: Numbers) -> tuple[float, float]:
    r"""Least and greatest slope of the power laws that pass through every interval (low, high].

    `n`, `low` and `high` (" o"); NaN bounds are left out. A line of slope b through all of them
    exists if and only if for every two :math:`n_i < n_j`: :math:`\log low_j - \log high_i \le b
    (\log n_j - \log n_i) \le \log high_j - \log low_i`, and no two of equal n are disjoint. This
    is what the spacing of the snapshots alone leaves open. NaN if no power law passes.

    >>> least, greatest = admitted_slopes([1, 10, 100], [1, 10, 100], [10, 100, 1000])
    >>> round(least, 3), round(greatest, 3)
    (0.5, 1.5)
    """
    n, low, high, weights = (np.ravel(a) for a in observations(n, low, high, 1.0))
    known = weights > 0
    with np.errstate(divide="ignore"):
        t, low, high = (np.log(a[known]) for a in (n, low, high))
    run, floor, ceiling = t - t[:, None], low - high[:, None], high - low[:, None]
    up = run > 0
    least = np.max(floor[up] / run[up], initial=-np.inf)
    greatest = np.min(ceiling[up] / run[up], initial=np.inf)
    if least > greatest or np.any(floor[run == 0] > 0):
        return np.nan, np.nan
    return float(least), float(greatest)


def observations(n: Numbers, low: Numbers, high: Numbers, weights: Numbers = 1.0) -> tuple:
    """Arguments as float arrays "o", "b o", "b o", "b o"; observations with NaN get weight 0.

    Raises ValueError if the numbers of observations differ or an interval is upside down.
    """
    n = np.asarray(n, float)
    low, high, weights = np.broadcast_arrays(
        np.atleast_2d(np.asarray(low, float)),
        np.atleast_2d(np.asarray(high, float)),
        np.atleast_2d(np.asarray(weights, float)),
    )
    if low.shape[1] != n.size:
        raise ValueError(f"`low` and `high` have {low.shape[1]} observations, `n` has {n.size}.")
    if np.any(low > high) or np.any(low < 0):
        raise ValueError("Every interval must have 0 <= low <= high.")
    known = ~(np.isnan(low) | np.isnan(high))
    # An interval (0, inf) says nothing; 1 stands in where there is no number to take a log of.
    return n, np.where(known, low, 1.0), np.where(known, high, 1.0), np.where(known, weights, 0.0)


def _unit(x: Float[np.ndarray, " o"]) -> Float[np.ndarray, " o"]:
    """`x` mapped to [0, 1]; the parameters are then the curve's two ends: well conditioned."""
    span = x.max() - x.min()
    return (x - x.min()) / (span if span > 0 else 1.0)


def _power_mean(theta: Float[np.ndarray, "b 3"], t: Float[np.ndarray, " o"]) -> tuple:
    """Mean of log tau and its derivatives by the two ends: a straight line in log n."""
    design = np.stack([1 - t, t], axis=-1)
    return theta[:, :2] @ design.T, np.broadcast_to(design, (len(theta), *design.shape))


def _offset_mean(theta: Float[np.ndarray, "b 3"], t: Float[np.ndarray, " o"]) -> tuple:
    """Mean of log tau and its derivatives by the logs of the two ends: a straight line in n."""
    first, last = np.exp(theta[:, :1]) * (1 - t), np.exp(theta[:, 1:2]) * t
    return np.log(first + last), np.stack([first, last], axis=-1) / (first + last)[..., None]


def _fit(
    mean: Callable,
    t: Float[np.ndarray, " o"],
    n: Float[np.ndarray, " o"],
    low: Float[np.ndarray, "b o"],
    high: Float[np.ndarray, "b o"],
    weights: Float[np.ndarray, "b o"],
) -> Maximum:
    """Parameters (two ends, log scatter), NaN and not converged where not identified."""
    with np.errstate(divide="ignore"):
        bounds = np.log(low), np.log(high)
    floor = np.log(scatter_floor(low, high))
    starts = _starts(t, *bounds, weights, floor)
    found = maximise(lambda theta: mean(theta, t), starts, *bounds, weights, floor)
    success = found.converged & _identified(n, low, high, weights)
    theta = np.where(success[:, None], found.theta, np.nan)
    return replace(found, theta=theta, converged=success)


def _standard_error(
    found: Maximum, gradient: Float[np.ndarray, "b 2"], freedom: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    """Delta method; NaN where the fit failed or nothing is left to estimate the scatter."""
    variance = np.einsum("bi,bij,bj->b", gradient, found.covariance[:, :2, :2], gradient)
    bias = (freedom + 2) / np.where(freedom > 0, freedom, np.nan)
    return np.sqrt(np.where(found.converged, variance, np.nan) * bias)


def _freedom(low: np.ndarray, high: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Onsets bounded on both sides, less the two parameters of the curve."""
    return ((low > 0) & np.isfinite(high) & (weights > 0)).sum(axis=1) - 2.0


def _identified(
    n: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Whether at least two different n have an onset bounded on both sides."""
    bounded = (low > 0) & np.isfinite(high) & (weights > 0)
    most = np.where(bounded, n, -np.inf).max(axis=1)
    return most > np.where(bounded, n, np.inf).min(axis=1)


def _starts(
    t: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray, floor: float
) -> list[Float[np.ndarray, "b 3"]]:
    """Parameters from which to climb: the line through the middles, the flat one, a steep one."""
    middle = middles(low, high)
    w = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    centre_t, centre = (w * t).sum(1), (w * middle).sum(1)
    spread = (w * (t - centre_t[:, None]) ** 2).sum(1)
    slope = (w * (t - centre_t[:, None]) * middle).sum(1) / np.maximum(spread, 1e-12)
    starts = []
    for steepness in (slope, 0 * slope, slope + 1.0):
        first = centre - steepness * centre_t
        last = first + steepness
        residual = middle - first[:, None] - steepness[:, None] * t
        log_scatter = start_scatter(residual, weights, floor)
        starts.append(np.stack([first, last, log_scatter], axis=1))
    return starts
