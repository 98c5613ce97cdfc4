r"""When memorization sets in, as survival data: accelerated failure time and Turnbull.

Onsets are intervals (low, high], left-censored (low = 0) before the first snapshot and
right-censored (high = inf) where they were never reached. The accelerated failure time model is
log-normal: :math:`\log\tau = \beta_0 + \sum_k \beta_k z_k + s\,\varepsilon`, with z the logs of
n_train, width or whatever else (J. D. Kalbfleisch, R. L. Prentice, *The Statistical Analysis of
Failure Time Data*, 2nd ed. 2002, ch. 3); :math:`\beta_k` is then the exponent of :math:`\tau`.
Without a model, the distribution of the onsets of like trials is the self-consistent estimate of
B. W. Turnbull, J. R. Stat. Soc. B 38 (1976) 290.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from analyses.censored import Maximum, maximise, middles, scatter_floor, start_scatter
from analyses.regression import observations
from analyses.statistics import Numbers
from analyses.variance import LEVEL, crossed_interval, leave_one_out, present

ROUNDS = 20000
"""Self-consistency iterations at most."""


class Groups(NamedTuple):
    """Which seed and which data draw each observation comes from, " o" integers."""

    seed: Numbers
    draw: Numbers


@dataclass(frozen=True)
class SurvivalFit:
    """Coefficients (the intercept first) with their errors, one row per data set."""

    coefficients: Float[np.ndarray, "b k"]
    se: Float[np.ndarray, "b k"]
    """From the observed information, as if all observations were independent."""
    low: Float[np.ndarray, "b k"]
    high: Float[np.ndarray, "b k"]
    """Ends of the 95 % intervals."""
    scatter: Float[np.ndarray, " b"]
    log_likelihood: Float[np.ndarray, " b"]
    success: Bool[np.ndarray, " b"]
    clustered: Bool[np.ndarray, " b"]
    """Whether the intervals rest on the spread between seeds or draws."""


def survival_fit(
    covariates: Float[np.ndarray, "o p"],
    low: Numbers,
    high: Numbers,
    groups: Groups | None = None,
    weights: Numbers = 1.0,
) -> SurvivalFit:
    r"""Maximum likelihood of :math:`\log\tau = \beta_0 + z\beta + s\,\varepsilon`.

    `covariates` z without the constant (p may be 0), `low` and `high` (" o" or "b o"), NaN bounds
    are left out. NaN and `success` False where the observations bounded on both sides do not
    identify all coefficients.

    Intervals: without `groups` Wald's with Student's quantile, f = (bounded observations) - p - 1
    degrees of freedom and the scatter's variance multiplied by (f + p + 1)/f, which is exact
    least squares if no onset is censored. With `groups` seeds and draws are left out in turn (see
    `variance`): all n_train of a draw are nested, so its observations are not independent. Where
    the snapshots are too coarse to show any scatter, replicates agree whatever the truth; the
    interval is then at least as long as the first one, whose scatter has a floor.

    >>> z = np.log([[16.0], [32.0], [64.0], [128.0]])
    >>> fit = survival_fit(z, [30, 62, 120, 260], [34, 66, 132, 280])
    >>> round(float(fit.coefficients[0, 1]), 1), bool(fit.success[0])
    (1.0, True)
    """
    z = np.asarray(covariates, float)
    _, low, high, weights = observations(np.zeros(len(z)), low, high, weights)
    found, freedom = _fit(z, low, high, weights)
    theta, success = found.theta[:, :-1], found.converged
    known = np.where(freedom > 0, freedom, np.nan)
    variance = np.einsum("bii->bi", found.covariance)[:, :-1]
    bias = (known + theta.shape[1]) / known
    se = np.sqrt(np.where(success[:, None], variance, np.nan) * bias[:, None])
    half = stdtrit(known, (1 + LEVEL) / 2)[:, None] * se
    ends, clustered = (theta - half, theta + half), np.zeros(len(low), bool)
    if groups is not None:
        outer = _crossed(z, low, high, weights, groups, theta)
        clustered = ~np.isnan(outer[0]).any(axis=1)
        alone = clustered & ~found.held
        ends = (
            np.where(alone[:, None], outer[0], np.fmin(ends[0], outer[0])),
            np.where(alone[:, None], outer[1], np.fmax(ends[1], outer[1])),
        )
    scatter, likelihood = np.exp(found.theta[:, -1]), found.log_likelihood
    return SurvivalFit(
        theta, se, *ends, scatter, np.where(success, likelihood, np.nan), success, clustered
    )


@dataclass(frozen=True)
class Turnbull:
    """Onset distribution: masses of the only intervals (left, right] that can have some."""

    left: Float[np.ndarray, " k"]
    right: Float[np.ndarray, " k"]
    mass: Float[np.ndarray, " k"]
    """Sums to 1; where inside its interval a mass lies is not known."""
    success: bool
    """False if there is no observation, or the masses had not settled."""

    @property
    def cumulative(self) -> Float[np.ndarray, " k"]:
        """Share of onsets up to `right`."""
        return np.cumsum(self.mass)


def turnbull(low: Numbers, high: Numbers, weights: Numbers = 1.0) -> Turnbull:
    """Nonparametric maximum likelihood of the distribution of onsets in (low, high].

    NaN bounds are left out; low = high is an exact onset.

    >>> found = turnbull([0, 10, 20, 20], [10, 20, 30, np.inf])
    >>> found.right.tolist(), found.mass.round(3).tolist()
    ([10.0, 20.0, 30.0], [0.25, 0.25, 0.5])
    """
    _, low, high, weights = observations(np.zeros(np.size(low)), low, high, weights)
    used = weights[0] > 0
    low, high, weights = low[0][used], high[0][used], weights[0][used]
    if not used.any():
        return Turnbull(*np.full((3, 0), np.nan), success=False)
    left, right = _innermost(low, high)
    point = low == high
    inside = (left >= low[:, None]) & (right <= high[:, None])
    inside |= (left == right) & (left > low[:, None]) & (right <= high[:, None])
    inside &= ~point[:, None] | (left == right)
    mass, share = np.full(len(left), 1 / len(left)), weights / weights.sum()
    for _ in range(ROUNDS):
        before = mass
        mass = before * (share @ (inside / (inside @ before)[:, None]))
        if np.abs(mass - before).max() < 1e-9:
            return Turnbull(left, right, mass, success=True)
    return Turnbull(left, right, mass, success=False)


def _fit(
    z: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray
) -> tuple[Maximum, np.ndarray]:
    """Coefficients in the units of z, and the degrees of freedom that are left."""
    centre = z.mean(axis=0)
    spread = np.ptp(z, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    design = np.concatenate([np.ones((len(z), 1)), (z - centre) / scale], axis=1)
    with np.errstate(divide="ignore"):
        bounds = np.log(low), np.log(high)
    floor = float(np.log(scatter_floor(low, high)))
    bounded = (low > 0) & np.isfinite(high) & (weights > 0)
    freedom = bounded.sum(axis=1) - design.shape[1]
    starts = [_start(x, *bounds, weights, floor, design) for x in (design, design[:, :1])]
    found = maximise(lambda theta: _mean(theta, design), starts, *bounds, weights, floor)
    success = found.converged & _full_rank(design, bounded)
    # From centred and scaled covariates back to the given ones.
    back = np.eye(design.shape[1] + 1)
    back[0, 1:-1] = -centre / scale
    back[1:-1, 1:-1] = np.diag(1 / scale)
    theta = np.where(success[:, None], found.theta @ back.T, np.nan)
    covariance = back @ found.covariance @ back.T
    return replace(found, theta=theta, covariance=covariance, converged=success), freedom


def _mean(theta: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of log tau and its derivatives by the coefficients."""
    return theta[:, :-1] @ design.T, np.broadcast_to(design, (len(theta), *design.shape))


def _start(
    columns: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    weights: np.ndarray,
    floor: float,
    design: np.ndarray,
) -> Float[np.ndarray, "b q"]:
    """Least squares through the middles on the first `columns` of the design."""
    middle = middles(low, high)
    normal = np.einsum("bo,oi,oj->bij", weights, columns, columns)
    ridge = 1e-9 * (1 + np.einsum("bii->b", normal))[:, None, None]
    right = np.einsum("bo,oi,bo->bi", weights, columns, middle)
    found = np.linalg.solve(normal + ridge * np.eye(columns.shape[1]), right[..., None])[..., 0]
    theta = np.zeros((len(low), design.shape[1] + 1))
    theta[:, : columns.shape[1]] = found
    theta[:, -1] = start_scatter(middle - found @ columns.T, weights, floor)
    return theta


def _full_rank(design: np.ndarray, bounded: np.ndarray) -> np.ndarray:
    """Whether the onsets bounded on both sides identify every coefficient."""
    normal = np.einsum("bo,oi,oj->bij", bounded.astype(float), design, design)
    values = np.linalg.eigvalsh(normal)
    return values[:, 0] > 1e-9 * np.maximum(values[:, -1], 1e-300)


def _crossed(
    z: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    weights: np.ndarray,
    groups: Groups,
    theta: Float[np.ndarray, "b k"],
) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """Ends of the intervals that rest on the spread between seeds and between draws."""
    fits, levels, batch = [], [], len(low)
    for ids in (np.asarray(groups.seed), np.asarray(groups.draw)):
        left_out = leave_one_out(ids)
        rows = (left_out[:, None] * weights).reshape(-1, weights.shape[1])
        repeated = [np.tile(a, (len(left_out), 1)) for a in (low, high)]
        found = _fit(z, *repeated, rows)[0].theta[:, :-1]
        fits.append(found.reshape(len(left_out), batch * theta.shape[1]))
        levels.append(np.repeat(present(ids, weights > 0), theta.shape[1], axis=1))
    low_end, high_end = crossed_interval(theta.ravel(), *fits, *levels)
    return low_end.reshape(theta.shape), high_end.reshape(theta.shape)


def _innermost(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turnbull's intervals: a left end followed at once by a right end."""
    # At equal values an exact onset begins before, and an open interval after, what ends there.
    kind = np.concatenate([np.where(low == high, 0, 2), np.ones(len(high), int)])
    value = np.concatenate([low, high])
    order = np.lexsort((kind, value))
    value, kind = value[order], kind[order]
    at = np.flatnonzero((kind[:-1] != 1) & (kind[1:] == 1))
    return value[at], value[at + 1]
