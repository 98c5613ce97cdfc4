r"""Three laws of the onset over n_train, their fits and intervals: arrays in, arrays out.

1. the bare power law :math:`\tau_{mem} \propto n^b`;
2. :math:`\tau_{mem} = \tau_0 + c\,n`, an onset that is linear in n after an offset;
3. the power law of :math:`\tau_{mem} - \tau_{gauss}`, the time from the Gaussian stage to the
   onset (:math:`\tau_{gauss}` = the snapshot of least distance, taken as exact; trials whose
   minimum is not interior, or whose onset is not after it, are left out).

Intervals are 95 %: seeds and draws are separate sources of variance, left out in turn (see
`variance`), plus the variance over resamples of the generated samples. Where the snapshots are
too coarse to show any scatter, replicates agree whatever the truth; the interval is then at least
Wald's, whose scatter has a floor (see `censored`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from analyses import onset
from analyses.regression import OffsetFit, PowerFit, fit_offset, fit_power
from analyses.variance import LEVEL, crossed_interval, leave_one_out, present

ONSET_LEVEL = 0.05
"""Memorized share that counts as the onset of memorization."""
MIN_REPLICATES = 4
"""Fewest (seed, draw) replicates that have an interval."""
RESAMPLES = 200
"""Resamples of the generated samples; each is refitted."""


class Replicates(NamedTuple):
    """Onsets over replicates and n_train; a batch "b" holds several data sets of the same kind."""

    low: Float[np.ndarray, "*b r n"]
    high: Float[np.ndarray, "*b r n"]
    gauss: Float[np.ndarray, "*b r n"]
    """tau_gauss where its minimum is interior, else NaN."""
    seed: Int[np.ndarray, " r"]
    draw: Int[np.ndarray, " r"]
    """Which seed and which draw each replicate is."""


def laws(
    n: Float[np.ndarray, " n"], onsets: Replicates, weights: Float[np.ndarray, "l r"]
) -> tuple[dict[str, Float[np.ndarray, "l b"]], dict[str, Float[np.ndarray, "l b"]]]:
    """Fits to every data set under every row of `weights`, which say which replicates count.

    Returns the numbers, and the half-widths that coarse snapshots impose on them (0 where the
    scatter shows). NaN where a law is not identified.
    """
    replicates, size = onsets.low.shape[-2:]
    low, high, gauss = (a.reshape(-1, replicates * size) for a in onsets[:3])
    shape = len(weights), len(low)
    x = np.tile(n, replicates)
    counts = np.repeat(np.repeat(weights, size, axis=1), shape[1], axis=0)
    low, high, gauss = (np.tile(a, (shape[0], 1)) for a in (low, high, gauss))
    power, offset = fit_power(x, low, high, counts), fit_offset(x, low, high, counts)
    after = high > gauss
    excess = fit_power(
        x,
        np.where(after, np.maximum(low - gauss, 0.0), np.nan),
        np.where(after, high - gauss, np.nan),
        counts,
    )
    fits = {
        "tau_mem_slope": (power.slope, _coarse(power, power.slope_se)),
        "tau_mem_scatter": (power.scatter, 0 * power.scatter),
        "tau_mem_offset": (offset.offset, _coarse(offset, offset.offset_se)),
        "tau_mem_rate": (offset.rate, _coarse(offset, offset.rate_se)),
        "tau_mem_minus_gauss_slope": (excess.slope, _coarse(excess, excess.slope_se)),
    }
    values, halves = ({k: v[i].reshape(shape) for k, v in fits.items()} for i in (0, 1))
    return values, halves


def intervals(
    n: Float[np.ndarray, " n"],
    onsets: Replicates,
    extra: Mapping[str, float] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(estimate, low, high) of every number, " b" each; of the scatter on its log.

    `extra` is a variance to be added per name, NaN if that number has no interval.
    """
    size = onsets.low.shape[-1]
    known = ~np.isnan(onsets.low.reshape(-1, len(onsets.seed), size)).all(axis=-1)
    estimate, halves = laws(n, onsets, np.ones((1, len(onsets.seed))))
    ids = onsets.seed, onsets.draw
    without = [laws(n, onsets, leave_one_out(i))[0] for i in ids]
    levels = [present(i, known) for i in ids]
    found = {}
    for name, (value,) in estimate.items():
        to, back = (np.log, np.exp) if name == "tau_mem_scatter" else (np.array, np.array)
        more = 0.0 if extra is None else extra[name]
        ends = crossed_interval(to(value), *(to(w[name]) for w in without), *levels, more)
        half = np.maximum((ends[1] - ends[0]) / 2, halves[name][0])
        found[name] = value, back(to(value) - half), back(to(value) + half)
    return found


def sample_variance(n: Float[np.ndarray, " n"], drawn: Replicates) -> dict[str, float]:
    """Variance of every number over resamples; NaN where over a tenth identify nothing."""
    values = laws(n, drawn, np.ones((1, len(drawn.seed))))[0]
    out = {}
    for name, (value,) in values.items():
        known = value[~np.isnan(value)]
        known = np.log(known) if name == "tau_mem_scatter" else known
        out[name] = float(known.var()) if len(known) >= 0.9 * len(value) else np.nan
    return out


def resampled(
    onsets: Replicates,
    time: Float[np.ndarray, " k"],
    hits: Float[np.ndarray, "r n k s"] | None,
) -> Replicates:
    """Onsets of `RESAMPLES` resamples of the generated samples: arrays "b r n".

    `hits` says which sample is a copy, NaN where missing; without it the onsets stay as they are.
    The same samples are drawn at every n_train and `time`: they come from the same latents.
    """
    if hits is None:
        return onsets
    rng = np.random.default_rng([2, len(onsets.low), RESAMPLES])
    samples = hits.shape[-1]
    low, high = (np.empty((RESAMPLES, *onsets.low.shape)) for _ in range(2))
    for replicate, copies in enumerate(hits):
        weights = rng.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
        # A snapshot without samples is NaN in every one: the sum keeps it NaN.
        share = np.moveaxis(copies @ (weights.T / samples), -1, 0)
        low[:, replicate], high[:, replicate] = onset.onset(share, time, ONSET_LEVEL)
    gauss = np.broadcast_to(onsets.gauss, low.shape)
    return onsets._replace(low=low, high=high, gauss=gauss)


def _coarse(fit: PowerFit | OffsetFit, se: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Half of Wald's interval where the scatter is at its floor, else 0."""
    freedom = np.where(fit.freedom > 0, fit.freedom, np.nan)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * se
    return np.where(fit.coarse, np.nan_to_num(half), 0.0)
