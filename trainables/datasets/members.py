"""Files by name, in a folder or inside a zip or tar archive, which is never unpacked to disk.

A name is a label that sorts and sorts out; no path is ever built from the name of an archive's
member. What a member holds is read up to the size that its archive states and no further.
"""

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MEMBER_BYTES = 1 << 30
"""Most that one member of an archive may unpack to; a file of a folder is not held whole."""
RATIO = 1100
"""Deflate cannot shrink by more than 1032: a member that claims more lies."""


@dataclass(frozen=True)
class Member:
    """One file: its name relative to the folder or archive, with /, and how to read it."""

    name: str
    read: Callable[[], bytes]
    path: Path | None = None
    """Where it lies on disk; None in an archive."""

    @property
    def suffix(self) -> str:
        """The last suffix in lower case, without that of gzip."""
        name = self.name.lower().removesuffix(".gz")
        return PurePosixPath(name).suffix

    @property
    def stem(self) -> str:
        """The name without folders and without that of gzip."""
        return PurePosixPath(self.name.removesuffix(".gz")).name


def is_archive(path: Path) -> bool:
    """Whether `path` is a zip or tar archive, by its content."""
    return path.is_file() and path.suffix != ".npz" and (_is_zip(path) or _is_tar(path))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\3\4", b"PK\5\6")


def _is_tar(path: Path) -> bool:
    # By name first: any gzipped file would have to be unpacked to be told from a tar.
    name = path.name.lower()
    return name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def members(path: Path) -> Iterator[Member]:
    """The files at `path`: below a folder, in a zip or tar archive, or the one file itself.

    A folder's and a zip's come in the order of their names, a tar's as they lie in it, and each
    must be read before the next is asked for. Hidden files and those of macOS' archiver are left
    out. Raises ValueError naming the archive if it is broken, holds a name that is absolute or
    goes up, twice the same name, or a member that unpacks to more than it may.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if path.is_dir():
        found = _folder(path)
    elif not is_archive(path):
        found = iter([Member(path.name, path.read_bytes, path)])
    else:
        found = _unique(_zip(path) if _is_zip(path) else _tar(path), path)
    return (member for member in found if not _hidden(member.name))


def files(path: Path) -> tuple[Path, ...]:
    """The files on disk that `members` reads."""
    return tuple(m.path for m in members(path) if m.path) if path.is_dir() else (path,)


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _folder(path: Path) -> Iterator[Member]:
    found = (file for file in path.rglob("*") if file.is_file())
    for file in sorted(found, key=lambda file: file.relative_to(path).as_posix()):
        yield Member(file.relative_to(path).as_posix(), file.read_bytes, file)


# What the readers of archives raise for a damaged one.
UNREADABLE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, OSError,
    EOFError, LookupError, UnicodeError, OverflowError,
)  # fmt: skip


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"{path}: damaged archive ({error}).") from error
    except (RuntimeError, NotImplementedError) as error:  # it wants a password, or another method
        raise ValueError(f"{path}: {error}.") from error


def _zip(path: Path) -> Iterator[Member]:
    with _named(path), zipfile.ZipFile(path) as archive:
        listed = [info for info in archive.infolist() if not info.is_dir()]
        for info in sorted(listed, key=lambda info: info.filename):
            _check(info.filename, info.file_size, path)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{path}: member {info.filename!r} is not stored or deflated.")
            if info.file_size > RATIO * max(info.compress_size, 1):
                raise ValueError(
                    f"{path}: member {info.filename!r} claims to unpack {info.compress_size} to "
                    f"{info.file_size} bytes, more than deflate can do."
                )

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with _named(path), archive.open(info) as file:
                    return _exactly(file, info.file_size, info.filename, path)

            yield Member(info.filename, read)


def _tar(path: Path) -> Iterator[Member]:
    with _named(path), tarfile.open(path, "r|*") as archive:
        for info in archive:
            if not info.isfile():  # links and devices are never followed, folders hold nothing
                continue
            name = info.name.removeprefix("./")
            _check(name, info.size, path)

            def read(info: tarfile.TarInfo = info, name: str = name) -> bytes:
                with _named(path):
                    return _exactly(archive.extractfile(info), info.size, name, path)

            yield Member(name, read)


def _exactly(file: io.BufferedIOBase, size: int, name: str, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size or file.read(1):
        raise ValueError(f"{path}: member {name!r} does not hold the {size} bytes it claims.")
    return data


def _check(name: str, size: int, path: Path) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or name[1:2] == ":":
        raise ValueError(f"{path}: member {name!r} has a name that leads out of the archive.")
    if size > MEMBER_BYTES:
        raise ValueError(
            f"{path}: member {name!r} unpacks to {size} bytes, more than the {MEMBER_BYTES} "
            "that one file of an archive may have."
        )


def _unique(found: Iterator[Member], path: Path) -> Iterator[Member]:
    seen = set()
    for member in found:
        if member.name in seen:
            raise ValueError(f"{path}: member {member.name!r} is there twice.")
        seen.add(member.name)
        yield member
