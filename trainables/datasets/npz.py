"""Images in a numpy archive. Nothing in it is ever unpickled."""

import struct
import tokenize
import zipfile
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from trainables.datasets.images import Images, Stored, checked
from trainables.datasets.limits import check_size

# What zip and numpy raise for a damaged file.
UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError,
    NotImplementedError, LookupError, TypeError, SyntaxError, MemoryError, tokenize.TokenError,
)  # fmt: skip


def load(
    path: str | Path, key: str = "images", test_key: str | None = None, channels_last: bool = False
) -> Images:
    """The array `key` of an .npz file, and `test_key` as its official test part.

    n h w or n c h w (n h w c with `channels_last`); bytes stand for [-1, 1], floats are taken as
    they are. Raises ValueError naming the file, and the arrays it holds if one is missing.
    """
    path = Path(path)
    test = None if test_key is None else _array(path, test_key, channels_last)
    return Images(_array(path, key, channels_last), test, sources=(path,))


def _array(path: Path, key: str, channels_last: bool) -> Stored:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            if key not in archive.files:
                raise ValueError(f"it holds {', '.join(archive.files)}, not {key!r}")
            _check_header(archive.zip, key)
            array = archive[key]
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"{path}: no images to read: {error}.") from error
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(f"{path}: `{key}` must be n h w or n c h w, got {array.shape}.")
    pixels = checked(array, f"{path}: `{key}`")
    if array.ndim == 3:
        return pixels[:, None]
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1)) if channels_last else pixels


def header(file: BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in numpy's format, from its header alone."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _check_header(archive: zipfile.ZipFile, key: str) -> None:
    """Refuse an array that is too large, or larger than its entry in the archive."""
    name = key if key in archive.namelist() else f"{key}.npy"
    with archive.open(name) as file:
        shape, dtype = header(file)
        check_size(repr(key), shape)
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if promised != archive.getinfo(name).file_size - file.tell():
            raise ValueError(f"the header of {key!r} promises {promised} bytes, it has others")
