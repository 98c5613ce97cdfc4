r"""The linear part of an affine fit: a whole matrix, or one made of few directions and a gain.

Where pixels outnumber what can be fitted, the map is taken from the class

.. math:: W = A Q^T + g (I - Q Q^T)

with q orthonormal directions Q (the leading ones of the inputs' law), A "d q" and one gain g for
all others. No d x d matrix is ever made. With q = d it is the whole class. Everything below is
exact for either: norms and angles come from the factors.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.oracles import GaussianDenoiser

__all__ = ["Leading", "Weight", "Whole"]


@dataclass(frozen=True)
class Whole:
    """A matrix."""

    matrix: Float[Tensor, "d d"]
    """W."""

    def __call__(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """W y."""
        return y @ self.matrix.T

    def norm(self) -> Float[Tensor, ""]:
        """|W|_F."""
        return self.matrix.norm()

    def distance(self, wiener: GaussianDenoiser, sigma: float) -> Float[Tensor, ""]:
        """|W - W_G|_F."""
        return (self.matrix - wiener.weight(sigma)).norm()

    def asymmetry(self) -> Float[Tensor, ""]:
        """|W - W^T|_F."""
        return (self.matrix - self.matrix.T).norm()

    def leading(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        """The k largest singular values and their left singular vectors."""
        vectors, values, _ = torch.linalg.svd(self.matrix)
        return values[:k], vectors[:, :k]

    def axes(self, k: int) -> Float[Tensor, "d k"]:
        """Those vectors alone, as the eigenvectors of W W^T: sooner found than an SVD."""
        return torch.linalg.eigh(self.matrix @ self.matrix.T)[1][:, -k:]


@dataclass(frozen=True)
class Leading:
    """A map of the class above."""

    factor: Float[Tensor, "d q"]
    """A = W Q."""
    basis: Float[Tensor, "d q"]
    """Q."""
    gain: Float[Tensor, ""]
    """g."""

    def __call__(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """W y."""
        z = y @ self.basis
        return z @ (self.factor - self.gain * self.basis).T + self.gain * y

    @property
    def rest(self) -> int:
        """d - q."""
        return self.basis.shape[0] - self.basis.shape[1]

    def norm(self) -> Float[Tensor, ""]:
        """|W|_F; the two parts have orthogonal rows."""
        return (self.factor.square().sum() + self.rest * self.gain**2).sqrt()

    def distance(self, wiener: GaussianDenoiser, sigma: float) -> Float[Tensor, ""]:
        """|W - W_G|_F: its part on Q, and its part on the other directions."""
        w, basis = wiener.gains(sigma), wiener.moments.basis
        inside = basis.T @ self.basis
        on_q = self.factor - basis @ (w[:, None] * inside)
        outside = (basis - self.basis @ inside.T).square().sum(0)
        off = (w * w * outside).sum() - 2 * self.gain * (w * outside).sum()
        return (on_q.square().sum() + (off + self.rest * self.gain**2).clamp(min=0)).sqrt()

    def asymmetry(self) -> Float[Tensor, ""]:
        """|W - W^T|_F = sqrt(2 |A|^2 - 2 tr(Q^T A Q^T A)): the rest is symmetric."""
        inner = self.basis.T @ self.factor
        square = 2 * self.factor.square().sum() - 2 * (inner * inner.T).sum()
        return square.clamp(min=0).sqrt()

    def leading(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        """As of a whole matrix.

        W W^T = A A^T + g^2 (I - Q Q^T) is g^2 on all that is orthogonal to A and Q: of those
        directions, which nothing tells apart, any are given.
        """
        d, s = self.basis.shape[0], min(2 * self.basis.shape[1], self.basis.shape[0])
        extra = min(k, d - s)
        others = torch.randn(d, extra, generator=torch.Generator().manual_seed(0)).double()
        whole = torch.linalg.qr(torch.cat([self.factor, self.basis, others], 1))[0]
        span, others = whole[:, :s], whole[:, s:]
        a, q = span.T @ self.factor, span.T @ self.basis
        square = a @ a.T + self.gain**2 * (torch.eye(s, dtype=q.dtype) - q @ q.T)
        values, vectors = torch.linalg.eigh(square)
        values = torch.cat([values.clamp(min=0).sqrt(), self.gain.abs().expand(extra)])
        order = values.argsort(descending=True)[:k]
        return values[order], torch.cat([span @ vectors, others], 1)[:, order]

    def axes(self, k: int) -> Float[Tensor, "d k"]:
        """The vectors of `leading` alone."""
        return self.leading(k)[1]


Weight = Whole | Leading
