"""Images in IDX files, the format of MNIST and its relatives, plain or gzipped.

Format (LeCun, "THE IDX FILE FORMAT"): two zero bytes, a type byte (8 = unsigned byte), the number
of dimensions, each dimension as a big-endian 32-bit number, then the values in C order.
"""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from trainables.datasets.images import Images
from trainables.datasets.limits import check_size

CHUNK = 1 << 22


def read(path: str | Path) -> UInt8[np.ndarray, "n c h w"]:
    """The images of an IDX file of bytes in 3 (n h w) or 4 (n c h w) dimensions.

    Reads at most one byte more than the header promises. Raises ValueError naming the file if
    it is no such file, holds no image, is shorter or longer than its header says, or too large.
    """
    array = _read(Path(path), "images", (3, 4))
    return array[:, None] if array.ndim == 3 else array


def read_labels(path: str | Path) -> Int64[np.ndarray, " n"]:
    """The classes in an IDX file of bytes in one dimension; errors as for `read`."""
    return _read(Path(path), "labels", (1,)).astype(np.int64)


def _read(path: Path, what: str, dims: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            return _parse(file, path, what, dims)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}).") from error


def _parse(
    file: BufferedIOBase, path: Path, what: str, dims: tuple[int, ...]
) -> UInt8[np.ndarray, "..."]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or magic[3] not in dims:
        raise ValueError(
            f"{path}: not an IDX file of {what}: it must start with 00 00 08 "
            f"{' or '.join(f'{n:02}' for n in dims)}, got {magic.hex(' ') or 'nothing'}."
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"{path}: the IDX header ends early.")
    shape = struct.unpack(f">{magic[3]}I", header)
    size = math.prod(shape)
    if size == 0:
        raise ValueError(f"{path}: the IDX header promises no {what}: dimensions {shape}.")
    check_size(path, shape)
    values = _read_at_most(file, size + 1)
    if len(values) != size:
        found = f"{len(values)} bytes" if len(values) < size else "more"
        raise ValueError(f"{path}: the header promises {shape} = {size} bytes, found {found}.")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _read_at_most(file: BufferedIOBase, size: int) -> bytes:
    # In chunks: a single read(size) would reserve what a lying header asks for.
    parts, missing = [], size
    while missing and (part := file.read(min(missing, CHUNK))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def load(path: str | Path, test_path: str | Path | None = None) -> Images:
    """The images of an IDX file, bytes for [-1, 1]; `test_path` holds the official test part."""
    points = read(path)
    if test_path is None:
        return Images(points, sources=(Path(path),))
    return Images(points, read(test_path), sources=(Path(path), Path(test_path)))
