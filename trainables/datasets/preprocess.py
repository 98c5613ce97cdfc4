"""What is done to an image before it becomes a training point, on bytes, in this order.

1. *channels*. 3: colour (RGB); a grey image gets three equal channels. 1: grey, the luma of
   ITU-R 601, L = (299 R + 587 G + 114 B) / 1000, as Pillow rounds it. None: grey images stay
   grey, all others become colour. Transparency is dropped.
2. *crop*. "centre": the largest centred square; a whole number s: the centred square of side s.
   A centre between two pixels goes to the upper left.
3. *resolution* r: down to r x r pixels by Pillow's `resize` with `filter`, whose support grows
   with the ratio, so that nothing aliases. "box" averages over whole pixels; at a whole ratio
   that is the exact area mean, rounded to bytes. Only squares are resized, and never up.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from trainables.registry import is_int, require

FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")
GREY = ("1", "L", "LA", "La")
Pixels = UInt8[np.ndarray, "_h _w _c"]


@dataclass(frozen=True)
class Preprocessing:
    """The options; they belong to the identity of the data."""

    channels: int | None = None
    crop: str | int | None = None
    resolution: int | None = None
    filter: str = "box"

    def check(self, owner: str) -> None:
        """ValueError naming `owner`, the option and what is allowed."""
        require(self.channels in (None, 1, 3), owner, "channels", self.channels, "1 or 3")
        crop_fits = self.crop in (None, "centre") or is_int(self.crop, 1)
        require(crop_fits, owner, "crop", self.crop, "'centre' or a whole number of pixels")
        known = self.resolution is None or is_int(self.resolution, 1)
        require(known, owner, "resolution", self.resolution, "a whole number of at least 1")
        require(self.filter in FILTERS, owner, "filter", self.filter, ", ".join(FILTERS))

    def options(self) -> dict[str, object]:
        """Those that do something."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __call__(self, image: Pixels | Image.Image) -> UInt8[np.ndarray, "c h w"]:
        """The image as channels, height and width; ValueError if it does not fit the options."""
        pixels = self._crop(self._channels(image))
        if self.resolution is not None:
            pixels = self._resize(pixels)
        return np.moveaxis(pixels, -1, 0)

    def _channels(self, image: Pixels | Image.Image) -> Pixels:
        if isinstance(image, np.ndarray):
            if image.shape[-1] == (self.channels or image.shape[-1]):
                return image
            if image.shape[-1] not in (1, 3):
                raise ValueError(f"it has {image.shape[-1]} channels, wanted 1 or 3")
            image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are no bytes (Pillow's mode {image.mode})")
        channels = self.channels or (1 if image.mode in GREY else 3)
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        return pixels[..., None] if channels == 1 else pixels

    def _crop(self, pixels: Pixels) -> Pixels:
        h, w, _ = pixels.shape
        if self.crop is None:
            return pixels
        side = min(h, w) if self.crop == "centre" else self.crop
        if side > min(h, w):
            raise ValueError(f"it has {w} x {h} pixels, too few for `crop` {side}")
        top, left = (h - side) // 2, (w - side) // 2
        return pixels[top : top + side, left : left + side]

    def _resize(self, pixels: Pixels) -> Pixels:
        h, w, c = pixels.shape
        r = self.resolution
        if h != w:
            raise ValueError(
                f"it has {w} x {h} pixels, no square: with `resolution` set `crop` to 'centre'"
            )
        if r > h:
            raise ValueError(f"it has {w} x {h} pixels, fewer than `resolution` {r}")
        if r == h:
            return pixels
        image = Image.fromarray(pixels[..., 0] if c == 1 else np.ascontiguousarray(pixels))
        small = np.asarray(image.resize((r, r), Image.Resampling[self.filter.upper()]))
        return small[..., None] if c == 1 else small
