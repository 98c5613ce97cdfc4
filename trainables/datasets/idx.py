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
from jaxtyping import UInt8

from trainables.datasets.images import Images, from_bytes
from trainables.datasets.limits import check_size

CHUNK = 1 << 22


def read(path: str | Path) -> UInt8[np.ndarray, "n c h w"]:
    """The images of an IDX file of bytes in 3 (n h w) or 4 (n c h w) dimensions.

    Reads at most one byte more than the header promises. Raises ValueError naming the file if
    it is no such file, holds no image, is shorter or longer than its header says, or too large.
    """
    path = Path(path)
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            return _parse(file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}).") from error


def _parse(file: BufferedIOBase, path: Path) -> UInt8[np.ndarray, "n c h w"]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or magic[3] not in (3, 4):
        raise ValueError(
            f"{path}: not an IDX file of images: it must start with 00 00 08 03 (or 04), "
            f"got {magic.hex(' ') or 'nothing'}."
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"{path}: the IDX header ends early.")
    shape = struct.unpack(f">{magic[3]}I", header)
    size = math.prod(shape)
    if size == 0:
        raise ValueError(f"{path}: the IDX header promises no pixels: dimensions {shape}.")
    check_size(path, shape)
    values = _read_at_most(file, size + 1)
    if len(values) != size:
        found = f"{len(values)} bytes" if len(values) < size else "more"
        raise ValueError(f"{path}: the header promises {shape} = {size} bytes, found {found}.")
    array = np.frombuffer(values, dtype=np.uint8).reshape(shape)
    return array[:, None] if array.ndim == 3 else array


def _read_at_most(file: BufferedIOBase, size: int) -> bytes:
    # In chunks: a single read(size) would reserve what a lying header asks for.
    parts, missing = [], size
    while missing and (part := file.read(min(missing, CHUNK))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def load(path: str | Path, test_path: str | Path | None = None) -> Images:
    """The images of an IDX file, bytes to [-1, 1]; `test_path` holds the official test part."""
    points = from_bytes(read(path))
    if test_path is None:
        return Images(points, sources=(Path(path),))
    return Images(points, from_bytes(read(test_path)), sources=(Path(path), Path(test_path)))
