"""Image files below a folder or in a zip or tar archive, EDM's zip among them.

Classes, the first of these that there is: `labels` of a `dataset.json`, pairs of a name and a
whole number as EDM's dataset_tool writes them; else the folder of each image, in alphabetical
order, unless all lie in one or the folders are EDM's numbered ones. Top folders `train` and
`test` are the parts, if there are no others.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from trainables.datasets.formats.item import SUFFIXES, Choices, Item, Labels, decode
from trainables.datasets.members import Member

NUMBERED = re.compile(r"^\d{5}/img\d{8}\.\w+$")


def matches(names: list[str]) -> bool:
    """Whether there is an image file among them."""
    return any(_is_image(name) for name in names)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read(found: Iterable[Member], names: list[str], choices: Choices) -> Iterator[Item | Labels]:
    """Every image file, and the labels of `dataset.json`."""
    images = [name for name in names if _is_image(name)]
    parts = {name.split("/")[0] if "/" in name else "" for name in images} == {"train", "test"}
    numbered = all(NUMBERED.match(name) for name in images)
    for member in found:
        if member.name == "dataset.json":
            yield Labels(_labels(member.read(), member.name))
        elif _is_image(member.name):
            test, inner = False, member.name
            if parts:
                part, _, inner = member.name.partition("/")
                test = part == "test"
            folder = None if numbered else str(PurePosixPath(inner).parent)
            yield Item((member.name, 0), decode(member.read(), member.name), folder, test)


def _labels(text: bytes, origin: str) -> dict[str, int]:
    try:
        listed = json.loads(text)["labels"] or []
        labels = {name: label for name, label in listed}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{origin}: wanted 'labels', a list of [name, whole number], or null: {error}."
        ) from error
    for name, label in labels.items():
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            raise ValueError(f"{origin}: the label of {name!r} must be a whole number: {label!r}.")
    return labels
