"""Parquet files as Hugging Face writes them, one or several shards.

Images: the column `key`, by default `image` or `img`: a struct of `bytes` and `path`, or the
bytes themselves. Classes: `label_key`, by default `label`, `labels` or `fine_label`, where it is
there. Shards whose name, or else whose folder's, begins with test are the official test part;
those of `validation` are that where there are none of `test`, and left out where there are.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainables.datasets.formats.item import Choices, Item, decode
from trainables.datasets.members import Member

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
SPLIT = re.compile(
    r"(?P<train>train)|(?P<test>test)|(?P<validation>(?:validation|valid|val|dev)(?![a-z]))"
)
ROWS = 256
GROUP_BYTES = 1 << 32
"""Most that one row group may unpack to; it is read as a whole."""


def matches(names: list[str]) -> bool:
    """Whether there is a parquet file among them."""
    return any(PurePosixPath(name).suffix == ".parquet" for name in names)


def read(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item]:
    """The images of every shard."""
    import pyarrow as pa  # a fifth of a second that other data sets need not pay
    from pyarrow.parquet import ParquetFile

    tested = any(_part(name) == "test" for name in names if matches([name]))
    for member in found:
        part = _part(member.name)
        if member.suffix != ".parquet" or (tested and part == "validation"):
            continue
        try:
            with ParquetFile(member.path) as file:
                yield from _shard(file, member, choices, part != "train")
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{member.path}: no parquet file to read: {error}.") from error


def _part(name: str) -> str:
    """The split that a shard says it is of: train where it says none."""
    path = PurePosixPath(name)
    said = SPLIT.match(path.name) or SPLIT.match(path.parent.name)
    return said.lastgroup if said else "train"


def _shard(file: "ParquetFile", member: Member, choices: Choices, test: bool) -> Iterator[Item]:
    path, columns = member.path, file.schema_arrow.names
    key = _column(choices.key, IMAGES, columns, path, "key")
    label_key = _column(choices.label_key, LABELS, columns, path, None)
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).total_byte_size
        if size > GROUP_BYTES:
            raise ValueError(f"{path}: a row group unpacks to {size} bytes, over {GROUP_BYTES}.")
    start = 0
    for batch in file.iter_batches(ROWS, columns=[key, *([label_key] if label_key else [])]):
        labels = batch[label_key].to_pylist() if label_key else [None] * len(batch)
        for i, (cell, label) in enumerate(zip(batch[key].to_pylist(), labels, strict=True), start):
            origin = f"{path}: row {i}"
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise ValueError(f"{origin}: column {key!r} holds no image's bytes.")
            if label is not None and (not isinstance(label, int) or label < 0):
                raise ValueError(f"{origin}: {label_key!r} must be a whole number: {label!r}.")
            yield Item((member.name, i), decode(data, origin), label, test)
        start += len(batch)


def _column(
    asked: str | None, usual: tuple[str, ...], columns: list[str], path: Path, needed: str | None
) -> str | None:
    found = [name for name in ((asked,) if asked else usual) if name in columns]
    if not found and (asked or needed):
        raise ValueError(
            f"{path}: no column {asked or ' or '.join(usual)}; set `{needed or 'label_key'}` to "
            f"one of {', '.join(columns)}."
        )
    return found[0] if found else None
