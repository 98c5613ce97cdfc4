"""Images from files of the user's, in any format of `formats`, prepared and cached as bytes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainables.datasets import cache, members
from trainables.datasets.formats import FORMATS
from trainables.datasets.formats.item import Choices, Item, Labels
from trainables.datasets.images import Images
from trainables.datasets.preprocess import Preprocessing
from trainables.registry import lookup, require


def load(
    path: str | Path,
    test_path: str | Path | None = None,
    format: str | None = None,
    channels: int | None = None,
    crop: str | int | None = None,
    resolution: int | None = None,
    filter: str = "box",
    key: str | None = None,
    label_key: str | None = None,
    layout: str | None = None,
) -> Images:
    """Images of a folder, file or archive: EDM zip, png, npz, IDX, CIFAR, SVHN, STL10, parquet.

    The `format` is recognised by the names of the files, or set. `channels`, `crop`, `resolution`
    and `filter` are those of `preprocess`; `key`, `label_key` and `layout` choose what is read of
    an npz or parquet file. The official test part is the format's own, or all of `test_path`.
    Images are in the order of their names, whatever holds them. Raises FileNotFoundError for a
    missing path, ValueError naming the file for what is broken, unfit or not what it claims.
    """
    prepare = Preprocessing(channels, crop, resolution, filter)
    prepare.check("files")
    require(layout in (None, "nchw", "nhwc"), "files", "layout", layout, "nchw or nhwc")
    if format is not None:
        lookup("format", format, FORMATS)
    choices = Choices(key, label_key, layout)
    paths = [Path(path), *([] if test_path is None else [Path(test_path)])]

    def items() -> Iterator[Item | Labels]:
        yield from _read(paths[0], format, choices, test=None if test_path is None else False)
        for one in paths[1:]:
            yield from _read(one, format, choices, test=True)

    how = {"format": format, "choices": [key, label_key, layout], "parts": len(paths)}
    sources = tuple(file for one in paths for file in members.files(one))
    try:
        return cache.images(sources, how, items, prepare)
    except ValueError as error:
        raise ValueError(f"files: {path}: {error}") from error


def _read(
    path: Path, asked: str | None, choices: Choices, test: bool | None
) -> Iterator[Item | Labels]:
    """The images at `path`, all of the part that `test` says, if it says."""
    names = [member.name for member in members.members(path)]
    form = FORMATS[_format(path, names, asked)]
    for item in form.read(members.members(path), names, choices):
        if isinstance(item, Item):
            yield item if test is None else replace(item, test=test)
        elif not test:
            yield item


def _format(path: Path, names: list[str], asked: str | None) -> str:
    """The name of the format: the first whose files are there, unless it is given."""
    found = [name for name, form in FORMATS.items() if asked == name or form.matches(names)]
    if not found:
        raise ValueError(
            f"no format is recognised by the names of the {len(names)} files at {path}: set "
            f"`format` to {', '.join(FORMATS)}"
        )
    name = asked or found[0]
    if members.is_archive(path) and not FORMATS[name].archived:
        raise ValueError(f"{name} is not read from inside an archive: unpack {path}")
    return name
