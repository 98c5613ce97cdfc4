"""Many small files of a store in one, against quotas of files: `packed/<number>.zip`.

A bundle is an uncompressed zip, complete before the loose files that it holds are removed, and
never changed afterwards. A loose file wins over its packed copy, and a later bundle over an
earlier one, so that whatever is written later counts, packed or not.
"""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pyarrow import NativeFile

from engine.records import Damaged

if TYPE_CHECKING:
    from engine.files import Files

FOLDER = "packed"
MEMBERS = 1000
"""Files in a bundle, at most."""
BYTES = 128 * 2**20
"""Bytes of a bundle beyond which no further file is put in: it is made in memory."""
PACKED = re.compile(r"(trials|subsets)/[^/\\]+/(trial\.json|(pieces|log)/[^/\\]+)")
"""What is packed; no other name is taken from a bundle, whoever wrote it."""
LOCAL_HEADER = struct.Struct("<4s22xHH")


class Place(NamedTuple):
    """Where a packed file lies."""

    bundle: str
    start: int
    size: int
    crc: int


class Bundles:
    """The packed files of a folder; each bundle's table is read once a process."""

    def __init__(self, files: "Files") -> None:
        self.files = files
        self.state: int | None = None
        self.places: dict[str, Place] | None = None
        self._opened = lru_cache(maxsize=32)(self._open)

    def table(self) -> dict[str, Place]:
        """Every packed file.

        Raises:
            Damaged: a bundle is torn or foreign.
        """
        state = self._state()
        if self.places is None or state != self.state:
            self.state, self.places = state, {}
            for bundle in self.names():
                self.places.update(self._table_of(bundle))
        return self.places

    def names(self) -> list[str]:
        """The bundles, oldest first."""
        return sorted(n for n in self.files.loose(FOLDER) if n.endswith(".zip"))

    def forget(self) -> None:
        """Read the tables anew."""
        self.places = None

    def read(self, name: str) -> bytes | None:
        """The content of a packed file; None where there is none, or it is damaged."""
        place = self.table().get(name)
        if place is None:
            return None
        file, head = self._opened(place.bundle), LOCAL_HEADER.size + len(name.encode())
        data = file.read_at(head + place.size, place.start)
        if len(data) < head:
            return None
        _, name_size, extra_size = LOCAL_HEADER.unpack_from(data)
        start = LOCAL_HEADER.size + name_size + extra_size
        content = data[start:] if start == head else file.read_at(place.size, place.start + start)
        return content if zlib.crc32(content) == place.crc else None

    def _state(self) -> int | None:
        """Changes with every new bundle: another process may pack what this one reads."""
        try:
            path = self.files.path(FOLDER)
            return os.stat(path).st_mtime_ns if self.files.is_local else None
        except FileNotFoundError:
            return None

    def _open(self, bundle: str) -> NativeFile:
        return self.files.open(bundle)

    def _table_of(self, bundle: str) -> dict[str, Place]:
        def refuse(why: object) -> Damaged:
            return Damaged(
                f"{self.files.shown}/{bundle} is damaged: put a copy of it back, or remove it: a"
                f" run computes what it held again\n{why}"
            )

        found = {}
        try:
            with self.files.open(bundle) as file, zipfile.ZipFile(file) as archive:
                length = file.size()
                for member in archive.infolist():
                    stored = member.compress_type == zipfile.ZIP_STORED
                    whole = stored and 0 <= member.header_offset < length - member.file_size
                    if not PACKED.fullmatch(member.filename) or ".." in member.filename.split("/"):
                        raise refuse(f"{member.filename!r} is no file of a store")
                    if not whole or member.flag_bits & 1:
                        raise refuse(f"{member.filename!r} is compressed, or lies about its place")
                    place = Place(bundle, member.header_offset, member.file_size, member.CRC)
                    found[member.filename] = place
        except (zipfile.BadZipFile, struct.error, ValueError, OSError, NotImplementedError) as e:
            raise e if isinstance(e, Damaged | FileNotFoundError) else refuse(e) from e
        return found


def pack(files: "Files", names: Iterable[str]) -> int:
    """Move the named files into new bundles; returns how many were moved.

    Safe to be killed at any point: a loose file is removed when the bundle that holds it is
    complete and on the disk.
    """
    bundles = files.bundles
    number = max((int(n.rpartition("/")[2].split(".")[0]) for n in bundles.names()), default=0)
    moved = 0
    for batch in _batches(files, names):
        # What a killed `pack` had packed and not removed is packed already.
        new = {name: data for name, data in batch.items() if bundles.read(name) != data}
        if new:
            number += 1
            files.write(f"{FOLDER}/{number:06d}.zip", _zip(new))
            bundles.forget()
        for name in batch:
            files.delete(name)
        moved += len(batch)
    return moved


def _batches(files: "Files", names: Iterable[str]) -> Iterator[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for name in names:
        data = files.read(name)
        if data is None:
            continue
        if batch and (len(batch) == MEMBERS or size + len(data) > BYTES):
            yield batch
            batch, size = {}, 0
        batch[name] = data
        size += len(data)
    if batch:
        yield batch


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of no date: equal content, equal bytes
    return buffer.getvalue()
