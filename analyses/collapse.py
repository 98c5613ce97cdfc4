r"""The noise levels at which the exact flow takes its two decisions: which class, which point.

**Scaling.** The Ornstein-Uhlenbeck time of arXiv:2402.18491 has :math:`x_t = e^{-t} (a + \sigma
\epsilon)` with :math:`\sigma^2 = e^{2t} - 1`, so :math:`\Delta_t = 1 - e^{-2t} = e^{-2t}
\sigma^2`, and the density of :math:`x_t` is :math:`P_t(x) = e^{dt} p_\sigma(e^t x)`, with
:math:`p_\sigma` the density of :math:`y = a + \sigma\epsilon`.

**Speciation.** The flow chooses a class at :math:`t_S = \frac12 \ln \Lambda`, Lambda the largest
eigenvalue of the covariance: :math:`\sigma_S^2 = \Lambda - 1`. It depends on the unit of the
pixels, because :math:`x_t` tends to unit variance.

**Collapse.** The flow to N points collapses on one of them when the entropy of :math:`P_t` exceeds
that of N separate Gaussians no longer: :math:`\frac{\ln N}{d} + \frac12 \ln(2\pi e \Delta_t) +
\frac1d E \ln P_t = 0`. In sigma, :math:`\ln\Delta_t = \ln\sigma^2 - 2t` and :math:`E \ln P_t = E
\ln p_\sigma + dt`: both shifts cancel, and

.. math:: \ln N + \tfrac{d}{2} \ln(2\pi e \sigma^2) + E \ln p_\sigma(y) = 0.

For Gaussian data :math:`E \ln p_\sigma = -\frac12 \sum_k \ln 2\pi e(\lambda_k + \sigma^2)`, and
:math:`\sum_k \frac12 \ln(1 + \lambda_k/\sigma_C^2) = \ln N`; with one variance :math:`s^2`,
:math:`\sigma_C^2 = s^2/(N^{2/d} - 1)`.

**From points.** P is the density of the population, of which only the N points are known. The
mixture over all of them, own point included, would put the left side at :math:`E \ln(1 +
\text{others}/\text{own}) > 0`: it has no root. So :math:`y = a_i + \sigma\epsilon` is judged by
the other points, :math:`p_\sigma \approx \frac1N \sum_{j \ne i} \mathcal N(y; a_j, \sigma^2 I)`,
and since :math:`E \ln \mathcal N(y; a_i, \sigma^2 I) = -\frac{d}{2} \ln(2\pi e \sigma^2)` the
criterion becomes that of a condensation, the own weight against that of all others:

.. math:: E \ln \sum_{j \ne i} e^{-(|y-a_j|^2 - |y-a_i|^2)/2\sigma^2} = 0.

The mean of a logarithm lies below the logarithm of the mean, so this level lies above the
population's: for a standard normal and N = 1000 points by about 4 % at d = 64 and 13 % at d = 6.
"""

import math

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Generator, Tensor

__all__ = ["collapse_sigma", "collapse_sigma_gaussian", "speciation_sigma"]

STEP, FLOOR, ROUNDING = 1.5, 1e-6, 1e-6
"""The search for a collapse: factor between noise levels, lowest one in units of the largest
distance to the mean, and what is too small to count as a change of sign."""


def speciation_sigma(spectrum: Float[Tensor, " r"]) -> float:
    r""":math:`\sigma_S = \sqrt{\Lambda - 1}` in pixels, Lambda the largest eigenvalue.

    NaN without a speciation, Lambda < 1 or an empty spectrum. arXiv:2402.18491.

    >>> speciation_sigma(torch.tensor([5.0, 0.5]))
    2.0
    """
    top = float(spectrum.max()) if len(spectrum) else math.nan
    return math.sqrt(top - 1) if top >= 1 else math.nan


def collapse_sigma_gaussian(spectrum: Float[Tensor, " r"], n: int) -> float:
    r"""The root of :math:`\sum_k \frac12 \ln(1 + \lambda_k/\sigma_C^2) = \ln N`, in pixels.

    NaN where there is none: N = 1, or no variance. ValueError if n < 1.

    >>> collapse_sigma_gaussian(torch.tensor([1.0, 1.0]), 2)  # 1 / (2^(2/2) - 1)
    1.0
    """
    if n < 1:
        raise ValueError(f"collapse_sigma_gaussian: `n` must be at least 1, got {n}.")
    lam = spectrum.double()
    lam = lam[lam > 0]
    if n == 1 or not len(lam):
        return math.nan
    # All r modes as large as the smallest, or as the largest, bracket the root.
    low, high = (
        0.5 * (math.log(float(edge)) - math.log(math.expm1(2 * math.log(n) / len(lam))))
        for edge in (lam.min(), lam.max())
    )
    excess = lambda log: float((lam / math.exp(2 * log)).log1p().sum() / 2) - math.log(n)  # noqa: E731
    return math.exp(brentq(excess, low - 1e-9, high + 1e-9, xtol=1e-14, rtol=1e-14))


def collapse_sigma(points: Float[Tensor, "n d"], generator: Generator, inputs: int = 512) -> float:
    r"""The largest :math:`\sigma` at which the own point outweighs all others, in pixels.

    The root of :math:`E \ln \sum_{j \ne i} e^{-(|y-a_j|^2 - |y-a_i|^2)/2\sigma^2} = 0` over at
    most `inputs` of the points, one noise draw each from `generator`, the same at every sigma.
    NaN where there is none: fewer than three points, or duplicates of which none ever wins; give
    distinct points (`analyses.nearest.distinct`).
    """
    points = points.double()
    n, d = points.shape
    if n < 3:
        return math.nan
    own = torch.randperm(n, generator=generator)[:inputs]
    noise = torch.randn(len(own), d, generator=generator, dtype=torch.float64)
    # |y - a_j|^2 - |y - a_i|^2 = |a_i - a_j|^2 + 2 sigma eps . (a_i - a_j): computed once.
    a = points[own] - points.mean(0)
    others = points - points.mean(0)
    squared = torch.cdist(a, others, compute_mode="donot_use_mm_for_euclid_dist").square()
    squared[torch.arange(len(own)), own] = torch.inf
    along = (noise * a).sum(1, keepdim=True) - noise @ others.T

    def excess(log: float) -> float:
        sigma = math.exp(log)
        return float(torch.logsumexp(-(squared / (2 * sigma) + along) / sigma, 1).mean())

    # Far above every distance the others win by ln(N - 1); the first change of sign below is it.
    radius = float(others.norm(dim=1).max())
    high = 10 * radius * math.sqrt(d)
    while high > FLOOR * radius:
        low = high / STEP
        if excess(math.log(low)) < -ROUNDING:
            return math.exp(brentq(excess, math.log(low), math.log(high), xtol=1e-12, rtol=1e-12))
        high = low
    return math.nan
