r"""Denoisers known in closed form, to which a trained one is compared.

- Gaussian: :math:`D_G(y;\sigma) = \mu + U \mathrm{diag}(\frac{\lambda_k}{\lambda_k+\sigma^2}) U^T
  (y-\mu)`, the Wiener filter of the moments (arXiv:2410.24060).
- Empirical: :math:`D_M(y;\sigma) = \sum_i w_i a_i`, :math:`w = \mathrm{softmax}_i(-|y-a_i|^2 /
  2\sigma^2)`, the optimum of the training loss on the points :math:`a_i`; it remembers them all.
- Kappa: the Wiener filter of the *pool* with :math:`\sigma^2` replaced by :math:`\kappa(N)`, the
  mean over draws of the N-point :math:`D_G` to leading order (arXiv:2602.02908).

Each is callable as D(y "n d", sigma) -> "n d" and works in float64.
"""

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from analyses.moments import Moments

__all__ = ["EmpiricalDenoiser", "GaussianDenoiser", "KappaDenoiser", "kappa", "kappa_hat"]

BLOCK = 4096
ELEMENTS = 2**22


def kappa(spectrum: Float[Tensor, " r"], n: int, sigma: float) -> float:
    r"""The root of :math:`\kappa-\sigma^2 = \frac{\kappa}{N} \sum_k
    \frac{\lambda_k}{\lambda_k+\kappa}`.

    `spectrum` is the population's, in squared pixels; the one positive root lies in
    :math:`[\sigma^2, \sigma^2 + \sum\lambda/N]`. arXiv:2602.02908.

    >>> kappa(torch.tensor([1.0]), 1, 1.0)  # k - 1 = k / (1 + k): the golden ratio
    1.618033988749...
    """
    if n < 1 or sigma <= 0:
        raise ValueError(f"kappa: needs n >= 1 and sigma > 0, got n={n} and sigma={sigma}.")
    lam = spectrum.double().numpy()
    low, high = sigma**2, sigma**2 + lam.sum() / n
    if high == low:
        return low
    excess = lambda k: k - low - k / n * (lam / (lam + k)).sum()  # noqa: E731
    # One ulp wider: at a bound the excess may round to the wrong sign.
    return float(brentq(excess, low, high * (1 + 1e-12), xtol=low * 1e-14, rtol=1e-14))


def kappa_hat(spectrum: Float[Tensor, " r"], n: int, sigma: float) -> float:
    r""":math:`\hat\kappa = \sigma^2 / (1 - \frac1N \sum_k \frac{l_k}{l_k+\sigma^2})` from the
    spectrum l of one sample of n points."""
    return float(sigma**2 / (1 - (spectrum / (spectrum + sigma**2)).sum() / n))


class GaussianDenoiser:
    """The Wiener filter D_G of some moments."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments

    def __call__(self, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        """D_G(y; sigma)."""
        return _filter(self.moments, self.gains(sigma), y)

    def gains(self, sigma: float) -> Float[Tensor, " r"]:
        """lam / (lam + sigma^2), the nonzero eigenvalues of W_G."""
        lam = self.moments.eigenvalues
        return lam / (lam + sigma**2)

    def weight(self, sigma: float) -> Float[Tensor, "d d"]:
        """W_G = U diag(gains) U^T."""
        basis = self.moments.basis
        return basis * self.gains(sigma) @ basis.T

    def bias(self, sigma: float) -> Float[Tensor, " d"]:
        """b_G = (I - W_G) mu = D_G(0; sigma)."""
        return self(torch.zeros_like(self.moments.mean)[None], sigma)[0]

    def flow(
        self, y: Float[Tensor, "n d"], sigma_from: float, sigma_to: float
    ) -> Float[Tensor, "n d"]:
        r"""Exact probability flow: mode k of y - mu is scaled by
        :math:`\sqrt{(\sigma_{to}^2+\lambda_k)/(\sigma_{from}^2+\lambda_k)}`, directions without
        variance by sigma_to / sigma_from (arXiv:2410.24060)."""
        lam = self.moments.eigenvalues
        rest = sigma_to / sigma_from
        scale = ((sigma_to**2 + lam) / (sigma_from**2 + lam)).sqrt()
        return rest * (y - self.moments.mean) + _filter(self.moments, scale - rest, y)


class KappaDenoiser:
    """The expected Wiener filter of n points drawn from the pool: gain lam / (lam + kappa)."""

    def __init__(self, pool: Moments, n: int) -> None:
        self.pool, self.n = pool, n

    def __call__(self, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        """D_kappa(y; sigma)."""
        lam = self.pool.eigenvalues
        return _filter(self.pool, lam / (lam + kappa(lam, self.n, sigma)), y)


class EmpiricalDenoiser:
    """The posterior mean D_M over a finite set of points, by an online log-sum-exp in float64.

    Points come in blocks of `block`, and the running maximum makes the result independent of the
    blocks; a mean of one softmax per block would be another function.
    """

    def __init__(self, train: Float[Tensor, "n d"], block: int = BLOCK) -> None:
        if block < 1:
            raise ValueError(f"EmpiricalDenoiser: `block` must be at least 1, got {block}.")
        self.train, self.block = train.double(), block

    def __call__(self, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        """D_M(y; sigma)."""
        rows = max(1, ELEMENTS // min(self.block, len(self.train)))
        return torch.cat([self._posterior(part, sigma)[0] for part in y.double().split(rows)])

    def n_eff(self, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, " n"]:
        """exp(-sum_i w_i ln w_i), the number of points that share each output, in [1, N]."""
        rows = max(1, ELEMENTS // min(self.block, len(self.train)))
        return torch.cat([self._posterior(part, sigma)[1] for part in y.double().split(rows)])

    def _posterior(
        self, y: Float[Tensor, "n d"], sigma: float
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Weighted mean of the points and exp of the entropy of the weights."""
        top = torch.full((len(y), 1), -torch.inf, dtype=y.dtype)
        total, energy, points = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(y)
        for block in self.train.split(self.block):
            # |y|^2 cancels in the softmax, so it never enters (and never rounds).
            logits = (y @ block.T - (block * block).sum(1) / 2) / sigma**2
            new = torch.maximum(top, logits.amax(1, keepdim=True))
            shrink = (top - new).exp()
            # The exponents are kept relative to the maximum: their entropy must not cancel.
            energy = shrink * (energy + total * torch.nan_to_num(top - new, neginf=0.0))
            logits = logits - new
            weights = logits.exp()
            total = shrink * total + weights.sum(1, keepdim=True)
            energy = energy + (weights * logits).sum(1, keepdim=True)
            points = shrink * points + weights @ block
            top = new
        return points / total, (total.log() - energy / total).exp()[:, 0]


def _filter(
    moments: Moments, gain: Float[Tensor, " r"], y: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """mu + U diag(gain) U^T (y - mu)."""
    return moments.mean + (y - moments.mean) @ moments.basis * gain @ moments.basis.T
