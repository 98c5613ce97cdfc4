r"""Logistic curves of counts that may separate: penalised fits and profile likelihoods.

:math:`k` of :math:`s` hits at each :math:`x`, log-odds :math:`\beta_0 + \beta_1 (x - \bar x)`.
Where hits and misses are separated along x the likelihood grows without bound as the curve turns
into a step. D. Firth's penalty, Biometrika 80 (1993) 27, half the log determinant of the
information, keeps it finite (G. Heinze, M. Schemper, Stat. Med. 21 (2002) 2409); it adds two
samples' worth of prior in all. All fits are of a batch of curves at once.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, expit, stdtrit, xlogy

ROUNDS = 30
"""Updates of Firth's weights; the last ones change nothing that is printed."""
NEWTON = 12
"""Newton steps per update."""
BISECTIONS = 40
"""Halvings towards an end of a profile interval, and towards the best other parameter."""
SHARPEST = 1e-2
"""Least width considered, as a part of the least spacing of x."""
LEVEL = 0.95
"""Nominal coverage of the profile intervals."""


def firth(
    x: np.ndarray, k: Float[np.ndarray, "b n"], s: Float[np.ndarray, "b n"]
) -> tuple[Float[np.ndarray, "b 2"], Float[np.ndarray, "b n"]]:
    """Coefficients of the log-odds by 1 and x - mean(x), and the leverages h that were added.

    Firth's score is that of the counts k + h/2 of s + h.
    """
    design = np.broadcast_to(np.stack([np.ones_like(x), x - x.mean()], 1), (*k.shape, 2))
    added = np.where(s > 0, 2 / np.maximum((s > 0).sum(1, keepdims=True), 1), 0.0)
    beta = np.zeros((len(k), 2))
    for _ in range(ROUNDS):
        before, beta = beta, _maximum(design, k + added / 2, s + added, beta)
        p = expit(np.einsum("bnq,bq->bn", design, beta))
        weight = s * p * (1 - p)
        normal = np.einsum("bn,bnp,bnq->bpq", weight, design, design)
        inverse = np.linalg.inv(normal + 1e-9 * np.eye(2))
        added = weight * np.einsum("bnp,bpq,bnq->bn", design, inverse, design)
        if np.abs(beta - before).max(initial=0) < 1e-9:
            break
    return beta, added


def _maximum(
    design: Float[np.ndarray, "b n q"],
    k: Float[np.ndarray, "b n"],
    s: Float[np.ndarray, "b n"],
    start: Float[np.ndarray, "b q"],
) -> Float[np.ndarray, "b q"]:
    """Maximum likelihood of log-odds design beta by Newton steps with halving."""
    beta, eye = start, np.eye(design.shape[2])

    def loss(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        eta = np.einsum("bnq,bq->bn", design, beta)
        return (s * np.logaddexp(0, eta) - k * eta).sum(axis=1), expit(eta)

    value, p = loss(beta)
    length = np.ones(len(k))
    for _ in range(NEWTON):
        gradient = np.einsum("bn,bnq->bq", s * p - k, design)
        curvature = np.einsum("bn,bnp,bnq->bpq", s * p * (1 - p), design, design)
        ridge = 1e-9 * (1 + np.einsum("bqq->b", curvature))[:, None, None] * eye
        step = np.linalg.solve(curvature + ridge, gradient[..., None])[..., 0]
        trial = beta - length[:, None] * np.clip(step, -5, 5)
        after, p_after = loss(trial)
        better = after <= value
        beta = np.where(better[:, None], trial, beta)
        value, p = np.where(better, after, value), np.where(better[:, None], p_after, p)
        length = np.where(better, np.minimum(2 * length, 1.0), length / 4)
        if np.abs(step).max(initial=0) < 1e-9:
            break
    return beta


def dispersion(
    x: Float[np.ndarray, " n"],
    k: Float[np.ndarray, "b n"],
    s: Float[np.ndarray, "b n"],
    beta: Float[np.ndarray, "b 2"],
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Residual deviance per degree of freedom, and these: (value, freedom).

    Only x at which a hit or a miss in s is expected to vary, s p (1 - p) >= 1, can disagree with
    the curve; freedom is their number less 2, the value NaN where none is left.
    """
    eta = beta[:, :1] + beta[:, 1:] * (x - x.mean())
    p, share = expit(eta), k / np.where(s > 0, s, 1.0)
    entropy = xlogy(k, share) + xlogy(s - k, 1 - share)
    deviance = 2 * (entropy + s * np.logaddexp(0, eta) - k * eta)
    freedom = np.maximum((s * p * (1 - p) >= 1).sum(axis=1) - 2.0, 0.0)
    return deviance.sum(axis=1) / np.where(freedom > 0, freedom, np.nan), freedom


def profile_ends(
    x: Float[np.ndarray, " n"],
    k: Float[np.ndarray, "b n"],
    s: Float[np.ndarray, "b n"],
    n50: Float[np.ndarray, " b"],
    log_width: Float[np.ndarray, " b"],
    phi: Float[np.ndarray, " b"],
    freedom: Float[np.ndarray, " b"],
) -> list[Float[np.ndarray, " b"]]:
    """Profile-likelihood ends of the x at which half are hits and of log w = -log(-beta_1).

    The likelihood is not penalised: of a step, any width down to 0 and any place between the two
    x is as good, and the ends say so (-inf and, nearly, these x). The deviance may rise by the
    chi-square quantile, or where `phi` is above 1 by it times the squared t quantile of `freedom`.
    """
    span, step = np.ptp(x), np.diff(x).min()
    sharpest = SHARPEST * step

    def deviance(n50: np.ndarray, width: np.ndarray) -> np.ndarray:
        eta = (n50[:, None] - x) / width[:, None]
        return 2 * (s * np.logaddexp(0, eta) - k * eta).sum(axis=1)

    def by_n50(at: np.ndarray) -> np.ndarray:
        away = at[:, None] - x

        def falling(rate: np.ndarray) -> np.ndarray:
            return ((s * expit(rate[:, None] * away) - k) * away).sum(axis=1) < 0

        return deviance(at, 1 / _turn(falling, 1e-6 / span + 0 * at, 1 / sharpest + 0 * at))

    def by_width(at: np.ndarray) -> np.ndarray:
        width = np.exp(at)

        def falling(n50: np.ndarray) -> np.ndarray:
            return (s * expit((n50[:, None] - x) / width[:, None]) - k).sum(axis=1) < 0

        return deviance(_turn(falling, x[0] - 9 * width - span, x[-1] + 9 * width + span), width)

    quantile = stdtrit(np.maximum(freedom, 1), (1 + LEVEL) / 2)
    rise = np.where(phi > 1, phi * quantile**2, chdtri(1, 1 - LEVEL))
    least = np.log(sharpest) + 0 * n50
    base = np.minimum(np.minimum(by_n50(n50), by_width(log_width)), by_width(least))
    most = np.maximum(log_width, np.log(span)) + np.log(100)
    wanted = [(by_n50, n50, n50 - 3 * span), (by_n50, n50, n50 + 3 * span)]
    wanted += [(by_width, log_width, least), (by_width, log_width, most)]
    return [_rise(profile, inner, outer, base + rise) for profile, inner, outer in wanted]


def _turn(
    falling: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> Float[np.ndarray, " b"]:
    """Where a convex function stops `falling`, between low and high."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        more = falling(middle)
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return (low + high) / 2


def _rise(
    profile: Callable[[np.ndarray], np.ndarray],
    inner: np.ndarray,
    outer: np.ndarray,
    level: np.ndarray,
) -> Float[np.ndarray, " b"]:
    """Where `profile` rises to `level` between `inner` and `outer`; infinite if it does not."""
    far = np.where(profile(outer) < level, np.where(outer < inner, -np.inf, np.inf), 0.0)
    end = _turn(lambda at: (profile(at) < level) == (inner < outer), *np.sort([inner, outer], 0))
    return np.where(np.isinf(far), far, end)
