"""How a backbone is told the noise level."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

HIGHEST = 32.0  # radians per unit of c_noise, which spans about [-1.6, 1.1] for sigma .002 to 80


def features(c_noise: Float[Tensor, " n"], frequencies: int) -> Float[Tensor, "n features"]:
    r"""Sines, then cosines, of :math:`f_k c_{noise}`, f_k geometric from 1 to 32 radians.

    The fastest has some 14 periods over the noise levels of a sampler: fine enough to resolve
    them, and smooth enough that neighbouring levels share what they learn.
    """
    k = torch.arange(frequencies, dtype=c_noise.dtype, device=c_noise.device)
    angles = c_noise[:, None] * torch.exp(math.log(HIGHEST) / max(frequencies - 1, 1) * k)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
