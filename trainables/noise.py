r"""Training densities of the noise level: how often each :math:`\sigma` is seen.

Source: Karras et al. 2022 (EDM, arXiv 2206.00364), table 1, "Noise distribution".
"""

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
