"""Checks of the posterior: dimension, divergence, error without clean images, speciation and
collapse.
"""

import math

import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor

from analyses.collapse import collapse_sigma, collapse_sigma_gaussian, speciation_sigma
from analyses.laws.check import Number, Result, below, equal
from analyses.laws.closed_form import gaussian_kl, wiener_error
from analyses.laws.draws import jacobians, normal, power_spectrum, skewed_points, stream
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser, kappa

__all__ = [
    "bound_on_divergence", "collapse_of_a_cluster", "error_without_clean_images",
    "local_dimension", "smoothness", "two_transitions",
]  # fmt: skip


def local_dimension() -> Result:
    r"""T19: tr J + |D(x) - x|^2/sigma^2 of a rank-7 Gaussian tends to 7 as the noise falls.

    In the mean over its points it is :math:`\sum_k 1 - \sigma^4/(\lambda_k + \sigma^2)^2`.
    """
    points = skewed_points(200, 7, 0) @ torch.linalg.qr(normal(stream(1), 12, 7))[0].T
    moments, numbers = Moments.of_points(points), []
    oracle, lam = GaussianDenoiser(moments), moments.eigenvalues
    for sigma in (0.3, 0.1, 0.01):
        trace = jacobians(oracle, points, sigma).diagonal(dim1=1, dim2=2).sum(1)
        shift = (oracle(points, sigma) - points).square().sum(1) / sigma**2
        expected = (1 - sigma**4 / (lam + sigma**2) ** 2).sum()
        numbers.append(equal(f"sigma {sigma}", (trace + shift).mean(), expected, 1e-8))
    return Result((*numbers, equal("sigma 0.001", _dimension_at(oracle, points), 7, 1e-3)))


def collapse_of_a_cluster() -> Result:
    """T21: the noise at which N points of one Gaussian cluster begin to collapse.

    From the known density, by Monte Carlo, within five standard errors; and from the points alone,
    which sit a little above by the finite sample.
    """
    numbers, n, s = [], 1000, 1.5
    for d in (64, 128, 256):
        exact = s / math.sqrt(n ** (2 / d) - 1)
        spectrum = torch.full((d,), s**2, dtype=torch.float64)
        numbers.append(
            equal(
                f"root of the criterion, d={d}", collapse_sigma_gaussian(spectrum, n), exact, 1e-9
            )
        )
        numbers.append(_entropic(f"Monte Carlo, d={d}", spectrum, n, exact))
        found = collapse_sigma(s * normal(stream(d), n, d), stream(1))
        numbers.append(equal(f"points over theory, d={d}", found / exact, 1.04, 0.05))
    return Result(tuple(numbers))


def bound_on_divergence() -> Result:
    r"""T22: KL(p, p_theta) <= :math:`\int (MSE(D) - MSE(D^*)) \sigma^{-3} d\sigma`.

    With equality for the posterior mean of another Gaussian; strictly for D_kappa, which is the
    posterior mean of nothing, and whose samples by the reverse diffusion are Gaussian.
    """
    lam = power_spectrum(16)
    fit = Moments.of_points(normal(stream(1), 64, 16) * lam.sqrt())
    oracle = GaussianDenoiser(fit)
    log = torch.linspace(math.log(1e-3), math.log(1e4), 1500, dtype=torch.float64)
    excess = [_excess(oracle, lam, math.exp(s)) * math.exp(-2 * s) for s in log.tolist()]
    integral = torch.trapezoid(torch.tensor(excess, dtype=torch.float64), log)
    white = Moments.of_covariance(
        fit.mean / lam.sqrt(), fit.cov / (lam.sqrt()[:, None] * lam.sqrt())
    )
    divergence, bound = _kappa_bound(lam, 64)
    return Result(
        (
            equal("integral over KL, Gaussian fit", integral / gaussian_kl(white), 1, 1e-4),
            below("KL over integral, D_kappa", divergence / bound, 1),
        )
    )


def error_without_clean_images() -> Result:
    """T23: at the optimum the squared error is sigma^2 E tr J, within five standard errors."""
    points, numbers = skewed_points(40, 6, 0), []
    oracle = EmpiricalDenoiser(points)
    for sigma in (0.5, 1.0, 2.0):
        x = points.repeat(500, 1)
        y = x + sigma * normal(stream(6), *x.shape)
        error = (oracle(y, sigma) - x).square().sum(1)
        trace = sigma**2 * jacobians(oracle, y, sigma).diagonal(dim1=1, dim2=2).sum(1)
        se = float((error - trace).std() / len(x) ** 0.5 / error.mean())
        numbers.append(
            equal(
                f"sigma^2 tr J over squared error, sigma {sigma}",
                trace.mean() / error.mean(),
                1,
                5 * se,
            )
        )
    return Result(tuple(numbers))


def smoothness() -> Result:
    """T27: images that M modes approximate to M^-alpha lose PSNR at the rate alpha/(alpha + 1).

    Their Gaussian stand-in: a spectrum k^-(alpha + 1), denoised by its own D_G.
    """
    numbers = []
    for alpha in (1, 2, 3, 5):
        lam = power_spectrum(100_000, alpha + 1.0, 1.0)
        # Noise of the size of modes 200 and 1000: far from both ends of the spectrum.
        levels = [k ** (-(alpha + 1) / 2) for k in (200, 1000)]
        fall = math.log(wiener_error(lam, levels[0]) / wiener_error(lam, levels[1]))
        slope = fall / (2 * math.log(levels[0] / levels[1]))
        numbers.append(equal(f"slope, alpha={alpha}", slope, alpha / (alpha + 1), 0.01))
    return Result(tuple(numbers))


def two_transitions() -> Result:
    """L15: where the exact flow chooses a class, and where it chooses a point.

    Two clusters at +-m, |m| = 10: the density at their centre splits in two at sigma_S, up to
    1/Lambda. Collapse: a power-law spectrum, by Monte Carlo and from points.
    """
    split = brentq(_curvature, 1.0, 100.0, args=(10.0,))
    spectrum = torch.tensor([101.0, *[1.0] * 63], dtype=torch.float64)
    numbers = [
        equal(
            "speciation over the split of the density", speciation_sigma(spectrum) / split, 1, 0.01
        )
    ]
    for d in (64, 128, 256):
        lam, n = power_spectrum(d), 1000
        proxy = collapse_sigma_gaussian(lam, n)
        numbers.append(_entropic(f"Monte Carlo, d={d}", lam, n, proxy))
        found = collapse_sigma(normal(stream(d), n, d) * lam.sqrt(), stream(1))
        numbers.append(equal(f"points over theory, d={d}", found / proxy, 1.04, 0.06))
    return Result(tuple(numbers))


def _dimension_at(oracle: GaussianDenoiser, points: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    sigma = 0.001
    trace = jacobians(oracle, points, sigma).diagonal(dim1=1, dim2=2).sum(1)
    return (trace + (oracle(points, sigma) - points).square().sum(1) / sigma**2).mean()


def _entropic(name: str, spectrum: Float[Tensor, " d"], n: int, expected: float) -> Number:
    """ln N/d + ln(2 pi e Delta_t)/2 + E ln P_t/d at its expected root, in the units of its time.

    Delta_t = 1 - e^-2t and P_t are those of the Ornstein-Uhlenbeck process; E ln P_t is a mean
    over draws, the root zero within five of its standard errors.
    """
    t = 0.5 * math.log1p(expected**2)
    delta, d = -math.expm1(-2 * t), len(spectrum)
    variance = spectrum * math.exp(-2 * t) + delta
    generator = stream(d)
    x = math.exp(-t) * spectrum.sqrt() * normal(generator, 4000, d)
    x = x + math.sqrt(delta) * normal(generator, 4000, d)
    log = -(x.square() / variance + (2 * math.pi * variance).log()).sum(1) / 2
    left = math.log(n) / d + 0.5 * math.log(2 * math.pi * math.e * delta)
    return equal(name, left + float(log.mean()) / d, 0, 5 * float(log.std()) / math.sqrt(4000) / d)


def _curvature(sigma: float, distance: float) -> float:
    """Second derivative at the centre of ln p_sigma of two unit clusters at +-distance."""
    q = torch.zeros((), dtype=torch.float64, requires_grad=True)
    ends = torch.stack([q - distance, q + distance])
    log = torch.logsumexp(-ends.square() / (2 * (1 + sigma**2)), 0)
    (slope,) = torch.autograd.grad(log, q, create_graph=True)
    return float(torch.autograd.grad(slope, q)[0])


def _excess(oracle: GaussianDenoiser, lam: Float[Tensor, " d"], sigma: float) -> float:
    """MSE of D_G of a fit minus the least one, on N(0, diag(lam)), summed over pixels."""
    gap = oracle.weight(sigma) - (lam / (lam + sigma**2)).diag()
    return float((gap.square() @ (lam + sigma**2)).sum() + oracle.bias(sigma).square().sum())


def _kappa_bound(lam: Float[Tensor, " d"], n: int) -> tuple[float, float]:
    """KL at sigma .01 of the reverse diffusion of D_kappa from noise 80, and its bound."""
    low, high = math.log(0.01), math.log(80)

    def gain(s: float) -> Float[Tensor, " d"]:
        return lam / (lam + kappa(lam, n, math.exp(s)))

    def rates(s: float, state: object) -> object:
        """d variance / d ln sigma = 4 (1 - gain) variance - 2 sigma^2; d bound / d ln sigma."""
        sigma2 = math.exp(2 * s)
        ours, best = gain(s), lam / (lam + sigma2)
        variance = torch.as_tensor(state[:-1])
        slope = 4 * (1 - ours) * variance - 2 * sigma2
        cost = ((ours - best).square() * (lam + sigma2)).sum() / sigma2
        return [*slope.tolist(), -float(cost)]

    start = [*(lam + math.exp(2 * high)).tolist(), 0.0]
    end = solve_ivp(rates, (high, low), start, rtol=1e-8, atol=1e-12, method="LSODA").y[:, -1]
    ratio = (lam + math.exp(2 * low)) / torch.as_tensor(end[:-1])
    return float((ratio - ratio.log() - 1).sum() / 2), float(end[-1])
