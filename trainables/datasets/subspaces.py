r"""Orthogonal subspaces: data of low dimension whose parts can be learned one by one.

A point is :math:`x = s\,U_k a` with k uniform over the K subspaces, :math:`a \sim N(0, I_{d_k})`
and U_k of d_k orthonormal columns, orthogonal to those of the others: the mixture of low-rank
Gaussians of arXiv 2409.02426. Mean 0 and covariance :math:`\frac{s^2}{K}\sum_k U_k U_k^T` are
exact. Subspace k can be learned once d_k of the training points lie in it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

from trainables.datasets.images import Images, as_square
from trainables.datasets.limits import check_size
from trainables.registry import is_int, require
from trainables.streams import stream


def load(
    dims: Sequence[int] = (4, 6, 8),
    dim: int = 64,
    n: int = 4096,
    std: int | float = 1.0,
    seed: int = 0,
) -> Images:
    """`n` images of `dim` pixels (square if `dim` is a square number), never clipped.

    `dims` are the dimensions d_k of the subspaces, at most `dim` together; `std` s > 0 is the
    standard deviation of a coordinate within its subspace. Image i depends on `seed`, i and the
    law alone. Raises ValueError naming the option, its value and what is allowed.
    """
    for name, value in (("dim", dim), ("n", n)):
        require(is_int(value, 1), "subspaces", name, value, "a whole number of at least 1")
    for shape in ((n, dim), (dim, dim)):
        check_size("subspaces", shape)
    listed = isinstance(dims, list | tuple) and len(dims) > 0 and all(is_int(d, 1) for d in dims)
    allowed = f"a list of whole numbers from 1 that add up to `dim` {dim} at most"
    require(listed and sum(dims) <= dim, "subspaces", "dims", dims, allowed)
    require(std > 0, "subspaces", "std", std, "above 0")
    bases = orthogonal_bases(dims, dim, seed)
    drawn = [_point(bases, seed, i) for i in range(n)]
    points, labels = np.stack([x for x, _ in drawn]), np.array([k for _, k in drawn])
    covariance = sum(u @ u.T for u in bases) / len(bases)
    images = (std * points).astype(np.float32).reshape(n, *as_square(dim))
    moments = (np.zeros(dim), std**2 * np.asarray(covariance))
    return Images(images, moments=moments, labels=labels, bases=tuple(bases))


def orthogonal_bases(
    dims: Sequence[int], dim: int, seed: int = 0
) -> list[Float64[np.ndarray, "d _columns"]]:
    """A random orthonormal basis of R^dim cut into parts of `dims` columns."""
    generator = stream("data", "subspaces", "basis", seed)
    square = torch.randn(dim, dim, dtype=torch.float64, generator=generator).numpy()
    q, r = np.linalg.qr(square)
    # Positive diagonal: which of the two signs comes out differs between libraries.
    q = q * np.sign(np.diag(r))
    ends = np.cumsum(dims)
    return [q[:, end - d : end] for d, end in zip(dims, ends, strict=True)]


def _point(
    bases: Sequence[Float64[np.ndarray, "d _k"]], seed: int, i: int
) -> tuple[np.ndarray, int]:
    generator = stream("data", "subspaces", "point", seed, i)
    k = int(torch.randint(len(bases), (1,), generator=generator))
    a = torch.randn(bases[k].shape[1], dtype=torch.float64, generator=generator)
    return bases[k] @ a.numpy(), k
