r"""Mean and covariance of a set of points, as an eigenbasis in float64.

:math:`\mu = \frac1N \sum_i a_i`, :math:`\Sigma = \frac1N \sum_i (a_i-\mu)(a_i-\mu)^T = U
\mathrm{diag}(\lambda) U^T`, divisor N as in arXiv:2410.24060. A covariance of N <= d points has
rank N-1 at most, and constant pixels lower it further: directions without variance are left out of
the basis by a float64 threshold, because a float32 leak there opens the filter at small noise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cache import digest

__all__ = ["Moments", "scatter"]

ROWS = 8192


def scatter(
    blocks: Iterable[Float[Tensor, "_ d"]], mean: Float[Tensor, " d"]
) -> Float[Tensor, "d d"]:
    """Sum of (a - mean)(a - mean)^T over the points of all blocks, in float64."""
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for rows in blocks:
        centred = rows.double() - mean
        total.addmm_(centred.T, centred)
    return total


@dataclass(frozen=True)
class Moments:
    r"""Mean and nonzero spectrum, largest first, of a distribution on :math:`\mathbb R^d`."""

    mean: Float[Tensor, " d"]
    """:math:`\\mu`, float64."""
    eigenvalues: Float[Tensor, " r"]
    """:math:`\\lambda_1 \\ge \\dots \\ge \\lambda_r > 0`, float64, in squared pixels."""
    basis: Float[Tensor, "d r"]
    """:math:`U`, orthonormal columns, float64."""

    @classmethod
    def of_points(cls, points: Float[Tensor, "n d"]) -> "Moments":
        """Moments of `points` "n d": thin SVD of the centred points if n <= d, else an eigh."""
        n, d = points.shape
        if n > d:
            return cls.of_blocks(lambda: points.split(ROWS), n)
        points = points.double()
        mean = points.mean(0)
        _, s, vt = torch.linalg.svd(points - mean, full_matrices=False)
        # Rounding of the mean itself can leave a spurious n-th direction of size eps * |points|.
        floor = torch.finfo(s.dtype).eps * max(n, d) * max(s.max(), points.abs().max())
        return cls(mean, s[s > floor] ** 2 / n, vt[s > floor].T.contiguous())

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[Float[Tensor, "_ d"]]], n: int) -> "Moments":
        """Moments of n points that `blocks()` gives some at a time, each time it is called.

        Two passes, sums in float64: memory for one block and for the covariance "d d".
        """
        mean = torch.stack([rows.double().sum(0) for rows in blocks()]).sum(0) / n
        if n <= len(mean):
            return cls.of_points(torch.cat(list(blocks())))
        return cls.of_covariance(mean, scatter(blocks(), mean) / n)

    @classmethod
    def of_covariance(cls, mean: Float[Tensor, " d"], cov: Float[Tensor, "d d"]) -> "Moments":
        """Moments of a known mean " d" and covariance "d d" (exact for synthetic data)."""
        values, vectors = torch.linalg.eigh(cov.double())
        floor = torch.finfo(values.dtype).eps * len(values) * values.abs().max()
        keep = (values > floor).nonzero()[:, 0].flip(0)
        return cls(mean.double(), values[keep], vectors[:, keep].contiguous())

    @property
    def dim(self) -> int:
        """d, the number of pixels."""
        return len(self.mean)

    @property
    def rank(self) -> int:
        """r, the number of directions with variance."""
        return len(self.eigenvalues)

    @property
    def cov(self) -> Float[Tensor, "d d"]:
        r""":math:`\Sigma = U \mathrm{diag}(\lambda) U^T`, built at each call."""
        return self.basis * self.eigenvalues @ self.basis.T

    @cached_property
    def digest(self) -> str:
        """Content hash, part of every cache key that depends on these moments."""
        return digest(self.mean, self.eigenvalues, self.basis)
