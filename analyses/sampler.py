r"""Deterministic samples of any denoiser along the probability flow.

:math:`\frac{dy}{d\sigma} = \frac{y - D(y;\sigma)}{\sigma}`, from :math:`\sigma_{max} z` down to 0
on the grid of EDM, with Euler or Heun steps (arXiv:2206.00364, Algorithm 1 and equation 5).
"""

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

__all__ = ["SIGMA_MAX", "SIGMA_MIN", "SOLVERS", "edm_grid", "sample"]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
SOLVERS = ("heun", "euler")


def edm_grid(
    steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = 7
) -> tuple[float, ...]:
    r"""The noise levels :math:`(\sigma_{max}^{1/\rho} + \frac{i}{n-1} (\sigma_{min}^{1/\rho} -
    \sigma_{max}^{1/\rho}))^\rho`, i = 0..n-1, without the final 0.

    >>> [round(sigma, 3) for sigma in edm_grid(4)]
    [80.0, 9.723, 0.47, 0.002]
    """
    if steps < 1:
        raise ValueError(f"edm_grid: `steps` must be at least 1, got {steps}.")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"edm_grid: needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}."
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return tuple((high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps))


def sample(
    denoiser: Callable[[Tensor, float], Tensor],
    latents: Float[Tensor, "n d"],
    steps: int = 18,
    solver: str = "heun",
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> Float[Tensor, "n d"]:
    """Samples "n d" from standard normal `latents` "n d", in float64.

    The last step leads to noise 0, where it is an Euler step and returns the denoised output
    itself; Heun evaluates the denoiser 2 steps - 1 times, Euler `steps` times.
    """
    if solver not in SOLVERS:
        raise ValueError(f"sample: unknown solver {solver!r}, choose from {', '.join(SOLVERS)}.")
    grid = edm_grid(steps, sigma_min, sigma_max)
    y = sigma_max * latents.double()
    for sigma, after in pairwise(grid):
        slope = (y - denoiser(y, sigma)) / sigma
        ahead = y + (after - sigma) * slope
        if solver == "heun":
            slope = (slope + (ahead - denoiser(ahead, after)) / after) / 2
            ahead = y + (after - sigma) * slope
        y = ahead
    return denoiser(y, grid[-1])
