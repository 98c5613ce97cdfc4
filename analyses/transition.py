r"""How sharply memorization gives way as the training set grows.

The memorized share follows a logistic curve in the log of the number of training points,
:math:`f = 1/(1 + e^{(\ln N - \ln N_{50})/w})`, so that
:math:`\ln(N_{10}/N_{90}) = 2 w \ln 9` (:math:`N_{10}`: where f = 10 %). Counts k of S samples
give the binomial likelihood (2508.17689). Two corrections:

- A transition between two neighbouring N separates the data, and the likelihood then grows without
  bound as w goes to 0: the fit is penalised (see `logistic`).
- The curve is not exactly logistic, which thousands of samples reveal: deviances are divided by
  the residual deviance per degree of freedom (P. McCullagh, J. A. Nelder, *Generalized Linear
  Models*, 2nd ed. 1989, ch. 4.5).

Also here: the effective model memorization, the largest N of which 90 % is copied (2310.02664).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from analyses import onset
from analyses.logistic import dispersion, firth, profile_ends
from analyses.statistics import Array, Numbers, wilson
from analyses.variance import crossed_interval, leave_one_out, present

NINE = float(np.log(9))
"""Log-odds of 90 %."""
EMM_LEVEL = 0.9
"""Memorized share that counts as memorizing the whole training set."""


@dataclass(frozen=True)
class Transition:
    """Numbers of the logistic curve with 95 % intervals; arrays over "*cells"."""

    n50: Array
    n50_low: Array
    n50_high: Array
    width: Array
    width_low: Array
    width_high: Array
    dispersion: Array
    """Residual deviance per degree of freedom of the pooled counts; 1: binomial."""
    inside: Array
    """Number of N at which the pooled share is neither 0 nor 1: below 2 only `width_high`
    comes from the data, the width itself from the penalty."""
    monotone: Array
    """False where the share rises with N somewhere beyond its Wilson intervals."""
    success: Array
    """False where N50 is outside the grid, or the curve does not fall."""

    @property
    def n10(self) -> Array:
        """N at which 10 % is memorized."""
        return self.n50 * np.exp(NINE * self.width)

    @property
    def n90(self) -> Array:
        """N at which 90 % is memorized."""
        return self.n50 * np.exp(-NINE * self.width)

    @property
    def log_ratio(self) -> Array:
        """ln(N10 / N90) = 2 w ln 9; its interval is that of `width` times 2 ln 9."""
        return 2 * NINE * self.width


def transition(
    n: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, "*cells r n"],
    samples: Numbers,
    seeds: Numbers | None = None,
    draws: Numbers | None = None,
) -> Transition:
    """Fit to memorized counts of `samples` at each N, pooled over replicates r.

    `n` ascending; `seeds` and `draws` (" r") say which replicate is which (without them every
    replicate is a seed of its own). Counts may be NaN. Intervals are on the logs of N50 and w:

    - with several replicates seeds and draws are left out in turn (see `variance`), and the
      interval holds at least the binomial profile likelihood of the pooled counts, which knows
      how coarse the grid is where replicates agree;
    - with one it is the profile likelihood, and about that replicate alone.

    The curve is that of the pooled share: differences of N50 between replicates widen it. For the
    width within replicates fit each (r = 1) and average log `width` with `crossed_mean`. Where the
    share is below (above) 50 % on the whole grid, N50 lies in (0, first N] ((last N, inf)), and
    all else is NaN; where no falling curve fits or fewer than 3 N are known, N50 is open to both
    sides.

    >>> n = 2.0 ** np.arange(4, 10)
    >>> found = transition(n, np.rint(512 / (1 + (n / 100) ** 2))[None], 512)
    >>> round(float(found.n50)), round(float(found.width), 2)
    (100, 0.5)
    """
    x, counts = np.log(np.asarray(n, float)), np.asarray(counts, float)
    cells, (r, size) = counts.shape[:-2], counts.shape[-2:]
    counts = counts.reshape(-1, r, size)
    known = ~np.isnan(counts)
    total = np.broadcast_to(np.asarray(samples, float), counts.shape[1:]) * known
    counts = np.where(known, counts, 0.0)
    pooled = counts.sum(axis=1), total.sum(axis=1)
    beta = firth(x, *pooled)[0]
    log_n50, log_width = _curve(x, beta)
    success = _identified(x, *pooled, log_n50)
    log_n50, log_width = (np.where(success, a, np.nan) for a in (log_n50, log_width))
    seeds = np.arange(r) if seeds is None else np.asarray(seeds)
    draws = np.zeros(r, int) if draws is None else np.asarray(draws)
    spread = _crossed_ends(x, counts, total, (seeds, draws), log_n50, log_width)
    several = known.any(axis=2).sum(axis=1) > 1
    residual, freedom = dispersion(x, *pooled, beta)
    alone = np.full((4, len(counts)), np.nan)
    if success.any():
        # Between replicates the spread itself shows what is more than binomial.
        phi = np.where(several, np.nan, residual)
        fitted = (*pooled, log_n50, log_width, phi, freedom)
        alone[:, success] = profile_ends(x, *(a[success] for a in fitted))
    union = [f(a, b) for f, a, b in zip((np.fmin, np.fmax) * 2, alone, spread, strict=True)]
    ends = [
        np.where(several, np.where(np.isnan(b), np.nan, u), a)
        for a, b, u in zip(alone, spread, union, strict=True)
    ]
    n50 = _censored(np.asarray(n, float), *pooled, success, log_n50, *ends[:2])
    share = pooled[0] / np.where(pooled[1] > 0, pooled[1], np.nan)
    out = (*n50, *np.exp([log_width, *ends[2:]]), np.where(success, residual, np.nan))
    inside = ((share > 0) & (share < 1)).sum(axis=1)
    flags = (inside, _monotone(*pooled), success)
    return Transition(*(np.reshape(a, cells) for a in (*out, *flags)))


def effective_memorization(
    share: Float[np.ndarray, "*cells n"], n: Float[np.ndarray, " n"], level: float = EMM_LEVEL
) -> tuple[Array, Array, Array]:
    """Largest N of which at least `level` is memorized: (N, next N, monotone).

    N is 0 if there is none, the next N inf if it is the largest; monotone says that no smaller N
    falls short. The first is M of 2310.02664 at fixed epochs, read at one checkpoint; give the
    maximum over checkpoints for their other convention.

    >>> low, high, monotone = effective_memorization(np.array([1.0, 0.9, 0.2]), np.arange(1.0, 4))
    >>> float(low), float(high), bool(monotone)
    (2.0, 3.0, True)
    """
    return onset.last_above(share, n, float(np.nextafter(level, 0)))


def _curve(
    x: np.ndarray, beta: Float[np.ndarray, "b 2"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """log N50 and log w; NaN where the curve does not fall."""
    slope = np.where(beta[:, 1] < 0, beta[:, 1], np.nan)
    return x.mean() - beta[:, 0] / slope, -np.log(-slope)


def _identified(
    x: np.ndarray, k: np.ndarray, s: np.ndarray, log_n50: Float[np.ndarray, " b"]
) -> np.ndarray:
    """Whether the curve and the shares themselves pass 50 % on the grid."""
    share = k / np.where(s > 0, s, np.nan)
    crosses = (share > 0.5).any(axis=1) & (share <= 0.5).any(axis=1)
    on_grid = (log_n50 >= x[0]) & (log_n50 <= x[-1])
    return crosses & on_grid & ((s > 0).sum(axis=1) > 2)


def _crossed_ends(
    x: np.ndarray,
    counts: Float[np.ndarray, "b r n"],
    total: Float[np.ndarray, "b r n"],
    groups: tuple[np.ndarray, np.ndarray],
    log_n50: np.ndarray,
    log_width: np.ndarray,
) -> list[np.ndarray]:
    """Ends of log N50 and log w from leaving out seeds and draws in turn."""
    fits, levels = ([], []), []
    for ids in groups:
        left_out = leave_one_out(ids)
        pooled = [np.einsum("lr,brn->lbn", left_out, a) for a in (counts, total)]
        flat = [a.reshape(-1, len(x)) for a in pooled]
        found = _curve(x, firth(x, *flat)[0])
        for fit, values in zip(fits, found, strict=True):
            fit.append(values.reshape(pooled[0].shape[:2]))
        levels.append(present(ids, total.any(axis=2)))
    ends = []
    for estimate, fit in zip((log_n50, log_width), fits, strict=True):
        ends += crossed_interval(estimate, *fit, *levels)
    return ends


def _censored(
    n: np.ndarray,
    k: np.ndarray,
    s: np.ndarray,
    success: np.ndarray,
    log_n50: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> list[np.ndarray]:
    """N50 and its ends; an interval beyond the grid where the share never passes 50 %."""
    share = k / np.where(s > 0, s, np.nan)
    known = ~np.isnan(share)
    below = known.any(axis=1) & (known <= (share <= 0.5)).all(axis=1)
    above = known.any(axis=1) & (known <= (share > 0.5)).all(axis=1)
    first = np.where(known, n, np.inf).min(axis=1)
    last = np.where(known, n, 0.0).max(axis=1)
    ends = (
        np.where(success, np.exp(low), np.where(above, last, 0.0)),
        np.where(success, np.exp(high), np.where(below, first, np.inf)),
    )
    measured = known.any(axis=1)
    return [np.exp(log_n50), *(np.where(measured, end, np.nan) for end in ends)]


def _monotone(k: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Whether no share is above one at a smaller N by more than their Wilson intervals."""
    low, high = wilson(k, s)
    high = np.where(np.isnan(high), np.inf, high)
    least = np.minimum.accumulate(high, axis=1)
    return ~(np.nan_to_num(low, nan=0.0) > least).any(axis=1)
