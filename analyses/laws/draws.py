"""What the checks draw: noise, points far from Gaussian, a power-law spectrum; and Jacobians."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

__all__ = ["Denoiser", "jacobians", "normal", "power_spectrum", "skewed_points", "stream"]

Denoiser = Callable[[Tensor, float], Tensor]


def stream(seed: int) -> Generator:
    """A generator with this seed."""
    return Generator().manual_seed(seed)


def normal(generator: Generator, *shape: int) -> Float[Tensor, "..."]:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def skewed_points(n: int, d: int, seed: int) -> Float[Tensor, "n d"]:
    """Points with heavy tails, a skew, a mean off zero and modes along no axis.

    The law depends on d alone: another seed draws other points of the same law.
    """
    z = normal(stream(seed), n, d)
    basis = torch.linalg.qr(normal(stream(1000 + d), d, d))[0]
    scales = torch.linspace(0.8, 0.2, d, dtype=torch.float64)
    return (z + 0.3 * z**2 + 0.2 * z**3) * scales @ basis + 0.4


def power_spectrum(d: int, exponent: float = 1.3, top: float = 2.8) -> Float[Tensor, " d"]:
    """lam_k = top k^-exponent, k = 1..d; the default is close to digits of 8 x 8 pixels."""
    return top * torch.arange(1, d + 1, dtype=torch.float64) ** -exponent


def jacobians(denoiser: Denoiser, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d d"]:
    """dD_i/dy_j at each row of `y`, by automatic differentiation; rows do not mix."""
    y = y.detach().requires_grad_()
    out = denoiser(y, sigma)
    rows = [torch.autograd.grad(column.sum(), y, retain_graph=True)[0] for column in out.T]
    return torch.stack(rows, 1)
