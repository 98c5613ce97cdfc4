"""The formats of data on disk by name: which files are theirs, and how to read them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from trainables.datasets.formats import arrays, cifar, parquet, pictures, roots
from trainables.datasets.formats.item import Choices, Item, Labels
from trainables.datasets.members import Member


@dataclass(frozen=True)
class Format:
    """How one format is recognised and read."""

    matches: Callable[[list[str]], bool]
    """Whether files of these names are in it."""
    read: Callable[[Iterable[Member], list[str], Choices], Iterator[Item | Labels]]
    """Its images, from files that come one by one, and all their names."""
    archived: bool = False
    """Whether it can be read from inside an archive, file by file."""


FORMATS = {
    "cifar": Format(cifar.matches, cifar.read, archived=True),
    "svhn": Format(roots.matches_svhn, roots.read_svhn),
    "stl10": Format(roots.matches_stl, roots.read_stl),
    "idx": Format(roots.matches_idx, roots.read_idx),
    "parquet": Format(parquet.matches, parquet.read),
    "numpy": Format(arrays.matches, arrays.read),
    "images": Format(pictures.matches, pictures.read, archived=True),
}
