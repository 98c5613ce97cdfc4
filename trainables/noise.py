r"""Training densities of the noise level: how often each :math:`\sigma` is seen.

Every density is made from the same standard normals, so that one stream serves all and the noise
of a step is the same whatever the density. Its options are fields of `TrainConfig`.
Source: Karras et al. 2022 (EDM, arXiv 2206.00364), table 1, "Noise distribution".
"""

import inspect
import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor


def lognormal(
    normals: Float[Tensor, " n"], p_mean: int | float = -1.2, p_std: int | float = 1.2
) -> Float[Tensor, " n"]:
    r"""Noise levels with :math:`\ln\sigma \sim N(p_{mean}, p_{std}^2)` from standard normals.

    `normals` z gives :math:`\sigma = \exp(p_{mean} + p_{std} z) > 0`, in pixel units.

    >>> lognormal(torch.tensor([0.0, 1.0]), p_mean=0.0, p_std=1.0).round(decimals=3)
    tensor([1.0000, 2.7180])
    """
    return torch.exp(p_mean + p_std * normals)


def loguniform(
    normals: Float[Tensor, " n"], sigma_min: int | float = 0.02, sigma_max: int | float = 100.0
) -> Float[Tensor, " n"]:
    r"""Noise levels whose logarithm is uniform, from standard normals.

    `normals` z gives :math:`\sigma = \sigma_{min}(\sigma_{max}/\sigma_{min})^{\Phi(z)}` with
    :math:`\Phi` the normal distribution function, in [sigma_min, sigma_max], in pixel units. The
    defaults are those of the "VE" column.

    >>> loguniform(torch.tensor([-9.0, 0.0, 9.0]), 0.01, 100.0).round(decimals=3)
    tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """
    low, high = math.log(sigma_min), math.log(sigma_max)
    return torch.exp(low + (high - low) * torch.special.ndtr(normals))


def fixed(normals: Float[Tensor, " n"], sigma: int | float) -> Float[Tensor, " n"]:
    """One noise level `sigma` > 0 for all, in pixel units: the single-noise autoencoder.

    >>> fixed(torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.5000, 0.5000])
    """
    return torch.full_like(normals, sigma)


DENSITIES: dict[str, Callable[..., Float[Tensor, " n"]]] = {
    "lognormal": lognormal,
    "loguniform": loguniform,
    "fixed": fixed,
}


@cache
def options(density: str) -> tuple[str, ...]:
    """The names of the options of a density.

    >>> options("fixed")
    ('sigma',)
    """
    return tuple(inspect.signature(DENSITIES[density]).parameters)[1:]
