r"""Gaussian images with a power-law spectrum: the data for which the best denoiser is linear.

:math:`x = \mu + \sum_k \sqrt{\lambda_k}\, z_k u_k` with :math:`\lambda_k \propto k^{-\alpha}` and
u_k the discrete cosines, smooth ones first, so that the images look like blurred noise. Mean and
covariance are known exactly, and so is the Wiener filter.
"""

import math

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
    alpha: int | float = 1.5,
    std: int | float = 0.5,
    mean: int | float = 0.0,
    seed: int = 0,
) -> Images:
    """`n` images of `dim` pixels (square if `dim` is a square number), never clipped.

    `alpha` >= 0 is the exponent of the spectrum, `std` the standard deviation of a pixel, averaged
    over pixels, `mean` the mean of every pixel. Image i depends on `seed`, i and the law alone.
    """
    require(is_int(dim, 1), "gaussian", "dim", dim, "a whole number of at least 1")
    require(is_int(n, 1), "gaussian", "n", n, "a whole number of at least 1")
    for shape in ((n, dim), (dim, dim)):
        check_size("gaussian", shape)
    require(alpha >= 0, "gaussian", "alpha", alpha, "at least 0")
    require(std > 0, "gaussian", "std", std, "above 0")
    shape = as_square(dim)
    basis, spectrum = cosine_basis(*shape[1:]), power_law(dim, alpha, std)
    z = np.stack([_normals(dim, seed, i) for i in range(n)])
    points = mean + (z * np.sqrt(spectrum)) @ basis.T
    moments = (np.full(dim, float(mean)), (basis * spectrum) @ basis.T)
    return Images(points.astype(np.float32).reshape(n, *shape), moments=moments)


def _normals(dim: int, seed: int, i: int) -> Float64[np.ndarray, " d"]:
    generator = stream("data", "gaussian", seed, i)
    return torch.randn(dim, dtype=torch.float64, generator=generator).numpy()


def power_law(dim: int, alpha: int | float, std: int | float) -> Float64[np.ndarray, " d"]:
    """Eigenvalues proportional to k^-alpha, k = 1..dim, with mean std^2.

    >>> power_law(2, alpha=1.0, std=1.0).round(3).tolist()
    [1.333, 0.667]
    """
    spectrum = np.arange(1, dim + 1, dtype=np.float64) ** -alpha
    return spectrum * (std**2 / spectrum.mean())


def cosine_basis(h: int, w: int) -> Float64[np.ndarray, "d d"]:
    """Orthonormal two-dimensional cosines (DCT-II) as columns, by increasing frequency."""
    rows, columns = _cosines(h), _cosines(w)
    basis = np.einsum("ia,jb->ijab", rows, columns).reshape(h * w, h * w)
    squared = np.add.outer((np.arange(h) / h) ** 2, (np.arange(w) / w) ** 2).ravel()
    return basis[:, np.argsort(squared, kind="stable")]


def _cosines(size: int) -> Float64[np.ndarray, "s s"]:
    i, k = np.arange(size)[:, None], np.arange(size)[None]
    scale = np.where(k == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    return scale * np.cos(math.pi * (i + 0.5) * k / size)
