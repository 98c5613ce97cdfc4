"""Numpy files, mapped or read, never unpickled: an .npy, or arrays of an .npz.

Images: the array `key`, by default the only one of three or four dimensions. Classes: `label_key`,
by default `labels`, where it is there. Four dimensions are n c h w or n h w c, as `layout` "nchw"
or "nhwc" says, by default whichever puts 1 or 3 channels there.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from trainables.datasets.formats.item import Choices, Item
from trainables.datasets.limits import check_size
from trainables.datasets.members import Member
from trainables.datasets.npz import UNREADABLE, header

LAYOUTS = ("nchw", "nhwc")


def matches(names: list[str]) -> bool:
    """Whether it is one numpy file."""
    return len(names) == 1 and PurePosixPath(names[0]).suffix in (".npz", ".npy")


def read(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """The images of the one file."""
    (path,) = (member.path for member in found)
    images, labels = _mapped(path) if path.suffix == ".npy" else _archive(path, choices)
    images = _channels_last(images, choices, path)
    for i, image in enumerate(images):
        yield Item(("", i), image, None if labels is None else int(labels[i]))


def _mapped(path: Path) -> tuple[np.ndarray, None]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    except UNREADABLE as error:
        raise ValueError(f"{path}: no array to read: {error}.") from error


def _archive(path: Path, choices: Choices) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {}
            for info in archive.infolist():
                with archive.open(info) as file:
                    shapes[info.filename.removesuffix(".npy")] = _shape(file, info.file_size)
        key = choices.key or _only([name for name, s in shapes.items() if len(s) in (3, 4)])
        label_key = choices.label_key or ("labels" if "labels" in shapes else None)
        for name in filter(None, (key, label_key)):
            if name not in shapes:
                raise ValueError(f"it holds {', '.join(shapes)}, not {name!r}")
            check_size(repr(name), shapes[name])
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key], _labels(arrays[label_key], shapes[key]) if label_key else None
    except UNREADABLE as error:
        raise ValueError(f"{path}: no images to read: {error}.") from error


def _shape(file: BufferedIOBase, size: int) -> tuple[int, ...]:
    """The shape in the header of one array; numpy would reserve whatever it claims."""
    shape, dtype = header(file)
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed + file.tell() != size:
        raise ValueError(f"a header claims {shape} of {dtype} in {size - file.tell()} bytes")
    return shape


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise ValueError(f"set `key` to one of the arrays of images: {', '.join(names) or 'none'}")
    return names[0]


def _labels(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    whole = labels.dtype.kind in "iu" and labels.shape == shape[:1]
    if not whole or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be {shape[0]} whole numbers from 0")
    return labels


def _channels_last(
    images: np.ndarray, choices: Choices, path: Path
) -> UInt8[np.ndarray, "n h w c"]:
    if images.dtype != np.uint8:
        raise ValueError(
            f"{path}: images must be bytes, got {images.dtype}: the data set `npz` takes floats."
        )
    if images.ndim not in (3, 4) or images.size == 0:
        raise ValueError(f"{path}: images must be n h w, n c h w or n h w c, got {images.shape}.")
    if images.ndim == 3:
        return images[..., None]
    first, last = (images.shape[axis] in (1, 3) for axis in (1, 3))
    layout = choices.layout or {(True, False): "nchw", (False, True): "nhwc"}.get((first, last))
    if layout not in LAYOUTS:
        raise ValueError(
            f"{path}: which axis of {images.shape} has the channels? Set `layout` to "
            f"{' or '.join(LAYOUTS)}."
        )
    return np.moveaxis(images, 1, -1) if layout == "nchw" else images
