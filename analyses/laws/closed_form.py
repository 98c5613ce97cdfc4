r"""Closed forms of linear denoisers: learning by gradient descent, and the price of few points.

A *linear net* W without bias, trained by full-batch gradient descent on centred points, minimises
:math:`E|W(a + \sigma\epsilon) - a|^2`, summed over pixels, with the mean over the noise taken
exactly: :math:`\frac1N \sum_i |W a_i - a_i|^2 + \sigma^2 |W|_F^2`. Its inputs have the second
moments :math:`C_{yy} = \Sigma + \sigma^2 I`, :math:`C_{xy} = \Sigma`, so the error to
:math:`W^* = W_G` shrinks mode by mode. Beside it: the exact Kullback-Leibler divergence of a
Gaussian from its own fit to N points, and the mean squared error of the Wiener filter.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from scipy.special import digamma
from torch import Generator, Tensor

from analyses.moments import Moments

__all__ = [
    "descend", "descended", "expected_fit_kl", "flowed", "gaussian_kl", "large_sample_fit_kl",
    "mean_gains", "wiener_error",
]  # fmt: skip


def descend(
    points: Float[Tensor, "n d"],
    sigma: float,
    start: Float[Tensor, "d d"],
    rate: float,
    steps: Sequence[int],
) -> Float[Tensor, "s d d"]:
    r"""Weights of a linear net after each of the increasing `steps` of gradient descent.

    The gradient is automatic, of the loss in the head of this module on centred `points` "n d";
    `rate` times the largest eigenvalue of :math:`\Sigma + \sigma^2 I` must stay below 1.
    """
    points = points - points.mean(0)
    weight, found = start.clone().requires_grad_(), []
    for step in range(1, steps[-1] + 1):
        errors = (points @ weight.T - points).square().sum(1)
        loss = errors.mean() + sigma**2 * weight.square().sum()
        (slope,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= rate * slope
        if step in steps:
            found.append(weight.detach().clone())
    return torch.stack(found)


def descended(
    moments: Moments, sigma: float, start: Float[Tensor, "d d"], rate: float, step: int
) -> Float[Tensor, "d d"]:
    r""":math:`W(\tau) = W^* + (W_0 - W^*) (I - 2\eta(\Sigma + \sigma^2 I))^\tau`, exactly.

    `start` is :math:`W_0` "d d", `rate` is :math:`\eta`, `step` is :math:`\tau`.
    """
    return _relaxed(moments, sigma, start, lambda lam: (1 - 2 * rate * lam) ** step)


def flowed(
    moments: Moments, sigma: float, start: Float[Tensor, "d d"], time: float
) -> Float[Tensor, "d d"]:
    r"""The limit of small steps: mode k decays as :math:`e^{-2 \eta\tau (\lambda_k + \sigma^2)}`.

    `time` is :math:`\eta\tau`. arXiv:2503.03206.
    """
    return _relaxed(moments, sigma, start, lambda lam: (-2 * time * lam).exp())


def mean_gains(
    spectrum: Float[Tensor, " d"],
    n: int,
    sigma: float,
    draws: int,
    generator: Generator,
) -> Float[Tensor, " d"]:
    r"""Mean over `draws` samples of n points of :math:`u_k^T \hat W u_k`, by simulation.

    The points are Gaussian with known mean 0 and the eigenvalues `spectrum`;
    :math:`\hat W = \hat\Sigma (\hat\Sigma + \sigma^2 I)^{-1}`. Compared with
    :math:`\lambda_k/(\lambda_k + \kappa)` (`analyses.oracles.kappa`).
    """
    d, total = len(spectrum), torch.zeros_like(spectrum)
    for _ in range(draws):
        x = torch.randn(n, d, generator=generator, dtype=torch.float64) * spectrum.sqrt()
        cov = x.T @ x / n + sigma**2 * torch.eye(d, dtype=torch.float64)
        total += 1 - sigma**2 * torch.cholesky_inverse(torch.linalg.cholesky(cov)).diagonal()
    return total / draws


def gaussian_kl(fit: Moments) -> float:
    r"""KL of the standard normal from the Gaussian of the moments `fit`, in nats.

    :math:`\frac12 [\mathrm{tr}\,\hat\Sigma^{-1} + \hat\mu^T \hat\Sigma^{-1} \hat\mu - d + \ln\det
    \hat\Sigma]`; infinite if the fit is degenerate.
    """
    if fit.rank < fit.dim:
        return math.inf
    inside = (fit.mean @ fit.basis).square() + 1
    return float((inside / fit.eigenvalues + fit.eigenvalues.log() - 1).sum() / 2)


def expected_fit_kl(d: int, n: int) -> float:
    r"""Mean over draws of N points of the KL of a d-dimensional Gaussian from its fit, in nats.

    :math:`\frac12 [\frac{(N+1)d}{N-d-2} - d + \sum_{i=1}^d \psi(\frac{N-i}{2}) + d
    \ln\frac2N]` for moments with divisor N; the law itself does not matter. ValueError unless
    N > d + 2.

    >>> [round(expected_fit_kl(16, n), 3) for n in (64, 256, 1024)]
    [1.991, 0.335, 0.076]
    """
    if n <= d + 2:
        raise ValueError(f"expected_fit_kl: needs n > d + 2, got n={n} and d={d}.")
    logs = sum(float(digamma((n - i) / 2)) for i in range(1, d + 1)) + d * math.log(2 / n)
    return 0.5 * ((n + 1) * d / (n - d - 2) - d + logs)


def large_sample_fit_kl(d: int, n: int) -> float:
    """The leading term of `expected_fit_kl`, d (d + 3) / 4N: half the parameters over N."""
    return d * (d + 3) / (4 * n)


def wiener_error(spectrum: Float[Tensor, " r"], sigma: float) -> float:
    r"""Least mean squared error of Gaussian data, summed over pixels: :math:`\sum_k
    \frac{\lambda_k \sigma^2}{\lambda_k + \sigma^2}`."""
    return float((spectrum * sigma**2 / (spectrum + sigma**2)).sum())


def _relaxed(
    moments: Moments, sigma: float, start: Float[Tensor, "d d"], decay: Callable[[Tensor], Tensor]
) -> Float[Tensor, "d d"]:
    """W* + (W0 - W*) V decay(lam + sigma^2) V^T, over all d directions."""
    lam, basis = torch.linalg.eigh(moments.cov)
    end = basis * (lam / (lam + sigma**2)) @ basis.T
    return end + (start - end) @ basis * decay(lam + sigma**2) @ basis.T
