"""Processed images on disk, as bytes n c h w that every process of a machine maps read-only.

Under `folder()`: `images/<content>/` holds train.npy, and test.npy and labels.npy where there
are such; <content> is the digest of the bytes, the labels and the preprocessing. `by_source/`
says which content the files of given sizes and times make, so that they are not read again.
Both are written under another name and renamed: a builder that dies leaves nothing that counts,
and two that build the same at once both succeed, the second one's copy being thrown away.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trainables.datasets.formats.item import UNREADABLE, Item, Labels
from trainables.datasets.images import Images
from trainables.datasets.preprocess import Preprocessing

VERSION = 2
"""Raised when the same files would give other bytes."""
RESERVE = 1 << 29
"""Bytes of disk that a build leaves free: what a hostile archive unpacks to has no other end."""
STALE_SECONDS = 86400.0
BLOCK = 1024


def folder() -> Path:
    """$DIFFPHASE_CACHE, else diffphase in $XDG_CACHE_HOME, else ~/.cache/diffphase."""
    if given := os.environ.get("DIFFPHASE_CACHE"):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "diffphase"


def images(
    sources: tuple[Path, ...],
    how: Mapping[str, Any],
    items: Callable[[], Iterable[Item | Labels]],
    prepare: Preprocessing,
) -> Images:
    """The images that `items()` yields, prepared, from the cache if these files were read before.

    `how` are the options that `items` depends on beside the files. Raises ValueError if there is
    no image, or one does not fit the options or the first one; OSError if the disk fills up.
    """
    sources = tuple(path.resolve() for path in sources)
    key = _key(sources, {**how, **prepare.options()})
    pointer = folder() / "by_source" / f"{key}.json"
    try:
        content = json.loads(pointer.read_text())["content"]
    except (OSError, ValueError, KeyError):
        content = None
    found = _open(content, sources) if content else None
    if found is None:
        content = _build(items(), prepare)
        write_json(pointer, {"content": content, "sources": [str(path) for path in sources]})
        found = _open(content, sources)
    if found is None:
        raise OSError(f"{folder()}: the images that were just written there cannot be read.")
    return found


def write_json(path: Path, value: object) -> None:
    """A small file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write under, which then takes its place; nothing is left if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary())
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary() -> str:
    return f"tmp-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


def _key(sources: tuple[Path, ...], options: Mapping[str, Any]) -> str:
    stamps = [(str(path), (s := path.stat()).st_size, s.st_mtime_ns) for path in sources]
    text = json.dumps([VERSION, stamps, options], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _open(content: str, sources: tuple[Path, ...]) -> Images | None:
    """The images of one folder, mapped; None if it is missing or damaged."""
    where = folder() / "images" / content
    try:
        arrays = {
            # A plain view of the mapping: numpy's own class for it would be copied when pickled.
            file.stem: np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
            for file in sorted(where.glob("*.npy"))
        }
        return Images(
            arrays["train"],
            arrays.get("test"),
            labels=None if "labels" not in arrays else np.array(arrays["labels"]),
            sources=sources,
            prepared=content,
        )
    except (OSError, ValueError, EOFError, KeyError):
        return None


@dataclass
class _Part:
    """The images of one part, on their way to one file."""

    path: Path
    file: BufferedWriter | None = None
    keys: list[tuple[str, int]] = field(default_factory=list)
    labels: list[int | str | None] = field(default_factory=list)
    shape: tuple[int, ...] = ()

    def add(self, item: Item, pixels: UInt8[np.ndarray, "c h w"]) -> None:
        if self.file is None:
            self.shape, self.file = pixels.shape, self.path.open("wb+")
            self._header()
        if pixels.shape != self.shape:
            (c, h, w), (c0, h0, w0) = pixels.shape, self.shape
            raise ValueError(
                f"{item.key[0]} has {w} x {h} pixels and {c} channels, but {self.keys[0][0]} has "
                f"{w0} x {h0} and {c0}: set `crop` and `resolution`, or `channels`."
            )
        if len(self.keys) % BLOCK == 0 and shutil.disk_usage(self.path.parent).free < RESERVE:
            raise OSError(f"{folder()}: less than {RESERVE >> 20} MB of disk are left there.")
        self.file.write(pixels.tobytes())
        self.keys.append(item.key)
        self.labels.append(item.label)

    def _header(self) -> None:
        # numpy leaves room for the first axis to grow, so that the header can be written again.
        shape = (len(self.keys), *self.shape)
        described = {"descr": "|u1", "fortran_order": False, "shape": shape}
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, described)

    def close(self) -> None:
        """Complete the header, and order the images by their keys."""
        if self.file is None:
            return
        self._header()
        self.file.close()
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        if order == list(range(len(order))):
            return
        images = np.load(self.path, mmap_mode="r")
        ordered = self.path.with_suffix(".ordered")
        out = np.lib.format.open_memmap(ordered, "w+", np.uint8, images.shape)
        for start in range(0, len(order), BLOCK):
            out[start : start + BLOCK] = images[order[start : start + BLOCK]]
        out.flush()
        ordered.replace(self.path)
        self.keys = [self.keys[i] for i in order]
        self.labels = [self.labels[i] for i in order]


def _build(events: Iterable[Item | Labels], prepare: Preprocessing) -> str:
    """Write the images under their content's digest, which is returned."""
    parent = folder() / "images"
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    work = parent / _temporary()
    work.mkdir()
    train, test = _Part(work / "train.npy"), _Part(work / "test.npy")
    try:
        listed: Mapping[str, int] = {}
        for event in events:
            if isinstance(event, Labels):
                listed = event.by_name
                continue
            try:
                pixels = prepare(event.image)
            except UNREADABLE as error:
                raise ValueError(f"{event.key[0] or 'images'}: {error}.") from error
            (test if event.test else train).add(event, pixels)
        train.close()
        test.close()
        if not train.keys:
            raise ValueError("no training image was found")
        labels = _classes(train, listed)
        if labels is not None:
            np.save(work / "labels.npy", labels)
        return _publish(work, prepare)
    finally:
        for part in (train, test):
            if part.file is not None:
                part.file.close()
        shutil.rmtree(work, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """What builders left that were killed."""
    for left in parent.glob("tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # its builder has just finished
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _classes(part: _Part, listed: Mapping[str, int]) -> Int64[np.ndarray, " n"] | None:
    """Whole numbers for all images; None where some have none or all are of one class."""
    labels = [listed.get(name) for name, _ in part.keys] if listed else part.labels
    if any(label is None for label in labels) or len(set(labels)) < 2:
        return None
    if isinstance(labels[0], str):
        numbers = {name: i for i, name in enumerate(sorted(set(labels)))}
        labels = [numbers[label] for label in labels]
    return np.array(labels, dtype=np.int64)


def _publish(work: Path, prepare: Preprocessing) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(prepare.options(), sort_keys=True).encode())
    for file in sorted(work.glob("*.npy")):
        array = np.load(file, mmap_mode="r")
        digest.update(f"{file.stem} {array.dtype.str} {array.shape}".encode())
        for start in range(0, len(array), BLOCK):
            digest.update(np.ascontiguousarray(array[start : start + BLOCK]).data)
        with file.open("rb+") as written:
            os.fsync(written.fileno())
    content = digest.hexdigest()
    target = work.parent / content
    if target.exists() and _open(content, ()) is None:
        shutil.rmtree(target)
    try:
        work.rename(target)
    except OSError:
        if _open(content, ()) is None:  # else another builder was first, with the same bytes
            raise
    return content
