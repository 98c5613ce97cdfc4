"""Checks of the sampler against the exact probability flow of a Gaussian denoiser."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.laws.check import Result, below, equal
from analyses.laws.draws import normal, skewed_points, stream
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser
from analyses.sampler import SIGMA_MAX, SOLVERS, sample

__all__ = ["convergence", "few_steps", "last_step", "more_steps"]

SPECTRUM = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
EULER_10 = (0.634, 0.674, 0.712, 0.751, 0.785, 0.816, 0.856)
EULER_40 = (0.896, 0.912, 0.925, 0.936, 0.946, 0.954, 0.965)
HEUN_18 = (1.127, 1.090, 1.064, 1.045, 1.032, 1.022, 1.013)


def convergence() -> Result:
    """T7: Heun nears the exact flow at second order."""
    spectrum = [10.0 ** (k / 2) for k in range(-4, 5)]
    residuals = {
        steps: (_multipliers(spectrum, steps, "heun") - 1).abs().max() for steps in (40, 80, 160)
    }
    published = {40: (0.016, 0.0005), 80: (0.0035, 0.00005), 160: (0.0007, 0.0001)}
    return Result(
        tuple(
            equal(f"largest residual, Heun {steps}", residuals[steps], *published[steps])
            for steps in published
        )
    )


def few_steps() -> Result:
    """T8: ten Euler steps shrink every mode by a known factor."""
    return _factors(("euler", 10, EULER_10))


def more_steps() -> Result:
    """T8b: the same for forty Euler and eighteen Heun steps."""
    return _factors(("euler", 40, EULER_40), ("heun", 18, HEUN_18))


def last_step() -> Result:
    """T9: the sample is the last denoised output itself."""
    oracle, numbers = EmpiricalDenoiser(skewed_points(40, 6, 0)), []
    for solver in SOLVERS:
        outputs: list[Tensor] = []

        def denoiser(
            y: Float[Tensor, "n d"], sigma: float, outputs: list[Tensor] = outputs
        ) -> Float[Tensor, "n d"]:
            outputs.append(oracle(y, sigma))
            return outputs[-1]

        samples = sample(denoiser, normal(stream(1), 15, 6), 5, solver)
        gap = (samples - outputs[-1]).abs().max()
        numbers.append(equal(f"sample - last output, {solver}", gap, 0))
        count = {"heun": 9, "euler": 5}[solver]
        numbers.append(equal(f"evaluations in 5 steps, {solver}", len(outputs), count))
    copies = sample(oracle, normal(stream(1), 15, 6))
    away = torch.cdist(copies, oracle.train).amin(1).max()
    return Result((*numbers, below("samples of D_M - training points", away, 1e-6)))


def _factors(*cases: tuple[str, int, tuple[float, ...]]) -> Result:
    """Final scale of each mode of `SPECTRUM` over that of the exact flow, within .001."""
    return Result(
        tuple(
            equal(f"{solver} {steps}, variance {lam:g}", found, factor, 0.001)
            for solver, steps, published in cases
            for lam, found, factor in zip(
                SPECTRUM, _multipliers(SPECTRUM, steps, solver), published, strict=True
            )
        )
    )


def _multipliers(spectrum: tuple | list, steps: int, solver: str) -> Float[Tensor, " r"]:
    lam = torch.tensor(spectrum, dtype=torch.float64)
    oracle = GaussianDenoiser(Moments.of_covariance(torch.zeros_like(lam), lam.diag()))
    latents = torch.ones(1, len(lam), dtype=torch.float64)
    exact = oracle.flow(SIGMA_MAX * latents, SIGMA_MAX, 0.0)
    return (sample(oracle, latents, steps, solver) / exact)[0]
