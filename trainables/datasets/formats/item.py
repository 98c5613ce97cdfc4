"""What a format yields: images one by one, and labels that stand in a file of their own."""

import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Not every format that Pillow knows: some start other programs.
PILLOW = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Pillow's decoders raise what they stumble over: Pillow documents OSError alone.
UNREADABLE = (
    UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning,
    OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError, ArithmeticError,
    EOFError, NotImplementedError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
IMAGE_PIXELS = 1 << 26
"""Most pixels of one image; a small file may claim any number."""


@dataclass(frozen=True)
class Item:
    """One image."""

    key: tuple[str, int]
    """Name of its file and its number therein: images are ordered by it."""
    image: Image.Image | UInt8[np.ndarray, "h w c"]
    """Not decoded yet, or bytes."""
    label: int | str | None = None
    """Its class."""
    test: bool = False
    """Whether it belongs to the official test part."""


@dataclass(frozen=True)
class Labels:
    """Classes that a file of their own gives to images; those of an image itself give way."""

    by_name: Mapping[str, int]


@dataclass(frozen=True)
class Choices:
    """Which arrays or columns are read, where a format has several."""

    key: str | None = None
    label_key: str | None = None
    layout: str | None = None


def decode(data: bytes, origin: str) -> Image.Image:
    """An image file's content as an image whose size is known to be sane, pixels unread.

    Raises ValueError naming `origin` if it is no such image or claims too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=PILLOW)
    except UNREADABLE as error:
        raise ValueError(f"{origin} is not a readable image: {error}.") from error
    w, h = image.size
    if w * h > IMAGE_PIXELS:
        raise ValueError(
            f"{origin} claims {w} x {h} pixels, more than the {IMAGE_PIXELS} of one image."
        )
    return image
