r"""The exact denoiser of a Gaussian mixture whose means are trained: a model of memorization.

If x is one of W equally likely clusters :math:`N(\mu_k, s^2 I)` and
:math:`y = x + \sigma\epsilon`, then y is of cluster k with the probability
:math:`w_k = softmax_k(-|y-\mu_k|^2 / 2(s^2+\sigma^2))`, and

.. math:: E[x|y] = \sum_k w_k (\mu_k + g\,(y - \mu_k)) = g y + (1 - g) \sum_k w_k \mu_k,
   \quad g = s^2/(s^2+\sigma^2).

With W >= N means it can put one on every training image, with fewer it must share them. The
capacity law of arXiv 2508.17689 is about this model; its equation follows from Bayes' rule.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainables.registry import is_int, require


class GMM(nn.Module):
    """The posterior mean of a mixture, in pixel units: a denoiser that needs no preconditioning.

    Its noise code is c_noise = ln(sigma)/4. It cannot start as the zero function: W equal means
    would stay equal for ever.
    """

    def __init__(self, width: int, dim: int, variance: int | float, spread: int | float) -> None:
        """`width` means drawn from N(0, `spread`^2), clusters of `variance` s^2 per pixel."""
        super().__init__()
        self.means = nn.Parameter(spread * torch.randn(width, dim))
        self.variance = variance

    def forward(
        self, x: Float[Tensor, "n c h w"], c_noise: Float[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The clean images expected behind noisy ones `x` at noise codes `c_noise`."""
        y = x.flatten(1)
        total = self.variance + torch.exp(8 * c_noise)[:, None]
        # |y|^2 is left out of the square: it is common to all clusters, and large.
        fit = y @ self.means.mT - self.means.square().sum(1) / 2
        w = torch.softmax(fit / total, dim=1)
        g = self.variance / total
        return (g * y + (1 - g) * (w @ self.means)).view_as(x)


def build(
    width: int,
    shape: tuple[int, int, int],
    *,
    variance: int | float = 0.01,
    spread: int | float = 0.5,
) -> nn.Module:
    """A mixture of `width` clusters for images of `shape` (c, h, w).

    `variance` >= 0 of a pixel within a cluster (0: the empirical denoiser of `width` points);
    `spread` > 0 is the standard deviation of a pixel of the untrained means. Raises ValueError
    naming the option, its value and what is allowed.
    """
    require(is_int(width, 1), "gmm", "width", width, "a whole number of at least 1")
    require(variance >= 0, "gmm", "variance", variance, "at least 0")
    require(spread > 0, "gmm", "spread", spread, "above 0")
    return GMM(width, math.prod(shape), float(variance), float(spread))
