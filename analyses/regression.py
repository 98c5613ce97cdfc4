r"""Regression of onset times that are only known to lie between two snapshots.

An onset :math:`\tau` is observed as an interval (low, high]: low = 0 if it lies before the first
snapshot, high = inf if it was not reached. Two models, both with log-normal scatter :math:`s`:

- power law :math:`\log\tau = a + b \log n + s\,\varepsilon`,
- offset :math:`\log\tau = \log(\tau_0 + c\,n) + s\,\varepsilon`.

The likelihood of an observation is :math:`\Phi((\log high - m)/s) - \Phi((\log low - m)/s)`, or
the normal density where low = high (J. Tobin, Econometrica 26 (1958) 24; W. Nelson, *Applied Life
Data Analysis*, 1982). Both are maximised by a damped Newton iteration with exact derivatives, for
a whole batch of data sets at once: a bootstrap of hundreds of fits costs about as much as one.

Intervals that one curve passes through would drive :math:`s` to 0 and leave the parameters
undetermined inside them, so :math:`s` is kept above a quarter of the median interval in
:math:`\log\tau`: the curve then runs through the middles as far as it can.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr

from analyses.statistics import Numbers

FAR = 1e8
"""Stands for an infinite standardised bound: density exactly 0, powers finite."""
STEPS = 200
"""Newton iterations at most; an ordinary fit takes about 10."""


@dataclass(frozen=True)
class PowerFit:
    """log tau = intercept + slope log n + scatter eps, one entry per data set of the batch."""

    intercept: Float[np.ndarray, " b"]
    slope: Float[np.ndarray, " b"]
    scatter: Float[np.ndarray, " b"]
    success: Bool[np.ndarray, " b"]


@dataclass(frozen=True)
class OffsetFit:
    """tau = offset + rate n with log-normal scatter, one entry per data set of the batch."""

    offset: Float[np.ndarray, " b"]
    rate: Float[np.ndarray, " b"]
    scatter: Float[np.ndarray, " b"]
    success: Bool[np.ndarray, " b"]


def fit_power(n: Numbers, low: Numbers, high: Numbers, weights: Numbers = 1.0) -> PowerFit:
    r"""Maximum likelihood of :math:`\log\tau = a + b\log n + s\,\varepsilon`.

    `n` (" o"), `low` and `high` (" o" or "b o"), `weights` >= 0 broadcastable to them. NaN bounds
    are left out. Where fewer than two `n` have an interval bounded on both sides the slope is not
    identified: NaN and `success` False.

    >>> fit = fit_power([10, 100], [[20.0, 200.0]], [[20.0, 200.0]])
    >>> round(float(fit.slope[0]), 3), bool(fit.success[0])
    (1.0, True)
    """
    n, low, high, weights = _observations(n, low, high, weights)
    t = _unit(np.log(n))
    theta, success = _fit(_power_mean, t, n, low, high, weights)
    span = np.log(n.max()) - np.log(n.min())
    slope = (theta[:, 1] - theta[:, 0]) / (span if span > 0 else np.nan)
    return PowerFit(theta[:, 0] - slope * np.log(n.min()), slope, np.exp(theta[:, 2]), success)


def fit_offset(n: Numbers, low: Numbers, high: Numbers, weights: Numbers = 1.0) -> OffsetFit:
    r"""Maximum likelihood of :math:`\tau = \tau_0 + c\,n` with log-normal scatter.

    Arguments and failures as in `fit_power`. The curve is positive over the given `n`;
    :math:`\tau_0`, its continuation to n = 0, may be negative.

    >>> fit = fit_offset([10, 20, 40], [[70.0, 90.0, 130.0]], [[70.0, 90.0, 130.0]])
    >>> round(float(fit.offset[0]), 1), round(float(fit.rate[0]), 2)
    (50.0, 2.0)
    """
    n, low, high, weights = _observations(n, low, high, weights)
    theta, success = _fit(_offset_mean, _unit(n), n, low, high, weights)
    span = n.max() - n.min()
    first, last = np.exp(theta[:, 0]), np.exp(theta[:, 1])
    rate = (last - first) / (span if span > 0 else np.nan)
    return OffsetFit(first - rate * n.min(), rate, np.exp(theta[:, 2]), success)


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
    n, low, high, weights = (np.ravel(a) for a in _observations(n, low, high, 1.0))
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


def scatter_floor(low: Float[np.ndarray, "b o"], high: Float[np.ndarray, "b o"]) -> float:
    """Least scatter the intervals can show: a quarter of their median length in log tau."""
    bounded = (low > 0) & np.isfinite(high)
    length = np.log(high[bounded] / low[bounded])
    length = length[length > 0]
    return max(0.25 * float(np.median(length)), 1e-3) if length.size else 1e-3


def _observations(n: Numbers, low: Numbers, high: Numbers, weights: Numbers) -> tuple:
    """Arguments as float arrays "o", "b o", "b o", "b o"; observations with NaN get weight 0."""
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
    ones = np.ones((len(theta), 1))
    return theta[:, :1] * (1 - t) + theta[:, 1:2] * t, ones * (1 - t), ones * t


def _offset_mean(theta: Float[np.ndarray, "b 3"], t: Float[np.ndarray, " o"]) -> tuple:
    """Mean of log tau and its derivatives by the logs of the two ends: a straight line in n."""
    first, last = np.exp(theta[:, :1]) * (1 - t), np.exp(theta[:, 1:2]) * t
    return np.log(first + last), first / (first + last), last / (first + last)


def _fit(
    mean: Callable,
    t: Float[np.ndarray, " o"],
    n: Float[np.ndarray, " o"],
    low: Float[np.ndarray, "b o"],
    high: Float[np.ndarray, "b o"],
    weights: Float[np.ndarray, "b o"],
) -> tuple[Float[np.ndarray, "b 3"], Bool[np.ndarray, " b"]]:
    """Best of several starts per data set: parameters (two ends, log scatter) and success."""
    with np.errstate(divide="ignore"):
        bounds = np.log(low), np.log(high)
    identified = _identified(n, low, high, weights)
    floor = np.log(scatter_floor(low, high))
    starts = _starts(t, *bounds, weights, floor)
    repeated = [np.concatenate([a] * len(starts)) for a in (*bounds, weights)]
    theta, loss, converged = _newton(mean, t, np.concatenate(starts), *repeated, floor)
    best = loss.reshape(len(starts), -1).argmin(axis=0)
    rows = best * len(low) + np.arange(len(low))
    success = identified & converged[rows]
    return np.where(success[:, None], theta[rows], np.nan), success


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
    middle = np.where(
        np.isinf(low), high - 0.35, np.where(np.isinf(high), low + 0.35, (low + high) / 2)
    )
    middle = np.where(np.isfinite(middle), middle, 0.0)
    w = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    centre_t, centre = (w * t).sum(1), (w * middle).sum(1)
    spread = (w * (t - centre_t[:, None]) ** 2).sum(1)
    slope = (w * (t - centre_t[:, None]) * middle).sum(1) / np.maximum(spread, 1e-12)
    starts = []
    for steepness in (slope, 0 * slope, slope + 1.0):
        first = centre - steepness * centre_t
        last = first + steepness
        residual = middle - first[:, None] - steepness[:, None] * t
        scatter = np.sqrt((w * residual**2).sum(1))
        log_scatter = np.log(np.clip(scatter, max(2 * np.exp(floor), 0.1), 3.0))
        starts.append(np.stack([first, last, log_scatter], axis=1))
    return starts


def _newton(
    mean: Callable,
    t: np.ndarray,
    theta: Float[np.ndarray, "b 3"],
    low: np.ndarray,
    high: np.ndarray,
    weights: np.ndarray,
    floor: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-damped Newton on the negative log-likelihood: (parameters, loss, converged)."""
    damping = np.full(len(theta), 1e-3)
    converged = np.zeros(len(theta), bool)
    loss, gradient, hessian = _loss(mean, t, theta, low, high, weights)
    for _ in range(STEPS):
        # The scatter stays at its floor while the likelihood pushes it below.
        held = (theta[:, 2] <= floor) & (gradient[:, 2] > 0)
        step = _step(gradient, hessian, damping, held)
        trial = theta + np.clip(step, -2.0, 2.0)
        trial[:, 2] = np.clip(trial[:, 2], floor, 2.0)
        after = _loss(mean, t, trial, low, high, weights)
        better = after[0] < loss
        converged |= np.abs((step * gradient).sum(1)) < 1e-9 * np.maximum(1, np.abs(loss))
        if converged.all():
            break
        theta = np.where(better[:, None], trial, theta)
        loss = np.where(better, after[0], loss)
        gradient = np.where(better[:, None], after[1], gradient)
        hessian = np.where(better[:, None, None], after[2], hessian)
        damping = np.clip(np.where(better, damping / 4, damping * 4), 1e-9, 1e12)
    return theta, loss, converged


def _step(
    gradient: np.ndarray, hessian: np.ndarray, damping: np.ndarray, held: np.ndarray
) -> Float[np.ndarray, "b 3"]:
    """Damped Newton step; a held scatter does not move."""
    free = np.ones_like(gradient)
    free[:, 2] = ~held
    hessian = hessian * free[:, :, None] * free[:, None, :]
    diagonal = np.abs(np.einsum("bii->bi", hessian))
    scale = diagonal.max(axis=1, keepdims=True)
    ridge = damping[:, None] * (diagonal + 1e-6 * scale) + 1e-300 + (1 - free)
    matrix = hessian + ridge[:, :, None] * np.eye(3)
    singular = np.abs(np.linalg.det(matrix)) < 1e-280
    matrix = np.where(singular[:, None, None], np.eye(3), matrix)
    return -np.linalg.solve(matrix, (gradient * free)[:, :, None])[:, :, 0]


def _loss(
    mean: Callable,
    t: np.ndarray,
    theta: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Negative log-likelihood, its gradient and Hessian (without the curvature of the mean)."""
    m, d0, d1 = mean(theta, t)
    s = np.exp(theta[:, 2:])
    value, by_m, by_q, by_mm, by_mq, by_qq = (weights * x for x in _derivatives(m, s, low, high))
    gradient = np.stack([by_m * d0, by_m * d1, by_q], axis=-1).sum(axis=1)
    rows = [
        [by_mm * d0 * d0, by_mm * d0 * d1, by_mq * d0],
        [by_mm * d0 * d1, by_mm * d1 * d1, by_mq * d1],
        [by_mq * d0, by_mq * d1, by_qq],
    ]
    hessian = np.array([[x.sum(axis=1) for x in row] for row in rows]).transpose(2, 0, 1)
    return -value.sum(axis=1), -gradient, -hessian


def _derivatives(m: np.ndarray, s: np.ndarray, low: np.ndarray, high: np.ndarray) -> list:
    """Log-likelihood of each observation and its derivatives by m and q = log s, to second order.

    With A, B the normal densities at the two bounds over the probability between them, and
    D, E, F, G = z^k A - z^k B for k = 0..3.
    """
    exact = low == high
    upper = np.where(np.isinf(high), FAR, (high - m) / s)
    lower = np.where(np.isinf(low), -FAR, (low - m) / s)
    upper_ = np.where(exact, lower + 1.0, upper)  # any interval: replaced below
    # Mirrored where both bounds lie above the mean: only the left tail keeps its digits.
    mirror = lower > 0
    right, left = np.where(mirror, -lower, upper_), np.where(mirror, -upper_, lower)
    log_right, log_left = log_ndtr(right), log_ndtr(left)
    log_p = log_right + np.log(-np.expm1(np.minimum(log_left - log_right, -1e-300)))
    a = np.exp(-0.5 * upper_**2 - 0.5 * np.log(2 * np.pi) - log_p)
    b = np.exp(-0.5 * lower**2 - 0.5 * np.log(2 * np.pi) - log_p)
    D, E, F, G = (upper_**k * a - lower**k * b for k in range(4))
    interval = (log_p, -D / s, -E, -(E + D**2) / s**2, (D - F - D * E) / s, E - G - E**2)
    z, one = lower, np.ones_like(lower)
    density = -0.5 * z**2 - np.log(s) - 0.5 * np.log(2 * np.pi)
    point = (density, z / s, z**2 - 1, -one / s**2, -2 * z / s, -2 * z**2)
    return [np.where(exact, p, i) for p, i in zip(point, interval, strict=True)]
