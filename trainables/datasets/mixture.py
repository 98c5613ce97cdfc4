r"""Isotropic clusters: the simplest data whose best denoiser is far from linear.

A point is :math:`x = c_j + s z` with j uniform over the clusters and z standard normal. Mean
:math:`\bar c` and covariance :math:`\frac1J\sum_j (c_j-\bar c)(c_j-\bar c)^T + s^2 I` are exact.
"""

import numpy as np
import torch
from jaxtyping import Float64

from trainables.datasets.images import Images, as_square
from trainables.datasets.limits import check_size
from trainables.registry import is_int, require
from trainables.streams import stream


def load(
    dim: int = 64,
    n: int = 4096,
    clusters: int = 8,
    std: int | float = 0.5,
    spread: int | float = 0.1,
    seed: int = 0,
) -> Images:
    """`n` images of `dim` pixels (square if `dim` is a square number), never clipped.

    `std` is the standard deviation of a pixel of the cluster centres, which are Gaussian, and
    `spread` >= 0 that of a pixel within a cluster. Image i depends on `seed`, i and the law alone.
    """
    for name, value in (("dim", dim), ("n", n), ("clusters", clusters)):
        require(is_int(value, 1), "mixture", name, value, "a whole number of at least 1")
    for shape in ((n, dim), (dim, dim)):
        check_size("mixture", shape)
    require(std > 0, "mixture", "std", std, "above 0")
    require(spread >= 0, "mixture", "spread", spread, "at least 0")
    centres = std * np.stack([_normals(dim, "centre", seed, j) for j in range(clusters)])
    labels = np.array([_label(clusters, seed, i) for i in range(n)])
    z = np.stack([_normals(dim, "point", seed, i) for i in range(n)])
    points = centres[labels] + spread * z
    mean = centres.mean(0)
    covariance = (centres - mean).T @ (centres - mean) / clusters + spread**2 * np.eye(dim)
    images = points.astype(np.float32).reshape(n, *as_square(dim))
    return Images(images, moments=(mean, covariance), labels=labels)


def _normals(dim: int, what: str, seed: int, i: int) -> Float64[np.ndarray, " d"]:
    generator = stream("data", "mixture", what, seed, i)
    return torch.randn(dim, dtype=torch.float64, generator=generator).numpy()


def _label(clusters: int, seed: int, i: int) -> int:
    generator = stream("data", "mixture", "label", seed, i)
    return int(torch.randint(clusters, (1,), generator=generator))
