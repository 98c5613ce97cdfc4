"""Atomic files on a local disk or an object store, through pyarrow.

A file is either absent or complete: locally it is written under a temporary name, synced and
renamed; on an object store the upload becomes visible when it is closed. Presence is completion.
docs/store.md says what of it survives which failure.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyarrow import NativeFile, fs
from pydantic import TypeAdapter

from engine.bundles import Bundles
from engine.lock import hold
from engine.spec import SpecError

TEMPORARY = ".tmp-"
OLD = f"{TEMPORARY}old-"
"""Before the name of a folder that is being replaced; whoever replaces it next removes it."""
READERS = 32
"""Files that are read from an object store at a time."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Of bytes or of files: both end a write."""
PATIENCE = 60.0
"""Seconds that an object store may be silent."""
LITTLE = 2**20
"""Bytes of free space on a disk below which it is full."""


class Full(OSError):
    """No space is left in the store: neither waiting nor trying elsewhere helps."""


def join(place: str, name: str) -> str:
    """`name` below a folder or URI, whose query stays at the end.

    >>> join("s3://bucket/sweeps?scheme=http", "quickstart")
    's3://bucket/sweeps/quickstart?scheme=http'
    """
    folder, mark, query = _parts(place)
    return f"{folder.rstrip('/')}/{name}{mark}{query}"


def split(place: str) -> tuple[str, str]:
    """What `join` joined: the folder or URI above, and the last name.

    >>> split("s3://bucket/sweeps/quickstart?scheme=http")
    ('s3://bucket/sweeps?scheme=http', 'quickstart')
    >>> split("quickstart/")
    ('.', 'quickstart')
    """
    folder, mark, query = _parts(place)
    above, slash, name = folder.rstrip("/").rpartition("/")
    return f"{above or slash or '.'}{mark}{query}", name


def _from_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a URI; of S3, one that a busy server does not put off.

    By default it gives up after 3 s without a byte, and asks three times for each small file that
    it writes (`allow_delayed_open`: once), where a kill may leave parts behind.
    """
    system, base = fs.FileSystem.from_uri(uri)
    if isinstance(system, fs.S3FileSystem):
        rebuild, (options,) = system.__reduce__()
        waits = {"request_timeout": PATIENCE, "connect_timeout": PATIENCE / 3}
        system = rebuild({**options, **waits, "allow_delayed_open": True})
    return system, base


def _parts(place: str) -> tuple[str, str, str]:
    return place.partition("?") if "://" in place else (place, "", "")


class Files:
    """The files below one folder, addressed by relative paths with forward slashes."""

    def __init__(self, uri: str) -> None:
        if "://" in uri:
            try:
                self.system, self.base = _from_uri(uri)
            except (ValueError, OSError, NotImplementedError) as error:
                raise SpecError(f"storage {uri.partition('?')[0]}: {error}") from error
        else:
            self.system, self.base = fs.LocalFileSystem(), os.path.abspath(uri)
        self.base = self.base.rstrip("/")
        self.uri = uri
        self.bundles = Bundles(self)

    def __reduce__(self) -> tuple:
        return Files, (self.uri,)

    @property
    def is_local(self) -> bool:
        """Whether the folder lies on a disk of this machine (or one mounted here)."""
        return isinstance(self.system, fs.LocalFileSystem)

    @property
    def shown(self) -> str:
        """The folder as people read it: no query, no credentials."""
        scheme = self.uri.partition("://")[0]
        return self.base if self.is_local else f"{scheme}://{self.base}"

    def check(self, *, make: bool = False) -> None:
        """See that an object store answers.

        Args:
            make: make the bucket if it is missing and the URI says allow_bucket_creation.

        Raises:
            SpecError: nothing answers, it refuses, or the bucket to be made may not be.
        """
        if self.is_local:
            return
        bucket = self.base.partition("/")[0]
        try:
            if self.system.get_file_info(bucket).type == fs.FileType.NotFound and make:
                self.system.create_dir(bucket, recursive=False)
        except OSError as error:
            raise SpecError(f"storage {self.shown}: {error}") from error

    def path(self, name: str) -> str:
        """The full path of a file; refuses names that would leave the folder."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} leaves the folder {self.base}")
        return f"{self.base}/{name}" if name else self.base

    def read(self, name: str) -> bytes | None:
        """The content, or None where there is no such file; a loose file wins over a packed one.

        Raises:
            Damaged: a bundle is torn or foreign.
        """
        data = self._again(lambda: self._read(name), OSError)
        return self.bundles.read(name) if data is None else data

    def open(self, name: str) -> NativeFile:
        """An open file, to read parts of it.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.system.open_input_file(self.path(name))

    def _read(self, name: str) -> bytes | None:
        try:
            with self.open(name) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The content of each file, in order; from an object store, several at a time."""
        if self.is_local:
            yield from map(self.read, names)
            return
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self.read, names)

    def _again(self, read: Callable[[], Any], *errors: type[Exception]) -> Any:
        """What `read` gives; from an object store, after an error, once more.

        The size of an object is asked for before its content: one that is replaced in between
        may come short.
        """
        try:
            return read()
        except errors:
            if self.is_local:
                raise
        return read()

    def read_json(self, name: str, parse: Callable[[bytes], Any] = json.loads) -> Any:
        """What `parse` makes of a file, or None where there is none.

        Raises:
            ValueError: the file is torn or foreign.
        """

        def read() -> Any:
            data = self.read(name)
            return None if data is None else parse(data)

        return self._again(read, ValueError)

    def read_record(self, name: str, kind: TypeAdapter) -> Any:
        """What a record (`engine.records`) holds; None where there is none, or none that is whole.

        Whatever is read by this can be made again, so that a torn one is as good as a lost one.
        """
        with contextlib.suppress(ValueError):
            return self.read_json(name, kind.validate_json)
        return None

    def exists(self, name: str) -> bool:
        """Whether the file (or folder) is there."""
        found = self.system.get_file_info(self.path(name)).type != fs.FileType.NotFound
        return found or name in self.bundles.table()

    def modified(self, name: str) -> float | None:
        """Time of the last write in seconds since the epoch, or None."""
        info = self.system.get_file_info(self.path(name))
        if info.type != fs.FileType.NotFound:
            return info.mtime_ns / 1e9
        place = self.bundles.table().get(name)
        return None if place is None else self.modified(place.bundle)

    def free(self) -> int | None:
        """Bytes that are free where the folder lies (or will lie); None on an object store."""
        if not self.is_local:
            return None
        place = Path(self.base)
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def listing(self, name: str) -> list[str]:
        """Relative paths of all complete files below a folder, packed ones too."""
        loose, below = self.loose(name), f"{name}/" if name else ""
        packed = {n for n in self.bundles.table() if n.startswith(below)}
        return [*loose, *sorted(packed - set(loose))]

    def loose(self, name: str) -> list[str]:
        """Relative paths of all complete files below a folder that are no members of bundles."""
        selector = fs.FileSelector(self.path(name), recursive=True, allow_not_found=True)
        skip = len(self.base) + 1
        return [
            info.path[skip:]
            for info in self.system.get_file_info(selector)
            if info.type == fs.FileType.File and TEMPORARY not in info.base_name
        ]

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole; after return it survives a crash of the machine.

        Raises:
            Full: no space is left.
        """
        with self.noticing_full():
            if self.is_local:
                _write_local(self.path(name), data)
                return
            # In a thread: an interrupt between opening and closing would publish half a file.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._upload, self.path(name), data).result()

    def _upload(self, path: str, data: bytes) -> None:
        with self.system.open_output_stream(path) as file:
            file.write(data)

    def upload(self, folder: str, name: str) -> None:
        """Copy the files of a local folder to the folder `name` of an object store."""
        with self.noticing_full():
            fs.copy_files(folder, self.path(name), destination_filesystem=self.system)

    @contextlib.contextmanager
    def noticing_full(self) -> Iterator[None]:
        """Turn whatever says that the store is full into `Full`."""
        try:
            yield
        except Full:
            raise
        except (OSError, RuntimeError) as error:
            if not self._is_full(error):
                raise
            raise Full(
                f"no space left on {self.shown}: free some and run the same command again"
            ) from error

    def _is_full(self, error: Exception) -> bool:
        if isinstance(error, OSError):
            return error.errno in NO_SPACE or "HTTP status 507" in str(error)
        # The netCDF library does not say why it could not write.
        where = self.base if self.is_local and os.path.isdir(self.base) else None
        return where is not None and shutil.disk_usage(where).free < LITTLE

    def write_json(self, name: str, value: dict, indent: int | None = 1) -> None:
        """Replace a JSON file as a whole; without indent json takes its fast encoder."""
        self.write(name, json.dumps(value, indent=indent, sort_keys=True).encode())

    def delete(self, name: str) -> None:
        """Remove a loose file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.system.delete_file(self.path(name))

    def sweep_temporaries(self, older_than: float = 3600) -> None:
        """Remove what killed writers left behind (local disks only)."""
        if not self.is_local or not os.path.isdir(self.base):
            return
        for path in list(Path(self.base).rglob(f"{TEMPORARY}*")):
            with contextlib.suppress(FileNotFoundError):
                times = [found.stat().st_mtime for found in (path, *path.rglob("*"))]
                if time.time() - max(times) < older_than or path.name.startswith(OLD):
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder as its only driver (`engine.lock`)."""
        return hold(self)


def _write_local(path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    made = _missing_above(folder)
    os.makedirs(folder, exist_ok=True)
    unique = f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = os.path.join(folder, unique)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise
    for each in (folder, *made):
        sync(each)


def _missing_above(folder: str) -> list[str]:
    """The folders that get a new entry when `folder` is made."""
    changed = []
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        changed.append(folder)
    return changed


def sync(path: str | Path) -> None:
    """Have a file or the entries of a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
