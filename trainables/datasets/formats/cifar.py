"""CIFAR-10 and CIFAR-100 as their authors distribute them: folder or tar, binary or python.

Binary: records of one label byte (CIFAR-100: coarse, then fine) and 3 x 32 x 32 bytes, channels
first. Python: pickled dictionaries with `data` (n x 3072) and `labels` or `fine_labels`. Classes
of CIFAR-100 are the fine ones. Pickles go through `restricted`, which runs nothing.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8

from trainables.datasets.formats.item import Choices, Item
from trainables.datasets.formats.restricted import loads
from trainables.datasets.members import Member

SHAPE = (3, 32, 32)
SIZE = 3072
TEN = re.compile(r"^(data_batch_\d|test_batch)(\.bin)?$")
HUNDRED = ("train", "test")


def matches(names: list[str]) -> bool:
    """Whether their last parts are those of a CIFAR folder."""
    last = {PurePosixPath(name).name for name in names}
    hundred = {"train", "test", "meta"} <= last or {"train.bin", "test.bin"} <= last
    return hundred or any(TEN.match(name) for name in last)


def read(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """The images of every batch; `test_batch` or `test` is the official test part."""
    for member in found:
        name = PurePosixPath(member.name).name
        base = name.removesuffix(".bin")
        if not TEN.match(name) and base not in HUNDRED:
            continue
        parse = _binary if name.endswith(".bin") else _pickled
        images, labels = parse(member.read(), member.name, base in HUNDRED)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield Item((member.name, i), image, int(label), test=base.startswith("test"))


def _binary(
    data: bytes, origin: str, hundred: bool
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], np.ndarray]:
    record = SIZE + 1 + hundred
    if not data or len(data) % record:
        raise ValueError(f"{origin}: {len(data)} bytes, not a whole number of {record}.")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return _images(rows[:, -SIZE:]), rows[:, int(hundred)]


def _pickled(
    data: bytes, origin: str, hundred: bool
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], list[int]]:
    found = loads(data, origin)
    key = "fine_labels" if hundred else "labels"
    if not isinstance(found, dict):
        raise ValueError(f"{origin}: a pickled dictionary was expected.")
    named = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in found.items()}
    pixels, labels = named.get("data"), named.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{origin}: 'data' must be an array of bytes with two dimensions.")
    fits = isinstance(labels, list) and len(labels) == len(pixels) and pixels.shape[1] == SIZE
    if not fits or not all(type(label) is int and label >= 0 for label in labels):
        raise ValueError(f"{origin}: {key!r} must be a class for each of the rows of {SIZE}.")
    return _images(pixels), labels


def _images(rows: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    return np.moveaxis(rows.reshape(-1, *SHAPE), 1, -1)
