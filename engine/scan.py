"""What lies in the folders of a sweep's trials and subsets, and which of them have changed.

A folder's *signature* changes with anything that is written into it. On a local disk it is made
of the times of its subfolders (every write of the engine is a rename, which they note) and of time
and size of each piece, so that damage done in place shows as well; on an object store, of time
and size of every file in one listing. What was found in a folder holds as long as its signature.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from pyarrow import fs

from engine.bundles import Place
from engine.files import TEMPORARY, Files

ROOTS = ("trials", "subsets")
ALL = "packed"
"""The signature of a folder of which nothing is loose, before that of its bundle."""
RACY_SECONDS = 2.0
"""A folder younger than this has no signature: a write in the same tick might not change it."""


@dataclass
class Stored:
    """What lies in one trial's or subset's folder, by listing alone."""

    signature: str = ""
    """Of its content; empty where it is too young to tell a later write."""
    listed: bool = False
    """Whether the names below are known: not where the signature is the one known before."""
    snapshots: set[str] = field(default_factory=set)
    pieces: set[str] = field(default_factory=set)
    receipts: set[str] = field(default_factory=set)
    has_record: bool = False

    def add(self, rest: list[str]) -> None:
        """Note a file by its path below the folder."""
        if rest == ["trial.json"]:
            self.has_record = True
        elif len(rest) == 2 and TEMPORARY not in rest[1]:
            kinds = {"snapshots": self.snapshots, "pieces": self.pieces, "log": self.receipts}
            if rest[0] in kinds:
                kinds[rest[0]].add(rest[1].rsplit(".", 1)[0])


def scan(files: Files, known: Mapping[str, str]) -> dict[str, Stored]:
    """What is stored, by folder (`trials/<address>` or `subsets/<address>`).

    Args:
        known: signatures by folder; those that still hold are not listed again.
    """
    packed: dict[str, list[list[str]]] = {}
    places: dict[str, list[tuple[str, Place]]] = {}
    for name, place in files.bundles.table().items():
        root, address, *rest = name.split("/")
        packed.setdefault(f"{root}/{address}", []).append(rest)
        places.setdefault(f"{root}/{address}", []).append((name, place))
    # The signature of a folder with packed files names what is packed: without it, it is another.
    tags = {
        p: "+" + blake2b(repr(sorted(some)).encode(), digest_size=12).hexdigest()
        for p, some in places.items()
    }
    loose = {
        p: s.removesuffix(tags[p]) if p in tags and tags[p] in s else s for p, s in known.items()
    }
    found = _scan_local(files, loose) if files.is_local else _scan_listing(files, loose)
    for place, members in packed.items():
        if place not in found:  # all of it is packed; the tag has the sums of its files
            kept = known.get(place) == ALL + tags[place]
            found[place] = Stored(ALL, listed=not kept)
        stored = found[place]
        if stored.listed:
            for rest in members:
                stored.add(rest)
        stored.signature += tags[place] if stored.signature else ""
    return found


def _scan_local(files: Files, known: Mapping[str, str]) -> dict[str, Stored]:
    found = {}
    for root in ROOTS:
        for entry in _entries(files.path(root)):
            if entry.is_dir():
                place = f"{root}/{entry.name}"
                stored = found[place] = Stored(_signature_of_folder(entry.path))
                stored.listed = not stored.signature or stored.signature != known.get(place)
                if stored.listed:
                    for rest in _walk(entry.path):
                        stored.add(rest)
    return found


def _walk(folder: str) -> Iterator[list[str]]:
    """Files of a folder and of its subfolders, by their path below it."""
    for entry in _entries(folder):
        if entry.is_dir():
            yield from ([entry.name, inner.name] for inner in _entries(entry.path))
        else:
            yield [entry.name]


def _entries(folder: str) -> list[os.DirEntry]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _signature_of_folder(folder: str) -> str:
    times = [os.stat(folder).st_mtime_ns]
    for inner in ("log", "snapshots"):
        try:
            times.append(os.stat(f"{folder}/{inner}").st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    pieces = []
    for entry in _entries(f"{folder}/pieces"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile: its folder is young
            state = entry.stat()
            pieces.append((entry.name, state.st_mtime_ns, state.st_size))
    return _signature([*pieces, ("", max(times), 0)], times)


def _scan_listing(files: Files, known: Mapping[str, str]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    contents: dict[str, list[tuple[str, int, int]]] = {}
    for root in ROOTS:
        selector = fs.FileSelector(files.path(root), recursive=True, allow_not_found=True)
        for info in files.system.get_file_info(selector):
            if info.type == fs.FileType.File:
                _, address, *rest = info.path[len(files.base) + 1 :].split("/")
                place = f"{root}/{address}"
                found.setdefault(place, Stored(listed=True)).add(rest)
                contents.setdefault(place, []).append(
                    ("/".join(rest), info.mtime_ns or 0, info.size)
                )
    for place, stored in found.items():
        stored.signature = _signature(contents[place])
        stored.listed = not stored.signature or stored.signature != known.get(place)
    return found


def _signature(entries: list[tuple[str, int, int]], more: object = None) -> str:
    youngest = max(time_ns for _, time_ns, _ in entries)
    if youngest > time.time_ns() - RACY_SECONDS * 1e9:
        return ""
    return blake2b(repr((sorted(entries), more)).encode(), digest_size=12).hexdigest()
