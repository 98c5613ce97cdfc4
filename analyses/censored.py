r"""Maximum likelihood of a time that is only known to lie in an interval.

:math:`\log\tau = m(\theta) + s\,\varepsilon`, :math:`\varepsilon` standard normal, observed as
:math:`(low, high]` with low = 0 (left-censored), high = inf (right-censored) or low = high
(exact). An observation contributes :math:`\Phi((\log high - m)/s) - \Phi((\log low - m)/s)`, or
the normal density (J. Tobin, Econometrica 26 (1958) 24; W. Nelson, *Applied Life Data Analysis*,
1982). The maximum is found by a damped Newton iteration with exact derivatives, for a whole batch
of data sets at once: hundreds of fits cost about as much as one.

Intervals that one curve passes through would drive :math:`s` to 0 and leave the parameters
undetermined inside them, so :math:`s` is kept above a quarter of the median interval in
:math:`\log\tau`: the curve then runs through the middles as far as it can.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr

FAR = 1e8
"""Stands for an infinite standardised bound: density exactly 0, powers finite."""
STEPS = 200
"""Newton iterations at most; an ordinary fit takes about 10."""

Mean = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""theta "b q" -> mean of log tau "b o" and its derivatives by the first p = q - 1 "b o p"."""


@dataclass(frozen=True)
class Maximum:
    """Where the likelihood of each data set is greatest."""

    theta: Float[np.ndarray, "b q"]
    """Parameters of the mean, then log s."""
    covariance: Float[np.ndarray, "b q q"]
    """Inverse observed information; rows of 0 for a scatter that is held at its floor."""
    log_likelihood: Float[np.ndarray, " b"]
    converged: Bool[np.ndarray, " b"]
    held: Bool[np.ndarray, " b"]
    """Whether the scatter is at its floor: the intervals are too coarse to show it."""


def maximise(
    mean: Mean,
    starts: Sequence[Float[np.ndarray, "b q"]],
    low: Float[np.ndarray, "b o"],
    high: Float[np.ndarray, "b o"],
    weights: Float[np.ndarray, "b o"],
    floor: float,
) -> Maximum:
    """Best of several `starts`; `low` and `high` are logs of times, `floor` the least log s.

    The information leaves out the curvature of `mean`, which is 0 for a linear one and has
    expectation 0 otherwise.
    """
    count, batch = len(starts), len(low)
    repeated = [np.concatenate([a] * count) for a in (low, high, weights)]
    theta, loss, converged = _newton(mean, np.concatenate(starts), *repeated, floor)
    rows = loss.reshape(count, -1).argmin(axis=0) * batch + np.arange(batch)
    theta, loss, converged = theta[rows], loss[rows], converged[rows]
    _, gradient, hessian = _loss(mean, theta, low, high, weights)
    held = (theta[:, -1] <= floor) & (gradient[:, -1] > 0)
    return Maximum(theta, _inverse(hessian, held), -loss, converged, held)


def scatter_floor(low: Float[np.ndarray, "b o"], high: Float[np.ndarray, "b o"]) -> float:
    """Least scatter the intervals can show: a quarter of their median length in log tau."""
    bounded = (low > 0) & np.isfinite(high)
    length = np.log(high[bounded] / low[bounded])
    length = length[length > 0]
    return max(0.25 * float(np.median(length)), 1e-3) if length.size else 1e-3


def middles(
    low: Float[np.ndarray, "b o"], high: Float[np.ndarray, "b o"]
) -> Float[np.ndarray, "b o"]:
    """One log time per interval (of logs) to start from: its middle, or just inside its bound."""
    with np.errstate(invalid="ignore"):
        middle = np.where(
            np.isinf(low), high - 0.35, np.where(np.isinf(high), low + 0.35, (low + high) / 2)
        )
    return np.where(np.isfinite(middle), middle, 0.0)


def start_scatter(
    residual: Float[np.ndarray, "b o"], weights: Float[np.ndarray, "b o"], floor: float
) -> Float[np.ndarray, " b"]:
    """log s to start from: of the residuals, within reason."""
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    scatter = np.sqrt((share * residual**2).sum(1))
    return np.log(np.clip(scatter, max(2 * np.exp(floor), 0.1), 3.0))


def _inverse(hessian: np.ndarray, held: np.ndarray) -> Float[np.ndarray, "b q q"]:
    """Inverse of each Hessian over its free parameters; NaN where it is not positive definite."""
    free = np.ones(hessian.shape[:2])
    free[:, -1] = ~held
    pairs = free[:, :, None] * free[:, None, :]
    matrix = hessian * pairs + (1 - free)[:, :, None] * np.eye(hessian.shape[-1])
    scale = np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", matrix)), 1e-300))
    scaled = matrix / scale[:, :, None] / scale[:, None, :]
    known = np.isfinite(scaled).all(axis=(1, 2))
    scaled = np.where(known[:, None, None], scaled, np.eye(hessian.shape[-1]))
    known &= np.linalg.eigvalsh(scaled)[:, 0] > 1e-10
    scaled = np.where(known[:, None, None], scaled, np.eye(hessian.shape[-1]))
    inverse = np.linalg.inv(scaled) / scale[:, :, None] / scale[:, None, :]
    return np.where(known[:, None, None], inverse * pairs, np.nan)


def _newton(
    mean: Mean,
    theta: Float[np.ndarray, "b q"],
    low: np.ndarray,
    high: np.ndarray,
    weights: np.ndarray,
    floor: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-damped Newton on the negative log-likelihood: (parameters, loss, converged)."""
    theta, converged = theta.copy(), np.zeros(len(theta), bool)
    damping = np.full(len(theta), 1e-3)
    loss, gradient, hessian = _loss(mean, theta, low, high, weights)
    active = np.arange(len(theta))
    for _ in range(STEPS):
        # The scatter stays at its floor while the likelihood pushes it below.
        held = (theta[active, -1] <= floor) & (gradient[active, -1] > 0)
        step = _step(gradient[active], hessian[active], damping[active], held)
        promised = np.abs((step * gradient[active]).sum(1))
        done = promised < 1e-9 * np.maximum(1, np.abs(loss[active]))
        converged[active[done]] = True
        active, step = active[~done], step[~done]
        if active.size == 0:
            break
        trial = theta[active] + np.clip(step, -2.0, 2.0)
        trial[:, -1] = np.clip(trial[:, -1], floor, 2.0)
        after = _loss(mean, trial, low[active], high[active], weights[active])
        better = after[0] < loss[active]
        rows = active[better]
        theta[rows] = trial[better]
        loss[rows], gradient[rows], hessian[rows] = (a[better] for a in after)
        damping[active] = np.clip(damping[active] * np.where(better, 0.25, 4.0), 1e-9, 1e12)
    return theta, loss, converged


def _step(
    gradient: np.ndarray, hessian: np.ndarray, damping: np.ndarray, held: np.ndarray
) -> Float[np.ndarray, "b q"]:
    """Damped Newton step; a held scatter does not move."""
    free = np.ones_like(gradient)
    free[:, -1] = ~held
    hessian = hessian * free[:, :, None] * free[:, None, :]
    diagonal = np.abs(np.einsum("bii->bi", hessian))
    scale = diagonal.max(axis=1, keepdims=True)
    ridge = damping[:, None] * (diagonal + 1e-6 * scale) + 1e-300 + (1 - free)
    matrix = hessian + ridge[:, :, None] * np.eye(gradient.shape[1])
    singular = np.abs(np.linalg.det(matrix)) < 1e-280
    matrix = np.where(singular[:, None, None], np.eye(gradient.shape[1]), matrix)
    return -np.linalg.solve(matrix, (gradient * free)[:, :, None])[:, :, 0]


def _loss(
    mean: Mean, theta: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Negative log-likelihood, its gradient and Hessian (without the curvature of the mean)."""
    m, by_theta = mean(theta)
    s = np.exp(theta[:, -1:])
    value, by_m, by_q, by_mm, by_mq, by_qq = (weights * x for x in _derivatives(m, s, low, high))
    q = theta.shape[1]
    gradient, hessian = np.empty((len(theta), q)), np.empty((len(theta), q, q))
    gradient[:, :-1] = np.einsum("bo,bop->bp", by_m, by_theta)
    gradient[:, -1] = by_q.sum(axis=1)
    hessian[:, :-1, :-1] = np.swapaxes(by_theta * by_mm[..., None], 1, 2) @ by_theta
    hessian[:, :-1, -1] = np.einsum("bo,bop->bp", by_mq, by_theta)
    hessian[:, -1, :-1] = hessian[:, :-1, -1]
    hessian[:, -1, -1] = by_qq.sum(axis=1)
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
