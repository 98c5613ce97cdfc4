r"""Leading singular modes of matrices that are known by their products alone.

With random directions :math:`\Omega` "d b" the space of :math:`J\Omega, JJ^TJ\Omega, \dots`
holds the leading left singular vectors of J the better the more its singular values differ
(randomized block Krylov iteration: Musco & Musco 2015, arXiv:1504.05477). How well each is known
is told by its residual and by the distance to its neighbours (Davis & Kahan 1970).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["LeadingModes", "leading_modes", "on_blocks", "sines"]

Blocks = Float[Tensor, "p d _b"]


class LeadingModes(NamedTuple):
    """Leading singular modes of a matrix at each of p points."""

    energy: Float[Tensor, "p s"]
    """Squared singular values in the space that was searched, largest first."""
    vectors: Float[Tensor, "p d k"]
    """The first left singular vectors u."""
    residual: Float[Tensor, "p k"]
    """|J J^T u - s^2 u|: within this of s^2 there is an eigenvalue of J J^T."""


def on_blocks(
    product: Callable[[Tensor, Tensor, float], Tensor], y: Float[Tensor, "p d"], sigma: float
) -> Callable[[Blocks], Blocks]:
    """A product with rows "n d" at inputs "n d" as one with the columns "p d b" at points `y`.

    FloatingPointError if it is not finite.
    """

    def multiply(columns: Blocks) -> Blocks:
        p, d, b = columns.shape
        rows = product(y.repeat_interleave(b, 0), columns.mT.reshape(p * b, d), sigma)
        if not rows.isfinite().all():
            raise FloatingPointError(f"jacobian: not finite at sigma {sigma}.")
        return rows.view(p, b, d).mT

    return multiply


def leading_modes(
    push: Callable[[Blocks], Blocks],
    pull: Callable[[Blocks], Blocks],
    image: Float[Tensor, "p d b"],
    depth: int,
    k: int,
) -> LeadingModes:
    r"""The k leading left singular vectors of J in a space of `depth` blocks, k <= depth b <= d.

    `push` and `pull` multiply by J and J^T, `image` is :math:`J\Omega`. With the orthonormal Q of
    the space and the SVD :math:`J^TQ = VSX^T`, u are the columns of QX and s those of S. Takes
    b (2 depth - 1) + k products.
    """
    basis = _orthonormal(image, image[:, :, :0])
    back = last = pull(basis)
    for _ in range(depth - 1):
        block = _orthonormal(push(last), basis)
        last = pull(block)
        basis, back = torch.cat([basis, block], 2), torch.cat([back, last], 2)
    right, values, turn = torch.linalg.svd(back, full_matrices=False)
    vectors, first = basis @ turn[:, :k].mT, values[:, :k]
    # J^T u = s v is exact, so that J v - s u is all that is missing.
    missing = push(right[:, :, :k]) - first[:, None] * vectors
    return LeadingModes(values.square(), vectors, first * missing.norm(dim=1))


def sines(modes: LeadingModes, k: int) -> tuple[Float[Tensor, "p k"], Float[Tensor, " p"]]:
    r"""How far the first k vectors, one by one, and their span may be from the true ones.

    :math:`\sin\theta \le |residual| / gap`, the gap being that of s^2 to its neighbours (the lower
    one with its own residual), or to the next beyond the span, where the sine is the norm of those
    of all k angles. A bound as long as no mode was missed. inf without a gap, NaN if J is 0.
    Beyond the modes that were asked for there must be none: ask for k + 1, or for all.
    """
    energy, residual = pad(modes.energy, (0, 1)), pad(modes.residual, (0, 1))
    here, lower = energy[:, :k], energy[:, 1 : k + 1] + residual[:, 1 : k + 1]
    down = (here - lower).clamp(min=0)
    up = torch.cat([torch.full_like(down[:, :1], torch.inf), energy[:, : k - 1] - here[:, 1:]], 1)
    residual = residual[:, :k]
    return residual / torch.minimum(up, down), residual.norm(dim=1) / down[:, -1]


def _orthonormal(columns: Blocks, basis: Blocks) -> Blocks:
    """Orthonormal columns that span `columns` beside a basis; any where rounding is all it has."""
    for _ in range(2):  # once leaves what rounding makes of columns that are nearly in the basis
        columns = torch.linalg.qr(columns - basis @ (basis.mT @ columns))[0]
    return columns
