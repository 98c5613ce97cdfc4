"""Checks of what few points do to a Gaussian denoiser: shrinkage, spread, divergence."""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses import cross_split
from analyses.laws.check import Number, Result, above, below, equal
from analyses.laws.closed_form import (
    expected_fit_kl,
    gaussian_kl,
    large_sample_fit_kl,
    mean_gains,
)
from analyses.laws.draws import normal, power_spectrum, stream
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser, kappa

__all__ = [
    "disjoint_draws", "fit_divergence", "fit_divergence_large", "gains", "naive_gains",
    "shrinkage", "split_error", "transition",
]  # fmt: skip

LAM = power_spectrum(64)
KAPPA_ERROR = {(16, 0.5): 0.013, (64, 0.5): 0.005, (256, 0.5): 0.002}
NAIVE_ERROR = {
    (16, 0.5): 0.180, (64, 0.5): 0.051, (256, 0.5): 0.014,
    (16, 0.1): 0.62, (64, 0.1): 0.23, (256, 0.1): 0.05,
}  # fmt: skip


def gains() -> Result:
    """T15: kappa predicts the mean gain of N-point filters."""
    return Result(
        tuple(
            below(
                f"largest error of the kappa law, N={n}",
                _gain_error(n, sigma, kappa(LAM, n, sigma)),
                1.5 * error + 0.001,
            )
            for (n, sigma), error in KAPPA_ERROR.items()
        )
    )


def naive_gains() -> Result:
    """T15b: the noise variance alone does not predict it."""
    return Result(
        tuple(
            equal(
                f"largest error at gain lam/(lam + sigma^2), N={n}, sigma {sigma}",
                _gain_error(n, sigma, sigma**2),
                error,
                0.1 * error,
            )
            for (n, sigma), error in NAIVE_ERROR.items()
        )
    )


def shrinkage() -> Result:
    """L7: for D_G of subsamples, kappa is at least twice as close as the noise variance."""
    numbers = []
    for n in (16, 64, 256):
        generator, measured = stream(n), torch.zeros_like(LAM)
        for _ in range(100):
            fit = Moments.of_points(normal(generator, n, 64) * LAM.sqrt())
            measured += GaussianDenoiser(fit).weight(0.5).diagonal() / 100
        naive, law = (
            (measured - LAM / (LAM + level)).abs().max() for level in (0.25, kappa(LAM, n, 0.5))
        )
        numbers.append(above(f"naive over kappa error, N={n}", naive / law, 2))
    return Result(tuple(numbers))


def split_error() -> Result:
    """T16: the predicted distance of two filters of disjoint draws, and its second term."""
    numbers = [
        equal(f"predicted over simulated, N={n}", _predicted_split(n), 1, 0.05)
        for n in (32, 128, 512)
    ]
    x = torch.zeros(1, 64, dtype=torch.float64)
    x[0, 0] = 1
    weights = _filters(64, 1200, stream(3))
    for name, v in {"along": x, "across": x.roll(3, 1)}.items():
        found = (weights @ x[0] @ v[0]).var()
        predicted = cross_split.filter_variance(LAM, 64, 0.5, v, x)[0]
        numbers.append(equal(f"variance {name} the input", predicted / found, 1, 0.15))
    return Result(tuple(numbers))


def disjoint_draws() -> Result:
    """L8: the same for two D_G that estimate their means too, on held-out noisy inputs."""
    numbers = []
    for n in (16, 64, 256):
        generator, errors = stream(n), []
        x = normal(generator, 64, 64) * (LAM + 0.25).sqrt()
        for _ in range(100):
            one, two = (
                GaussianDenoiser(Moments.of_points(normal(generator, n, 64) * LAM.sqrt()))
                for _ in range(2)
            )
            errors.append((one(x, 0.5) - two(x, 0.5)).square().sum(1))
        found = torch.stack(errors).mean()
        predicted = cross_split.cross_split_mse(LAM, n, 0.5, x, known_mean=False).mean()
        numbers.append(equal(f"predicted over simulated, N={n}", predicted / found, 1, 0.05))
    return Result(tuple(numbers))


def fit_divergence() -> Result:
    """T17: the mean divergence of a Gaussian from its fit to N points."""
    return Result(tuple(_fit_number(16, n, 600) for n in (64, 256, 1024)))


def fit_divergence_large() -> Result:
    """T17b: for many points it is d (d + 3) / 4N; at d = 16 the exact values are known."""
    known = {64: (1.991, 5e-4), 256: (0.3348, 5e-5), 1024: (0.0764, 5e-5)}
    return Result(
        (
            *(
                equal(f"exact, d=16, N={n}", expected_fit_kl(16, n), *value)
                for n, value in known.items()
            ),
            *(
                equal(
                    f"exact over d(d+3)/4N, d={d}, N=100 d^2",
                    expected_fit_kl(d, 100 * d * d) / large_sample_fit_kl(d, 100 * d * d),
                    1,
                    0.02,
                )
                for d in (4, 16, 64)
            ),
        )
    )


def transition() -> Result:
    """L14: the linear denoiser of N points errs as 1/N from N = 16 d on.

    Its error over all noise levels, weighted by sigma^-3, is this divergence (T22).
    """
    numbers = []
    for d, draws in ((16, 200), (32, 60), (64, 16), (128, 4)):
        found = [_fit_number(d, ratio * d, draws) for ratio in (16, 32, 64)]
        slope = np.polyfit(np.log([16, 32, 64]), np.log([number.value for number in found]), 1)[0]
        numbers += [*found, equal(f"log-log slope, d={d}", slope, -1, 0.1)]
    return Result(tuple(numbers))


def _fit_number(d: int, n: int, draws: int) -> Number:
    """Simulated divergence against the exact mean, within four standard errors.

    Twice N times one divergence is close to a chi-square of the d (d + 3)/2 fitted parameters.
    """
    exact = expected_fit_kl(d, n)
    error = exact * math.sqrt(2 / (d * (d + 3) / 2) / draws)
    return equal(f"KL, d={d}, N={n}", _divergences(d, n, draws).mean(), exact, 4 * error)


def _divergences(d: int, n: int, draws: int) -> Float[Tensor, " r"]:
    generator = stream(d * n)
    fits = (Moments.of_points(normal(generator, n, d)) for _ in range(draws))
    return torch.tensor([gaussian_kl(fit) for fit in fits], dtype=torch.float64)


@cache
def measured_gains(n: int, sigma: float) -> Float[Tensor, " d"]:
    """400 draws, shared by the checks that compare them."""
    return mean_gains(LAM, n, sigma, 400, stream(n))


def _gain_error(n: int, sigma: float, level: float) -> Float[Tensor, ""]:
    return (measured_gains(n, sigma) - LAM / (LAM + level)).abs().max()


def _filters(n: int, draws: int, generator: torch.Generator) -> Float[Tensor, "r d d"]:
    """W of draws of n points with known mean 0, at sigma .5."""
    eye, found = torch.eye(64, dtype=torch.float64), []
    for _ in range(draws):
        x = normal(generator, n, 64) * LAM.sqrt()
        factor = torch.linalg.cholesky(x.T @ x / n + 0.25 * eye)
        found.append(eye - 0.25 * torch.cholesky_inverse(factor))
    return torch.stack(found)


def _predicted_split(n: int) -> Float[Tensor, ""]:
    """Prediction over simulation of the distance of two filters, mean over 64 noisy inputs."""
    generator = stream(n)
    x = normal(generator, 64, 64) * (LAM + 0.25).sqrt()
    one, two = _filters(n, 400, generator).chunk(2)
    found = (x @ (one - two)).square().sum(2).mean()
    return cross_split.cross_split_mse(LAM, n, 0.5, x).mean() / found
