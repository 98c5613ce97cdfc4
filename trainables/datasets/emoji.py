"""Colour emoji, some 3,900 drawings of 136 x 128 pixels, from the bitmaps of Noto Color Emoji.

The font is Debian's package fonts-noto-color-emoji (OFL-1.1); its CBDT table holds a PNG for each
glyph. Drawings, each one once, are laid on white, cropped to their centre of 128 x 128 and made
smaller by means over areas. Many differ by skin or gender alone: see the count of near duplicates.
"""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.datasets import cache
from trainables.datasets.formats.item import Item, decode
from trainables.datasets.images import Images
from trainables.datasets.preprocess import Preprocessing
from trainables.registry import is_int, require

FONTS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),  # Debian, Ubuntu
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),  # Arch
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),  # Fedora
)
SIDE = 128


def load(path: str | Path | None = None, resolution: int = 32, channels: int = 3) -> Images:
    """All drawings of the font at `path` (default: where distributions put it).

    `resolution` is at most 128, `channels` 1 makes them grey. Raises FileNotFoundError saying how
    to get the font, ValueError if it has no bitmaps.
    """
    allowed = f"a whole number from 1 to {SIDE}"
    fits = is_int(resolution, 1) and resolution <= SIDE
    require(fits, "emoji", "resolution", resolution, allowed)
    prepare = Preprocessing(channels, SIDE, resolution)
    prepare.check("emoji")
    file = font() if path is None else Path(path)
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"emoji: {file or FONTS[0]} is missing: run `apt-get install fonts-noto-color-emoji`,"
            " or set `data.path` to a NotoColorEmoji.ttf with bitmaps (CBDT)."
        )
    try:
        return cache.images((file,), {"emoji": SIDE}, lambda: _drawings(file), prepare)
    except ValueError as error:
        raise ValueError(f"emoji: {error}") from error


def font() -> Path | None:
    """The font on this machine, if there is one."""
    return next((file for file in FONTS if file.is_file()), None)


def _drawings(file: Path) -> Iterator[Item]:
    from fontTools.ttLib import TTFont  # slow to import, and needed for this alone

    try:
        with TTFont(file) as tables:
            strike = max(tables["CBDT"].strikeData, key=len)
            order = {name: i for i, name in enumerate(tables.getGlyphOrder())}
            drawn = [(order[name], glyph.imageData) for name, glyph in strike.items()]
    except Exception as error:  # its reader raises anything on a broken file
        raise ValueError(f"{file}: no colour bitmaps (table CBDT) to read: {error!r}") from error
    seen = set()  # ten glyphs repeat the drawing of another: splits would not be disjoint
    for i, data in sorted(drawn):
        drawing = _on_white(decode(data, f"{file}: glyph {i}"))
        if (key := blake2b(drawing.tobytes(), digest_size=16).digest()) not in seen:
            seen.add(key)
            yield Item(("", i), drawing)


def _on_white(drawing: Image.Image) -> np.ndarray:
    layer = drawing.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
