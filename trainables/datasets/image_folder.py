"""A folder of image files of one size, read with Pillow in the order of their paths."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from trainables.datasets.formats.item import PILLOW, SUFFIXES, UNREADABLE
from trainables.datasets.images import Images
from trainables.datasets.limits import check_size
from trainables.registry import require

MODES = {1: "L", 3: "RGB"}


def load(path: str | Path, test_path: str | Path | None = None, channels: int = 3) -> Images:
    """All images below `path`, bytes for [-1, 1], with `channels` 3 (colour) or 1 (grey).

    `test_path` is the folder of the official test part. Raises ValueError naming the folder if it
    holds no image, or the first file that is unreadable or of another size than the first one.
    """
    require(channels in MODES, "image_folder", "channels", channels, "1 or 3")
    files, pixels = _read(Path(path), channels)
    if test_path is None:
        return Images(pixels, sources=files)
    test_files, test = _read(Path(test_path), channels)
    return Images(pixels, test, sources=files + test_files)


def _read(folder: Path, channels: int) -> tuple[tuple[Path, ...], np.ndarray]:
    if not folder.is_dir():
        raise FileNotFoundError(f"image_folder: there is no folder {folder}.")
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = sorted(found, key=lambda file: file.relative_to(folder).as_posix())
    if not files:
        raise ValueError(f"image_folder: no image file ({', '.join(SUFFIXES)}) below {folder}.")
    first = _pixels(files[0], channels)
    check_size(folder, (len(files), *first.shape))
    stack = np.empty((len(files), *first.shape), dtype=np.uint8)
    for i, file in enumerate(files):
        image = _pixels(file, channels)
        if image.shape != first.shape:
            (_, h, w), (_, h0, w0) = image.shape, first.shape
            raise ValueError(f"{file} has {w} x {h} pixels, but {files[0]} has {w0} x {h0}.")
        stack[i] = image
    return tuple(files), stack


def _pixels(file: Path, channels: int) -> UInt8[np.ndarray, "c h w"]:
    try:
        with warnings.catch_warnings():
            # Pillow warns of metadata, which are no pixels, and of what may be a bomb.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=PILLOW) as image:
                array = np.asarray(image.convert(MODES[channels]))
    except UNREADABLE as error:
        raise ValueError(f"{file} is not a readable image: {error}.") from error
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
