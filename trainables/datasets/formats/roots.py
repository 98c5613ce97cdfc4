"""Folders as torchvision keeps them: MNIST and its relatives, SVHN, STL10.

MNIST: `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte` (plain or gzipped; the plain one is
taken of two) and their `labels-idx1`, at any depth; all with one prefix, as of EMNIST, whose test
part says `test`. SVHN: `train_32x32.mat`, `test_32x32.mat`, its class 10 being the digit 0.
STL10: `train_X.bin`, `test_X.bin` and `_y`, columns first.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from trainables.datasets import idx
from trainables.datasets.formats.item import Choices, Item
from trainables.datasets.limits import check_size
from trainables.datasets.members import Member

STL = (3, 96, 96)
IDX = re.compile(r"(.*)(train|t10k|test)-images-idx3-ubyte")
Part = tuple[UInt8[np.ndarray, "n h w c"], np.ndarray | None]


def matches_idx(names: list[str]) -> bool:
    """Whether there are MNIST's files, or it is one IDX file."""
    one = len(names) == 1 and PurePosixPath(names[0].removesuffix(".gz")).suffix == ".idx"
    return one or any("-images" in name and "idx3-ubyte" in name for name in names)


def read_idx(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """MNIST's training part, then its test part; or the one file's images."""
    paths = {member.stem.replace(".idx", "-idx"): member.path for member in reversed(list(found))}
    if len(names) == 1:
        (path,) = paths.values()
        yield from _items(_idx(path, None), path, test=False)
        return
    prefixes = sorted({match[1] for match in map(IDX.fullmatch, paths) if match})
    if len(prefixes) != 1:
        raise ValueError(
            "wanted train-images-idx3-ubyte, and t10k- or test-images-idx3-ubyte, with one prefix"
            f" or none; the prefixes are {', '.join(map(repr, prefixes)) or 'of other files'};"
            " `path` and `test_path` may name one file each"
        )
    for part in ("train", "t10k", "test"):
        path = paths.get(f"{prefixes[0]}{part}-images-idx3-ubyte")
        labels = paths.get(f"{prefixes[0]}{part}-labels-idx1-ubyte")
        if path is not None:
            yield from _items(_idx(path, labels), path, test=part != "train")


def _idx(path: Path, labels: Path | None) -> Part:
    return np.moveaxis(idx.read(path), 1, -1), None if labels is None else idx.read_labels(labels)


def matches_svhn(names: list[str]) -> bool:
    """Whether SVHN's training part is there."""
    return any(PurePosixPath(name).name == "train_32x32.mat" for name in names)


def read_svhn(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """SVHN's training part and its test part; its extra part is left out."""
    for part, path in _parts(found, ("train_32x32.mat", "test_32x32.mat")).items():
        yield from _items(_svhn(path), path, test=part.startswith("test"))


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # scipy's reader raises anything on a broken file
        raise ValueError(f"{path}: no SVHN file to read: {error!r}.") from error


def _svhn(path: Path) -> Part:
    from scipy.io import loadmat, whosmat  # slow to import, and needed for this alone

    with _said_of(path):
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        x, y = shapes["X"], shapes["y"]
        if x[:3] != (32, 32, 3) or math.prod(y) != x[-1]:
            raise ValueError(f"X {x} and y {y} are not SVHN's")
    check_size(path, x)
    with _said_of(path):
        found = loadmat(path, variable_names=["X", "y"])
        images, labels = found["X"], found["y"].ravel().astype(np.int64)
    if images.dtype != np.uint8:
        raise ValueError(f"{path}: X must be bytes, got {images.dtype}.")
    return np.moveaxis(images, -1, 0), labels % 10


def matches_stl(names: list[str]) -> bool:
    """Whether STL10's training part is there."""
    return any(PurePosixPath(name).name == "train_X.bin" for name in names)


def read_stl(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """STL10's training part and its test part; its unlabelled images are left out."""
    wanted = ("train_X.bin", "test_X.bin", "train_y.bin", "test_y.bin")
    paths = _parts(found, wanted)
    for name in wanted[:2]:
        if name not in paths:
            continue
        data = np.fromfile(paths[name], dtype=np.uint8)
        if data.size % math.prod(STL):
            raise ValueError(f"{paths[name]}: {data.size} bytes, no whole number of images.")
        images = data.reshape(-1, *STL).transpose(0, 3, 2, 1)
        path = paths.get(name.replace("_X", "_y"))
        labels = None if path is None else np.fromfile(path, dtype=np.uint8).astype(np.int64) - 1
        yield from _items((images, labels), paths[name], test=name.startswith("test"))


def _parts(found: Iterable[Member], names: tuple[str, ...]) -> Mapping[str, Path]:
    return {PurePosixPath(m.name).name: m.path for m in found if m.stem in names and m.path}


def _items(part: Part, path: Path, *, test: bool) -> Iterator[Item]:
    images, labels = part
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{path}: {len(labels)} labels for {len(images)} images.")
    for i, image in enumerate(images):
        yield Item((path.name, i), image, None if labels is None else int(labels[i]), test)
