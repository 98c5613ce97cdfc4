r"""How far two Gaussian denoisers of disjoint draws are apart, predicted from the spectrum.

The filter :math:`\hat W` of an N-point covariance fluctuates about the population's filter at
noise :math:`\kappa(N)` (`analyses.oracles.kappa`). In the population's eigenbasis, with
:math:`Q(u, w) = \sum_k u_k w_k \lambda_k / (\lambda_k+\kappa)^2` and :math:`\mathrm{df}_2 = \sum_k
\lambda_k^2 / (\lambda_k+\kappa)^2`,

.. math:: \mathrm{Var}[v^T \hat W x] = \frac{\kappa^2}{N - \mathrm{df}_2}
   \big(Q(v,v) Q(x,x) + Q(v,x)^2\big)

to leading order (arXiv:2602.02908, which keeps the first term; the second doubles the variance at
v = x). Two independent draws differ by twice that variance, summed over v. Within 5 % of
simulation from N = 16 upwards at d = 64.
"""

from jaxtyping import Float
from torch import Tensor

from analyses.oracles import kappa

__all__ = ["cross_split_mse", "filter_variance"]


def filter_variance(
    spectrum: Float[Tensor, " r"],
    n: int,
    sigma: float,
    v: Float[Tensor, "m r"],
    x: Float[Tensor, "m r"],
) -> Float[Tensor, " m"]:
    r"""Var over draws of :math:`v^T \hat W x`, row by row of `v` and `x`, in squared pixels.

    `spectrum` are the population's eigenvalues, `v` and `x` eigen-coordinates, and the mean is
    known. ValueError if n < 1 or sigma <= 0.

    >>> import torch
    >>> lam, x = torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0.0]])
    >>> along, across = (filter_variance(lam, 8, 1.0, v, x) for v in (x, x.flip(1)))
    >>> float(along / across)  # the second term
    2.0
    """
    scale, weight = _weights(spectrum, n, sigma)
    q_vv, q_xx, q_vx = ((a * b) @ weight for a, b in ((v, v), (x, x), (v, x)))
    return scale * (q_vv * q_xx + q_vx**2)


def cross_split_mse(
    spectrum: Float[Tensor, " r"],
    n: int,
    sigma: float,
    x_coordinates: Float[Tensor, "m r"],
    known_mean: bool = True,
) -> Float[Tensor, " m"]:
    r"""Predicted :math:`E|D_G^A(x) - D_G^B(x)|^2`, summed over pixels, of two draws of n points.

    .. math:: \frac{2\kappa^2}{N-\mathrm{df}_2} \Big(Q(x,x) \sum_k \frac{\lambda_k}
       {(\lambda_k+\kappa)^2} + \sum_k \frac{x_k^2 \lambda_k^2}{(\lambda_k+\kappa)^4}\Big)

    for inputs given by centred coordinates :math:`x_k` in the population's eigenbasis "m r";
    divide by d for the mean over pixels. If each draw also estimates its mean (`known_mean`
    False), the error :math:`(I - \hat W)(\hat\mu - \mu)` adds 1 to Q(x, x). ValueError if n < 1
    or sigma <= 0.
    """
    scale, weight = _weights(spectrum, n, sigma)
    energy = x_coordinates.square()
    q = energy @ weight + (0.0 if known_mean else 1.0)
    return 2 * scale * (q * weight.sum() + energy @ weight.square())


def _weights(
    spectrum: Float[Tensor, " r"], n: int, sigma: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " r"]]:
    """kappa^2 / (N - df2) and lam / (lam + kappa)^2."""
    level = kappa(spectrum, n, sigma)
    weight = spectrum / (spectrum + level) ** 2
    return level**2 / (n - (weight * spectrum).sum()), weight
