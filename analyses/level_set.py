r"""Where a share that falls with n_train passes a level, per width, as a posterior.

In slice s (a width, and a group: further axes, a kimg) the share at :math:`x = \log_2 n` is

.. math:: f_s(x) = \mathrm{expit}(\mathrm{logit}\,L + (t_s - x) / b_s),

so that it passes the level L at :math:`t_s = \log_2 N^*_s`, softer the larger the *blur*
:math:`b_s`. Each trial counts k of S samples, k ~ BetaBinomial(S, mean f, correlation
:math:`\rho`): :math:`\rho` is what seeds and draws, and a curve that is not quite logistic, add to
the binomial noise, :math:`\mathrm{var}(k/S) = f(1-f)(1 + (S-1)\rho)/S`. Slices are pooled by

.. math:: t_{j+1} \sim N(t_j, \tau^2 \log_2 (W_{j+1}/W_j)), \quad
          \log b_s \sim N(\log m, 0.5^2),

a random walk over the widths of each group, from anywhere, and one typical blur m. All of t, b,
m, :math:`\rho`, :math:`\tau` live on grids with flat priors (the last four on a log scale), so
that every sum is exact: forward and backward along the widths, as in a hidden Markov model (L.
Rabiner, Proc. IEEE 77 (1989) 257).

The interval of :math:`\log_2 N^*` is the central 95 % of the posterior of :math:`t_s` clipped to
the n_train on the axis, since beyond them nothing can be measured. The *gain* of a trial at x is
the expected fall of the interval's excess over a target width, over outcomes of a few (t, b,
:math:`\rho`) of the posterior. It looks one trial ahead and at its own slice. D. R. Jones et al.,
J. Global Optim. 13 (1998) 455, do so for minima; A. Gotovos et al., IJCAI 2013, for level sets
with a bound instead of an expectation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, betaln, expit, logit

from analyses.statistics import Numbers

__all__ = ["LEVEL", "Fit", "LevelSet"]

LEVEL = 0.95
"""Posterior mass of an interval."""
STEP = 1 / 32
"""Spacing of thresholds, in log2 n_train."""
BEYOND = 2.0
"""How far beyond the axis a threshold may lie, in log2 n_train."""
BLURS = np.geomspace(0.05, 2.0, 10)
"""Blurs b: from a step to a fall from 90 % to 10 % over nine octaves."""
SPREAD = 0.5
"""Standard deviation of log b between slices."""
CORRELATIONS = np.geomspace(1e-3, 0.2, 6)
"""Correlations rho of the samples of one trial."""
WALKS = np.array([0.2, 0.5, 1.2, 3.0])
"""Standard deviations tau of the threshold's step over one octave of width, in octaves."""
OUTCOMES = 11
"""Outcomes of a measurement that are imagined."""
NEGLIGIBLE = 5e-7
"""Posterior mass on either side that an imagined outcome does not move."""
GOLDEN = (np.sqrt(5) - 1) / 2
LOGITS = np.linspace(-12.0, 12.0, 481)
"""Where the likelihood of a count is tabulated; it is read off linearly between them."""


@dataclass(frozen=True)
class Fit:
    """The posterior of every slice, and what it says about further trials."""

    model: "LevelSet"
    table: Float[np.ndarray, "g w t b r"]
    """P(threshold, blur, correlation) per group and width."""

    @property
    def ends(self) -> tuple[Float[np.ndarray, "g w"], Float[np.ndarray, "g w"]]:
        """Ends of the 95 % intervals of log2 N*, clipped to the axis."""
        low, high = self.model.interval(self.table.sum(axis=(-2, -1)))
        return low, high

    @property
    def widths(self) -> Float[np.ndarray, "g w"]:
        """Widths of the intervals in octaves of n_train."""
        low, high = self.ends
        return high - low

    def expected(self, group: int, width: int, n: int) -> float:
        """Share that a trial at the n-th n_train is expected to have."""
        marginal = self.table[group, width].sum(axis=-1)
        return float((marginal * self.model.share[n]).sum())

    def gain(self, group: int, width: int, target: float) -> Float[np.ndarray, " n"]:
        """Expected fall of the interval's excess over `target` by a trial at each n_train."""
        table, model = self.table[group, width], self.model
        low, high = self.ends
        now = max(float((high - low)[group, width]) - target, 0.0)
        outcomes = self._outcomes(table)
        support = _support(table.sum(axis=(-2, -1)))
        gains = []
        for n, shares in enumerate(outcomes):
            new = np.zeros((len(shares), len(model.t)))
            for density, share in zip(new, shares, strict=True):
                likelihood = np.exp(model.log_likelihood(n, float(share), support))
                density[support] = np.einsum("tbr,tbr->t", table[support], likelihood)
            low, high = model.interval(new)
            gains.append(now - np.maximum(high - low - target, 0.0).mean())
        return np.array(gains)

    def _outcomes(self, table: Float[np.ndarray, "t b r"]) -> Float[np.ndarray, "n q"]:
        """Shares at each n_train of a systematic sample of the posterior, sorted by threshold."""
        below = table.cumsum() / table.sum()
        even = (np.arange(OUTCOMES) + 0.5) / OUTCOMES
        at = np.minimum(np.searchsorted(below, even), table.size - 1)
        t, b, r = np.unravel_index(at, table.shape)
        f, concentration = self.model.share[:, t, b], 1 / CORRELATIONS[r] - 1
        # Multiples of the golden ratio: quantiles of the noise that do not go with the threshold.
        return betaincinv(f * concentration, (1 - f) * concentration, even * OUTCOMES * GOLDEN % 1)


def _support(density: Float[np.ndarray, " t"]) -> slice:
    """Where all but a part in a million of a density lies."""
    below = density.cumsum() / density.sum()
    start, stop = np.searchsorted(below, [NEGLIGIBLE, 1 - NEGLIGIBLE])
    return slice(int(start), int(stop) + 1)


class LevelSet:
    """The model of a grid.

    Args:
        n: n_train on the axis, increasing.
        width: widths on the axis, increasing.
        level: share whose crossing is looked for, in (0, 1).
        samples: samples S behind each share.
    """

    def __init__(self, n: Numbers, width: Numbers, level: float, samples: int) -> None:
        self.x = np.log2(np.asarray(n, float))
        self.samples = samples
        self.t = np.arange(self.x[0] - BEYOND, self.x[-1] + BEYOND + STEP, STEP)
        away = self.t[:, None] - self.x[:, None, None]
        z = np.clip(logit(level) + away / BLURS, LOGITS[0], LOGITS[-1] - 1e-9)
        self.share: Float[np.ndarray, "n t b"] = expit(z)
        place = (z - LOGITS[0]) / (LOGITS[1] - LOGITS[0])
        self._below = place.astype(int)
        self._part = (place - self._below)[..., None]
        self._a = expit(LOGITS)[:, None] * (1 / CORRELATIONS - 1)
        self._b = expit(-LOGITS)[:, None] * (1 / CORRELATIONS - 1)
        typical = np.log(BLURS[::2])[:, None]
        prior = np.exp(-0.5 * ((np.log(BLURS) - typical) / SPREAD) ** 2)
        self._blur_prior = prior / prior.sum(axis=1, keepdims=True)
        steps = np.diff(np.log2(np.asarray(width, float)))
        self._kernels = [[self._kernel(tau * np.sqrt(step)) for step in steps] for tau in WALKS]
        self._norm = betaln(self._a, self._b)
        self._seen = lru_cache(maxsize=4096)(self.log_likelihood)

    def fit(self, share: Float[np.ndarray, "g w n r"]) -> Fit:
        """Posterior given the shares of the trials measured so far; NaN where none is.

        Groups, widths, n_train, and replicates (seeds, draws, splits) along the axes.
        """
        logs = np.zeros((*share.shape[:2], len(self.t), len(BLURS), len(CORRELATIONS)))
        for g, w, n, r in np.argwhere(~np.isnan(share)):
            logs[g, w] += self._seen(int(n), float(share[g, w, n, r]))
        likelihood = np.exp(logs - logs.max(axis=(2, 3, 4), keepdims=True))
        scale = logs.max(axis=(2, 3, 4)).sum()
        evidence = np.einsum("mb,gwtbr->gwmrt", self._blur_prior, likelihood)
        chains = [[self._chain(e, kernels) for kernels in self._kernels] for e in evidence]
        # log P(data | tau, m, rho), summed over groups.
        total = scale + np.sum([[log for _, log in chain] for chain in chains], axis=0)
        weight = np.exp(total - total.max())
        weight /= weight.sum()
        table = np.empty_like(likelihood)
        for g, chain in enumerate(chains):
            others = np.einsum("kmr,kwmrt->wmrt", weight, np.array([each for each, _ in chain]))
            table[g] = np.einsum("mb,wmrt,wtbr->wtbr", self._blur_prior, others, likelihood[g])
        return Fit(self, table / table.sum(axis=(2, 3, 4), keepdims=True))

    def log_likelihood(
        self, n: int, share: float, support: slice = slice(None)
    ) -> Float[np.ndarray, "t b r"]:
        """Of a share measured at the n-th n_train, at the thresholds of `support`.

        Up to a constant of the share.
        """
        k = share * self.samples
        known = betaln(k + self._a, self.samples - k + self._b) - self._norm
        known -= known.max()
        below = self._below[n, support]
        low = known[below]
        return low + self._part[n, support] * (known[below + 1] - low)

    def interval(
        self, density: Float[np.ndarray, "*s t"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Central interval of the threshold, clipped to the axis."""
        below = density.cumsum(axis=-1)
        below = below / below[..., -1:]
        ends = []
        for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
            after = np.minimum((below < q).sum(axis=-1), len(self.t) - 1)[..., None]
            high = np.take_along_axis(below, after, -1)
            low = np.where(after > 0, np.take_along_axis(below, np.maximum(after - 1, 0), -1), 0.0)
            # A threshold stands for the STEP around it.
            place = self.t[after] + STEP * ((q - low) / (high - low) - 0.5)
            ends.append(np.clip(place, self.x[0], self.x[-1])[..., 0])
        return ends[0], ends[1]

    def _kernel(self, sd: float) -> Float[np.ndarray, "t t"]:
        kernel = np.exp(-0.5 * ((self.t - self.t[:, None]) / sd) ** 2)
        return kernel / kernel.sum(axis=1, keepdims=True)

    def _chain(
        self, evidence: Float[np.ndarray, "w m r t"], kernels: Sequence[np.ndarray]
    ) -> tuple[Float[np.ndarray, "w m r t"], Float[np.ndarray, "m r"]]:
        """What the other widths say of each threshold, scaled by own evidence; log P(data)."""
        forward = [np.full(evidence.shape[1:], 1 / len(self.t))]
        log = np.zeros(evidence.shape[1:3])
        for own, kernel in zip(evidence, kernels, strict=False):
            message = forward[-1] * own
            size = message.sum(axis=-1, keepdims=True)
            log += np.log(size[..., 0])
            forward.append(message / size @ kernel)
        log += np.log((forward[-1] * evidence[-1]).sum(axis=-1))
        backward = [np.ones(evidence.shape[1:])]
        for own, kernel in zip(evidence[:0:-1], reversed(kernels), strict=True):
            message = (backward[-1] * own) @ kernel.T
            backward.append(message / message.sum(axis=-1, keepdims=True))
        others = np.array(forward) * np.array(backward[::-1])
        return others / (others * evidence).sum(axis=-1, keepdims=True), log
