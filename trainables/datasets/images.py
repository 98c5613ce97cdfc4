"""What a loader returns: images as arrays, and what is known about them.

Images that came as bytes stay bytes, a quarter of the memory: whoever computes with some of them
takes their `floats`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

Stored = Float32[np.ndarray, "_n _c _h _w"] | UInt8[np.ndarray, "_n _c _h _w"]
BLOCK_BYTES = 1 << 26  # of floats made at once


@dataclass(frozen=True)
class Images:
    """The images of one data set, n c h w, in pixel units or as bytes that stand for [-1, 1]."""

    points: Stored
    """All images, or those of the official training part."""
    test: Stored | None = None
    """The official test part, if there is one."""
    moments: tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d d"]] | None = None
    """Exact mean and covariance of the law the images are drawn from, where it is known."""
    labels: Int64[np.ndarray, " n"] | None = None
    """Class 0, 1, ... of each of `points`, where the data set has classes."""
    bases: tuple[Float64[np.ndarray, "d _k"], ...] = ()
    """Orthonormal bases of the subspaces that the classes lie in, where they are known."""
    sources: tuple[Path, ...] = ()
    """The files that were read: a cache of anything computed from the images depends on them."""
    prepared: str = ""
    """Digest of files of images with what was done to them; empty for what came otherwise."""


def from_bytes(pixels: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Bytes 0..255 to [-1, 1]: v / 127.5 - 1."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def floats(pixels: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Pixel units: bytes scaled to [-1, 1], floats as they are."""
    return from_bytes(pixels) if pixels.dtype == np.uint8 else pixels


def blocks(pixels: Stored, rows: Int64[np.ndarray, " k"]) -> Iterator[Float32[np.ndarray, "..."]]:
    """The images `rows` in pixel units, some at a time: the whole may not fit the memory."""
    size = max(1, BLOCK_BYTES // max(1, 4 * int(np.prod(pixels.shape[1:]))))
    for start in range(0, len(rows), size):
        yield floats(pixels[rows[start : start + size]])


def checked(
    pixels: np.ndarray, origin: str
) -> Float32[np.ndarray, "..."] | UInt8[np.ndarray, "..."]:
    """Bytes or finite floats (as float32); ValueError naming `origin` for anything else."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{origin}: images must be bytes or floats, got {pixels.dtype}.")
    if not np.isfinite(pixels).all():
        raise ValueError(f"{origin}: some pixels are not finite.")
    return np.ascontiguousarray(pixels, dtype=np.float32)


def as_square(dim: int) -> tuple[int, int, int]:
    """The shape (1, s, s) if dim = s^2, else (1, 1, dim).

    >>> as_square(64), as_square(10)
    ((1, 8, 8), (1, 1, 10))
    """
    side = round(dim**0.5)
    return (1, side, side) if side * side == dim else (1, 1, dim)
