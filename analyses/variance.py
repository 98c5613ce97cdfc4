r"""Two crossed sources of variance, initialisation seeds and data draws, kept apart.

A number measured for every (seed, draw) is :math:`y_{ij} = \mu + a_i + b_j + e_{ij}` with
independent variances :math:`V_a, V_b, V_e`. The grand mean of s seeds and d draws has variance
:math:`V_a/s + V_b/d + V_e/(sd)`: more seeds do not help against few draws, and counting the sd
values as independent gives an interval that is too short.

- *Components*: sums of squares of each factor adjusted for the other, set equal to their
  expectations (C. R. Henderson, Biometrics 9 (1953) 226, method 3), which for a full table is the
  analysis of variance and which allows missing values.
- *Intervals of a mean or of any fit*: :math:`\hat\theta \pm t_\nu \sqrt{V_s + V_d}`. :math:`V_s`
  is the jackknife variance of leaving out one seed at a time, :math:`V_d` that of the draws, and
  :math:`\nu = (V_s + V_d)^2 / (V_s^2/(s-1) + V_d^2/(d-1))` (F. E. Satterthwaite, Biometrics
  Bulletin 2 (1946) 110). For a full table and a mean these are MS/(sd) of each factor, so the
  residual counts twice: subtracting it once would be unbiased, but of 3 seeds and 2 draws the
  remainder is too noisy (and can be negative). Resampling both factors at once and taking
  percentiles (the pigeonhole bootstrap, A. B. Owen, Ann. Appl. Stat. 1 (2007) 386) respects both
  sources, but is short of few levels: at equal variances it covers the mean of a 3 x 2 table 79
  times in 100, of a 5 x 5 table 88 times; the interval here 97 and 96 times.

With a single level of a factor nothing is known about its variance: intervals are then about
that seed or that draw alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import chdtri, fdtri, stdtrit

from analyses.statistics import Array, Numbers

LEVEL = 0.95
"""Nominal coverage of every interval."""


@dataclass(frozen=True)
class Components:
    """Variances of a table, each with the ends of its 95 % interval; arrays over "*cells"."""

    seed: Array
    seed_low: Array
    seed_high: Array
    draw: Array
    draw_low: Array
    draw_high: Array
    residual: Array
    residual_low: Array
    residual_high: Array
    truncated: Array
    """Whether an estimate was negative and stands at 0."""
    confounded: Array
    """Whether there is one level of one factor: the other's variance includes the residual."""


def components(values: Float[np.ndarray, "*cells s d"]) -> Components:
    r"""Variance between seeds, between draws, and of the rest.

    `values` may hold NaN. With :math:`MS_a, MS_e` the mean squares and f their degrees of
    freedom, :math:`E[MS_a] = k V_a + V_e` (k = d in a full table), the interval of :math:`V_a` is

    :math:`\frac{f_a}{k\,\chi^2_{1-\alpha/2}(f_a)}\,(MS_a - F_{1-\alpha/2}(f_a, f_e)\,MS_e)` to
    the same with :math:`\alpha/2`,

    cut at 0 (J. S. Williams, Biometrika 49 (1962) 278; at least 90 % coverage for a nominal 95 %,
    close to 95 % as measured), that of :math:`V_e` :math:`f_e MS_e / \chi^2(f_e)`. Exact for full
    tables, approximate with NaN. What cannot be told apart is NaN: both ends and estimate of a
    factor with one level, and everything where seeds and draws do not cross.

    >>> found = components(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    >>> [round(float(x), 6) for x in (found.seed, found.draw, found.residual)]
    [4.0, 0.5, 0.0]
    """
    values = np.asarray(values, float)
    cells, shape = values.shape[:-2], values.shape[-2:]
    flat = values.reshape(-1, *shape)
    known = ~np.isnan(flat)
    rows = np.full((len(flat), 11), np.nan)
    rows[:, 9:] = 0
    # Tables with the same gaps share their projections.
    patterns, of = np.unique(known.reshape(len(flat), -1), axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        where = of.ravel() == index
        pattern = pattern.reshape(shape)
        rows[where] = _of_pattern(flat[where][:, pattern], np.argwhere(pattern))
    *numbers, truncated, confounded = rows.T.reshape(11, *cells)
    return Components(*numbers, truncated > 0, confounded > 0)


def crossed_mean(values: Float[np.ndarray, "*cells s d"]) -> tuple[Array, Array, Array]:
    """Mean over seeds and draws, its 95 % interval: (mean, low, high); NaN values are left out.

    Both sources count, as the module says. With one seed (or draw) the interval is Student's
    over the draws (seeds) and about that one alone; its ends are NaN for a single value.

    >>> mean, low, high = crossed_mean(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    >>> float(mean), bool(low < 2.5 < high)
    (2.5, True)
    """
    values = np.asarray(values, float)
    cells = values.shape[:-2]
    flat = values.reshape(-1, values.shape[-2] * values.shape[-1])
    seeds, draws = (np.ravel(a) for a in np.indices(values.shape[-2:]))
    known = ~np.isnan(flat)
    filled = np.where(known, flat, 0)

    def mean(weights: np.ndarray) -> np.ndarray:
        count = weights @ known.T.astype(float)
        return (weights @ filled.T) / np.where(count > 0, count, np.nan)

    estimate = mean(np.ones((1, flat.shape[1])))[0]
    without = [mean(leave_one_out(ids)) for ids in (seeds, draws)]
    levels = [present(ids, known) for ids in (seeds, draws)]
    low, high = crossed_interval(estimate, *without, *levels)
    return estimate.reshape(cells), low.reshape(cells), high.reshape(cells)


def leave_one_out(ids: Int[np.ndarray, " o"]) -> Float[np.ndarray, "l o"]:
    """Weights of the observations with each level of `ids` left out in turn.

    >>> leave_one_out(np.array([0, 0, 1])).tolist()
    [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    return (np.unique(ids)[:, None] != ids).astype(float)


def present(ids: Int[np.ndarray, " o"], known: Bool[np.ndarray, "b o"]) -> Bool[np.ndarray, "l b"]:
    """Which levels of `ids` have a known observation, per data set."""
    return ((np.unique(ids)[:, None] == ids)[:, None] & known).any(axis=-1)


def crossed_interval(
    estimate: Float[np.ndarray, " b"],
    without_seed: Float[np.ndarray, "s b"],
    without_draw: Float[np.ndarray, "d b"],
    seeds: Bool[np.ndarray, "s b"],
    draws: Bool[np.ndarray, "d b"],
    extra: Numbers = 0.0,
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    r"""95 % interval of any fit from fits without each seed and without each draw: (low, high).

    `seeds` and `draws` say which levels a data set has; `extra` is a further variance, known well
    (of the generated samples, say). Ends are NaN where neither factor has two levels, or where a
    fit without one of the present levels failed (NaN).
    """
    parts = [_jackknife(*pair) for pair in ((without_seed, seeds), (without_draw, draws))]
    (by_seed, free_seed), (by_draw, free_draw) = parts
    clustered = by_seed + by_draw
    extra = np.broadcast_to(np.asarray(extra, float), clustered.shape)
    total = clustered + extra
    spent = by_seed**2 / np.maximum(free_seed, 1) + by_draw**2 / np.maximum(free_draw, 1)
    freedom = total**2 / np.where(spent > 0, spent, np.nan)
    # Without any spread between levels there is only the well-known variance.
    freedom = np.clip(np.where(spent > 0, freedom, np.inf), 1, 1e6)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total)
    half = np.where((free_seed < 1) & (free_draw < 1), np.nan, half)
    return estimate - half, estimate + half


def _jackknife(
    without: Float[np.ndarray, "l b"], present: Bool[np.ndarray, "l b"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Jackknife variance over the present levels and its degrees of freedom (0 for one level)."""
    levels = present.sum(axis=0)
    several = levels > 1
    used = present & several
    kept = np.where(used, without, 0.0)
    mean = kept.sum(axis=0) / np.maximum(levels, 1)
    spread = (np.where(used, kept - mean, 0.0) ** 2).sum(axis=0)
    return (levels - 1) / np.maximum(levels, 1) * spread, np.maximum(levels - 1.0, 0.0)


def _of_pattern(
    y: Float[np.ndarray, "b n"], places: Int[np.ndarray, "n 2"]
) -> Float[np.ndarray, "b 11"]:
    """Fields of `Components`, one row per table; all tables have values at the same places."""
    seeds, draws = (_indicators(places[:, axis]) for axis in (0, 1))
    s, d = seeds.shape[1], draws.shape[1]
    out = np.full((len(y), 11), np.nan)
    out[:, 9:] = 0
    if min(s, d) < 2:
        if max(s, d) > 1:
            column = 0 if s > 1 else 3
            out[:, column : column + 3] = _plain(y.var(axis=1, ddof=1), y.shape[1] - 1)
            out[:, 10] = 1
        return out
    both = _projection(np.concatenate([seeds, draws], axis=1))
    adjusted = [(both - _projection(draws), seeds), (both - _projection(seeds), draws)]
    rest = np.eye(len(places)) - both
    free = round(float(np.trace(rest)))
    if free < 1:
        return out
    error = np.einsum("bi,ij,bj->b", y, rest, y).clip(0) / free
    error = np.where(error < 1e-24 * (y**2).mean(axis=1), 0.0, error)
    out[:, 6:9] = _plain(error, free)
    for column, (between, factor) in zip((0, 3), adjusted, strict=True):
        levels = round(float(np.trace(between)))
        if levels < 1:
            continue
        square = np.einsum("bi,ij,bj->b", y, between, y).clip(0) / levels
        size = float(np.trace(factor.T @ between @ factor)) / levels
        out[:, column : column + 3] = _component(square, levels, error, free, size)
        out[:, 9] = np.maximum(out[:, 9], square < error)
    return out


def _component(
    square: np.ndarray, levels: int, error: np.ndarray, free: int, size: float
) -> Float[np.ndarray, "b 3"]:
    """Estimate and Williams interval of one factor's variance, cut at 0."""
    tail = (1 - LEVEL) / 2
    ends = [
        levels / (size * chdtri(levels, p)) * (square - fdtri(levels, free, 1 - p) * error)
        for p in (tail, 1 - tail)
    ]
    return np.maximum(np.stack([(square - error) / size, *ends], axis=1), 0.0)


def _plain(variance: np.ndarray, free: int) -> Float[np.ndarray, "b 3"]:
    """A variance and its chi-square interval."""
    tail = (1 - LEVEL) / 2
    ends = [variance * free / chdtri(free, p) for p in (tail, 1 - tail)]
    return np.stack([variance, *ends], axis=1)


def _indicators(ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n l"]:
    """One column per level that occurs."""
    return (ids[:, None] == np.unique(ids)).astype(float)


def _projection(design: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n n"]:
    """Orthogonal projection onto the columns."""
    return design @ np.linalg.pinv(design)
