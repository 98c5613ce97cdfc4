"""Atomic files on a local disk or an object store, through pyarrow.

A file is either absent or complete: locally it is written under a temporary name, synced and
renamed; on an object store the upload becomes visible when it is closed. Presence is completion.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow import fs

TEMPORARY = ".tmp-"
READERS = 32
"""Files that are read from an object store at a time."""


class Busy(RuntimeError):
    """Another live driver holds the folder."""


class Files:
    """The files below one folder, addressed by relative paths with forward slashes."""

    def __init__(self, uri: str) -> None:
        if "://" in uri:
            self.system, self.base = fs.FileSystem.from_uri(uri)
        else:
            self.system, self.base = fs.LocalFileSystem(), os.path.abspath(uri)
        self.base = self.base.rstrip("/")
        self.uri = uri

    @property
    def is_local(self) -> bool:
        """Whether the folder lies on a disk of this machine (or one mounted here)."""
        return isinstance(self.system, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file; refuses names that would leave the folder."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} leaves the folder {self.base}")
        return f"{self.base}/{name}" if name else self.base

    def read(self, name: str) -> bytes | None:
        """The content, or None where there is no such file."""
        try:
            with self.system.open_input_file(self.path(name)) as file:
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

    def read_json(self, name: str) -> dict | None:
        """The JSON object in a file, or None where there is none."""
        data = self.read(name)
        return None if data is None else json.loads(data)

    def exists(self, name: str) -> bool:
        """Whether the file (or folder) is there."""
        return self.system.get_file_info(self.path(name)).type != fs.FileType.NotFound

    def modified(self, name: str) -> float | None:
        """Time of the last write in seconds since the epoch, or None."""
        return (
            self.system.get_file_info(self.path(name)).mtime_ns / 1e9
            if self.exists(name)
            else None
        )

    def free(self) -> int | None:
        """Bytes that are free where the folder lies (or will lie); None on an object store."""
        if not self.is_local:
            return None
        place = Path(self.base)
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def listing(self, name: str) -> list[str]:
        """Relative paths of all complete files below a folder."""
        selector = fs.FileSelector(self.path(name), recursive=True, allow_not_found=True)
        skip = len(self.base) + 1
        return [
            info.path[skip:]
            for info in self.system.get_file_info(selector)
            if info.type == fs.FileType.File and TEMPORARY not in info.base_name
        ]

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole; after return it survives a crash of the machine."""
        path = self.path(name)
        if not self.is_local:
            with self.system.open_output_stream(path) as file:
                file.write(data)
            return
        folder = os.path.dirname(path)
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
        _sync_folder(folder)

    def write_json(self, name: str, value: dict) -> None:
        """Replace a JSON file as a whole."""
        self.write(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.system.delete_file(self.path(name))

    def sweep_temporaries(self, older_than: float = 3600) -> None:
        """Remove what killed writers left behind (local disks only)."""
        if not self.is_local or not os.path.isdir(self.base):
            return
        for path in Path(self.base).rglob(f"{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and time.time() - path.stat().st_mtime > older_than:
                    path.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder as its only driver; released by the system when the process dies.

        Raises:
            Busy: another driver lives; its host, process and start are named.
        """
        if not self.is_local:
            yield
            return
        os.makedirs(self.base, exist_ok=True)
        with open(self.path(".lock"), "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Busy(f"{self.base} is being run by another driver: {file.read()}") from None
            file.truncate(0)
            file.write(
                f"host {socket.gethostname()}, pid {os.getpid()},"
                f" started {time.strftime('%Y-%m-%d %H:%M:%S')}"
            )
            file.flush()
            yield


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
