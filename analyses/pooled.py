r"""One exponent from several levels of a slice: a common slope, an intercept for each level.

A boundary or a time y, known to lie in (low, high], is measured along x at several levels of
something else (N* over width, at every kimg): :math:`\log y = a_l + b \log x + s\,\varepsilon`.
The levels share the runs and so are no independent data; the interval comes from leaving out
seeds and draws in turn (see `variance`), whole runs at a time.

Conventions are those of `exponents`: from `MIN_REPLICATES` (seed, draw) pairs on the ends are a
95 % interval; with two or three they are the range of the fits to single replicates (none where
one of them identifies nothing), and `is_range` says so; a single replicate has Wald's interval,
about itself and as if levels were independent. Replicates that lie between the same two grid
points agree whatever the truth, and leaving one out changes nothing: where that is so at most
points, or where no scatter shows at all, interval and range are at least Wald's interval for the
data of one replicate.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from analyses.censored import scatter_floor
from analyses.onset_laws import MIN_REPLICATES
from analyses.survival import survival_fit
from analyses.variance import crossed_interval

__all__ = ["Observations", "Pooled", "difference", "pooled_exponent"]


@dataclass(frozen=True)
class Observations:
    """What was observed at x at one level of the slice, in one replicate."""

    x: Float[np.ndarray, " o"]
    """Only where it is positive is there an observation."""
    level: Float[np.ndarray, " o"]
    low: Float[np.ndarray, " o"]
    high: Float[np.ndarray, " o"]
    """y lies in (low, high]; NaN where there is no observation."""
    seed: Int[np.ndarray, " o"]
    draw: Int[np.ndarray, " o"]
    """Which seed and which draw, counted from 0."""

    def only(self, rows: Bool[np.ndarray, " o"]) -> "Observations":
        """The observations of these rows."""
        return Observations(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Pooled:
    """An exponent, the ends of its interval, and the fits that the interval is made of."""

    estimate: float
    low: float
    high: float
    is_range: bool
    success: bool
    replicates: int
    """(seed, draw) pairs with an observation."""
    wald: float
    """Half of Wald's interval; NaN without degrees of freedom."""
    coarse: bool
    """Whether the grid is too coarse for replicates, or for any scatter, to show."""
    without: tuple[Float[np.ndarray, " s"], Float[np.ndarray, " d"]]
    """The exponent without each seed, and without each draw; NaN below `MIN_REPLICATES`."""
    present: tuple[Bool[np.ndarray, " s"], Bool[np.ndarray, " d"]]
    """Which seeds, and which draws, have an observation."""
    single: Float[np.ndarray, "s d"]
    """The exponents of single replicates, where there are two or three; else NaN."""


def pooled_exponent(data: Observations, seeds: int, draws: int) -> Pooled:
    """The common slope b of log y on log x; NaN and `success` False where it is not identified.

    A level is left out if it has no y bounded on both sides with all replicates, or without one
    of the seeds or draws: nothing would identify its intercept. (If that leaves none, those with
    all replicates give the estimate, and it has no interval.)

    >>> x, zero = np.tile([64.0, 128.0, 256.0], 2), np.zeros(6, int)
    >>> y = np.repeat([1.0, 5.0], 3) * x**2
    >>> data = Observations(x, np.repeat([16.0, 32.0], 3), y / 1.1, y * 1.1, zero, zero)
    >>> round(pooled_exponent(data, 1, 1).estimate, 6)
    2.0
    """
    data = data.only((data.x > 0) & ~np.isnan(data.low) & ~np.isnan(data.high))
    there = np.zeros((seeds, draws), bool)
    there[data.seed, data.draw] = True
    count = int(there.sum())
    present = there.any(axis=1), there.any(axis=0)
    rows = [np.ones((1, len(data.x)), bool)]
    if count >= MIN_REPLICATES:
        for ids, levels in ((data.seed, present[0]), (data.draw, present[1])):
            rows.append(np.arange(len(levels))[:, None] != ids)
    slopes, wald, coarse = _slopes(data, np.concatenate(rows))
    without = np.full(seeds, np.nan), np.full(draws, np.nan)
    single = np.full((seeds, draws), np.nan)
    if count >= MIN_REPLICATES:
        without = slopes[1 : 1 + seeds], slopes[1 + seeds :]
    elif count > 1:
        for s, d in np.argwhere(there):
            alone = data.only((data.seed == s) & (data.draw == d))
            single[s, d] = _slopes(alone, np.ones((1, len(alone.x)), bool))[0][0]
    return _with_ends(slopes[0], count, wald, coarse, without, present, single)


def difference(first: Pooled, second: Pooled) -> Pooled:
    """First minus second, paired: both lose the same seed or draw at a time.

    Wald's intervals, where they are needed, are taken as independent.
    """
    present = tuple(a & b for a, b in zip(first.present, second.present, strict=True))
    return _with_ends(
        first.estimate - second.estimate,
        min(first.replicates, second.replicates),
        float(np.hypot(first.wald, second.wald)),
        first.coarse or second.coarse,
        tuple(a - b for a, b in zip(first.without, second.without, strict=True)),
        present,
        first.single - second.single,
    )


def _with_ends(
    estimate: float,
    count: int,
    wald: float,
    coarse: bool,
    without: tuple[np.ndarray, ...],
    present: tuple[np.ndarray, ...],
    single: np.ndarray,
) -> Pooled:
    """The ends by the number of replicates: Wald's, the range, or a crossed interval."""
    low, high = estimate - wald, estimate + wald
    is_range = 1 < count < MIN_REPLICATES
    if is_range:
        known = single[~np.isnan(single)]
        # The range of those replicates alone that identify it would leave out the others.
        low, high = (known.min(), known.max()) if known.size == count else (np.nan, np.nan)
    elif count >= MIN_REPLICATES:
        columns = [a[:, None] for a in (*without, *present)]
        low, high = (float(end[0]) for end in crossed_interval(np.array([estimate]), *columns))
    if coarse and count > 1 and not np.isnan(low + high):
        least = wald * np.sqrt(count)
        low, high = float(np.fmin(low, estimate - least)), float(np.fmax(high, estimate + least))
    success = bool(np.isfinite(estimate))
    return Pooled(
        float(estimate), float(low), float(high), is_range, success, count, wald, coarse,
        (without[0], without[1]), (present[0], present[1]), single,
    )  # fmt: skip


def _slopes(
    data: Observations, rows: Bool[np.ndarray, "r o"]
) -> tuple[Float[np.ndarray, " r"], float, bool]:
    """The slope under each choice of observations; Wald's half-width and coarseness of the first.

    NaN where it is not identified.
    """
    unknown = np.full(len(rows), np.nan), np.nan, False
    bounded = (data.low > 0) & np.isfinite(data.high)
    # A choice without any observation (the only seed left out) asks for nothing.
    asked = rows[rows.any(axis=1)]
    levels = np.unique(data.level[bounded])
    kept = [v for v in levels if ((data.level == v) & bounded & asked).any(axis=1).all()]
    kept = kept or list(levels)
    inside = np.isin(data.level, kept)
    if not inside.any():
        return unknown
    data, rows, bounded = data.only(inside), rows[:, inside], bounded[inside]
    if np.ptp(data.x[bounded]) == 0:
        return unknown
    effects = (data.level[:, None] == np.array(kept)[1:]).astype(float)
    z = np.concatenate([np.log(data.x)[:, None], effects], axis=1)
    fit = survival_fit(z, data.low, data.high, weights=rows.astype(float))
    wald = float(fit.high[0, 1] - fit.low[0, 1]) / 2
    held = fit.scatter[0] <= scatter_floor(data.low[None], data.high[None]) * (1 + 1e-9)
    return fit.coefficients[:, 1], wald, bool(held or _indistinct(data))


def _indistinct(data: Observations) -> bool:
    """Whether at most points with several replicates all lie between the same two grid values."""
    points, of = np.unique(np.stack([data.x, data.level], 1), axis=0, return_inverse=True)
    of = of.ravel()
    ends = np.stack([data.low, data.high])
    least = np.full((2, len(points)), np.inf)
    most = np.full((2, len(points)), -np.inf)
    for row in range(2):
        np.minimum.at(least[row], of, ends[row])
        np.maximum.at(most[row], of, ends[row])
    # A replicate without an end on either side says nothing about the spread.
    several = (np.bincount(of) > 1) & (least[0] > 0) & np.isfinite(most[1])
    same = (least == most).all(axis=0)
    return bool(several.any() and same[several].mean() > 0.5)
