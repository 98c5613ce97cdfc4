"""A data set made ready for a sweep: a pool to train on, held-out points, and an audit.

Held out are points of the official test part, or of a permutation that depends on nothing else,
so every training of a sweep is judged on the same ones. Exact copies of held-out points leave the
pool. Training subsets are nested prefixes of a permutation of the pool; its other end gives the
disjoint twin. With `copies` k a training set of n points is n/k distinct ones, each k times.
Images that came as bytes are kept as bytes and become floats where a subset is taken.
"""

import hashlib
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from trainables.config import LABELS
from trainables.datasets import DATASETS
from trainables.datasets.audit import Near, near
from trainables.datasets.images import Images, Stored, blocks, floats
from trainables.registry import check_options, is_int, lookup, require
from trainables.streams import stream

Batch = Float32[np.ndarray, "_n _c _h _w"]
FEW_PIXELS = 1 << 26
"""Up to here sigma_data is numpy's own sum over all pixels at once, to the last bit; more would
need eight bytes a pixel and are summed in blocks."""
Moments = tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d d"]]


@dataclass(frozen=True)
class Data:
    """Pool and held-out points of one data set, in pixel units, and what is known about them."""

    name: str
    """The data set's name in `DATASETS`."""
    points: Stored
    """The points of the training part, bytes where they came as bytes."""
    rows: Int64[np.ndarray, " p"]
    """Which of the points are the pool that training subsets are taken from."""
    heldout: Float32[np.ndarray, "m c h w"]
    """The points that no training sees."""
    sigma_data: float
    """Standard deviation of all pixels of the pool about their one mean."""
    content_hash: str
    """blake2b of shapes and bytes of pool and held-out points, and of `copies` above 1; for images
    from files the digest of their bytes, labels and preprocessing stands for the pool."""
    n_leaked: int
    """Points taken out of the pool because they equal a held-out point byte by byte."""
    n_duplicates: int
    """Points of the pool that equal an earlier one byte by byte (they stay)."""
    n_constant_pixels: int
    """Pixels with one value all over the pool."""
    near: Near | None = None
    """Near duplicates, searched for where images came from files and are not too many."""
    moments: Moments | None = None
    """Exact mean and covariance of the law, for synthetic data."""
    sources: tuple[Path, ...] = ()
    """The files that were read."""
    copies: int = 1
    """How many times every training point is in its training set."""
    labels: Int64[np.ndarray, " p"] | None = None
    """Class of each point of the pool, where the data set has classes."""
    bases: tuple[Float64[np.ndarray, "d _k"], ...] = ()
    """Orthonormal bases of the subspaces that the classes lie in, where they are known."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, c, h, w = self.points.shape
        return c, h, w

    @property
    def dim(self) -> int:
        """The number of pixels d = c h w."""
        return math.prod(self.shape)

    @property
    def n_pool(self) -> int:
        """The size of the largest training set: the points of the pool, copies counted."""
        return len(self.rows) * self.copies

    @property
    def nbytes(self) -> int:
        """Memory that the points take."""
        return self.points.nbytes + self.heldout.nbytes

    @property
    def pool(self) -> Batch:
        """The whole pool as floats, made anew at each call: `blocks` where it may be large."""
        return floats(self.points[self.rows])

    def blocks(self) -> Iterator[Batch]:
        """The pool as floats, some points at a time."""
        return blocks(self.points, self.rows)

    def subset(self, n: int, draw: int = 0, split: str = "a") -> Batch:
        """`n` points of the pool in the order of permutation `draw`, as a copy.

        Split "a" takes them from the front, "b" from the back: subsets of one split are nested
        prefixes, subsets of two splits are disjoint while their sizes add up to `n_pool` or less.
        Copies count and follow one another: with `copies` k the subset is n/k points, each k
        times. Raises ValueError if the pool is too small, `n` is no multiple of `copies` or the
        split is neither "a" nor "b".
        """
        return floats(self.points[self.rows[self._chosen(n, draw, split)]])

    def _chosen(self, n: int, draw: int, split: str) -> np.ndarray:
        """Where in the pool the points of a training set are."""
        require(split in ("a", "b"), self.name, "split", split, "'a' or 'b'")
        allowed = f"a whole number from 1 to the {self.n_pool} points of the pool"
        require(is_int(n, 1) and n <= self.n_pool, self.name, "n_train", n, allowed)
        whole = f"a multiple of the {self.copies} copies of each point"
        require(n % self.copies == 0, self.name, "n_train", n, whole)
        order = torch.randperm(len(self.rows), generator=stream("permutation", draw)).numpy()
        chosen = (order if split == "a" else order[::-1])[: n // self.copies]
        return np.repeat(chosen, self.copies)

    @property
    def n_classes(self) -> int:
        """The number of classes; 0 where the data set has none."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    @property
    def labels_hash(self) -> str:
        """blake2b of the classes of the pool; empty where the data set has none."""
        if self.labels is None:
            return ""
        digest = hashlib.blake2b(digest_size=16)
        _update(digest, self.labels)
        return digest.hexdigest()

    def subset_labels(
        self, kind: str, n: int, draw: int = 0, split: str = "a"
    ) -> Int64[np.ndarray, " n"]:
        """A label for each point of `subset(n, draw, split)`.

        "class" is that of the data set, "random" one as drawn at random for the point, among as
        many, and "unique" numbers the distinct points (arXiv 2310.02664). Raises ValueError for
        another kind, and for the first two where the data set has no classes.
        """
        require(kind in LABELS[1:], self.name, "labels", kind, "class, random or unique")
        if kind == "unique":
            return np.arange(n) // self.copies
        known = "unique: the data set has no classes"
        require(self.labels is not None, self.name, "labels", kind, known)
        chosen = self._chosen(n, draw, split)
        if kind == "class":
            return self.labels[chosen]
        return np.array([self._random_label(int(i)) for i in chosen])

    def _random_label(self, i: int) -> int:
        generator = stream("data", "label", i)
        return int(torch.randint(self.n_classes, (1,), generator=generator))


def load(
    name: str,
    n_heldout: int = 512,
    resolution: int | None = None,
    copies: int = 1,
    **options: object,
) -> Data:
    """The data set `name` with `n_heldout` held-out points.

    `resolution` (pixels, at most the smaller side) averages over areas down to a square, unless
    the loader has such an option of its own, `copies` puts every training point that often into
    its training set; the other options are the loader's. Raises ValueError for an unknown name or
    option (with the choices), fewer than 2 held-out points or fewer than 2 left, and an impossible
    resolution or number of copies; FileNotFoundError for a missing file.
    """
    loader = lookup("data set", name, DATASETS)
    given = {"n_heldout", "resolution", "copies"}
    if "resolution" in inspect.signature(loader).parameters:
        given.discard("resolution")
        options |= {} if resolution is None else {"resolution": resolution}
        resolution = None
    check_options(f"Data set {name!r}", loader, options, given)
    require(is_int(n_heldout, 2), name, "n_heldout", n_heldout, "a whole number of at least 2")
    require(is_int(copies, 1), name, "copies", copies, "a whole number of at least 1")
    images = downsample(loader(**options), resolution, name)
    rows, heldout = _split(images, n_heldout, name)
    keys, heldout_keys = _keys(images.points, rows), set(_keys(heldout))
    clean = np.array([key not in heldout_keys for key in keys])
    rows = rows[clean]
    _require_points(len(rows), 2, name, n_heldout)
    ends = [(block.min(0), block.max(0)) for block in blocks(images.points, rows)]
    low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
    content = _content_hash(images, rows, heldout, copies)
    return Data(
        name=name,
        points=images.points,
        rows=rows,
        heldout=heldout,
        sigma_data=_deviation(images.points, rows),
        content_hash=content,
        n_leaked=int((~clean).sum()),
        n_duplicates=len(rows) - len(set(keys) - heldout_keys),
        n_constant_pixels=int((low == high).sum()),
        near=near(images.points, rows, heldout, content) if images.prepared else None,
        moments=images.moments,
        sources=images.sources,
        copies=copies,
        labels=None if images.labels is None else images.labels[rows],
        bases=images.bases,
    )


def _split(images: Images, n_heldout: int, name: str) -> tuple[Int64[np.ndarray, " p"], Batch]:
    """Which points are the pool, and the held-out points as floats."""
    source = images.points if images.test is None else images.test
    _require_points(len(source), n_heldout, name, n_heldout)
    if source.shape[1:] != images.points.shape[1:]:
        shapes = f"{images.points.shape[1:]} and {source.shape[1:]}"
        raise ValueError(f"{name}: training and test images differ in shape: {shapes}.")
    order = torch.randperm(len(source), generator=stream("heldout")).numpy()
    heldout = floats(source[order[:n_heldout]])
    return order[n_heldout:] if images.test is None else np.arange(len(images.points)), heldout


def _require_points(found: int, wanted: int, name: str, n_heldout: int) -> None:
    if found < wanted:
        raise ValueError(
            f"{name}: `n_heldout` {n_heldout} leaves too few points: {found} found where "
            f"{wanted} are needed."
        )


def _keys(points: Stored, rows: Int64[np.ndarray, " k"] | None = None) -> list[bytes]:
    # Digests, not bytes: 60,000 images of 784 floats would be held twice.
    rows = np.arange(len(points)) if rows is None else rows
    return [
        hashlib.blake2b(point.tobytes(), digest_size=16).digest()
        for block in blocks(points, rows)
        for point in block
    ]


def _deviation(points: Stored, rows: Int64[np.ndarray, " p"]) -> float:
    """Standard deviation of all pixels about their one mean."""
    if len(rows) * points[0].size <= FEW_PIXELS:
        return float(floats(points[rows]).std(dtype=np.float64))
    count = total = square = 0.0
    for block in blocks(points, rows):
        values = block.astype(np.float64)
        count, total, square = (
            count + values.size,
            total + values.sum(),
            square + np.vdot(values, values),
        )
    return float(np.sqrt(square / count - (total / count) ** 2))


def _content_hash(
    images: Images, rows: Int64[np.ndarray, " p"], heldout: Batch, copies: int
) -> str:
    """Of the floats, whether or not they are kept as bytes; of prepared files, of their digest."""
    digest, points = hashlib.blake2b(digest_size=16), images.points
    digest.update(f"<f4 {(len(rows), *points.shape[1:])}".encode())
    if images.prepared:
        digest.update(images.prepared.encode())
    else:
        for block in blocks(points, rows):
            digest.update(np.ascontiguousarray(block, dtype="<f4").data)
    _update(digest, heldout)
    if copies > 1:
        digest.update(f"copies {copies}".encode())
    return digest.hexdigest()


def _update(digest: "hashlib.blake2b", array: np.ndarray) -> None:
    digest.update(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def downsample(images: Images, resolution: int | None, name: str = "data") -> Images:
    """`images` averaged over areas to `resolution` x `resolution`, known moments included."""
    if resolution is None:
        return images
    c, h, w = images.points.shape[1:]
    allowed = f"a whole number from 1 to {min(h, w)}, the smaller side"
    fits = is_int(resolution, 1) and resolution <= min(h, w)
    require(fits, name, "resolution", resolution, allowed)
    rows, columns = area_weights(h, resolution), area_weights(w, resolution)

    def shrink(points: Stored) -> Batch:
        small = np.einsum("ai,ncij->ncaj", rows.astype(np.float32), floats(points), optimize=True)
        small = np.einsum("bj,ncaj->ncab", columns.astype(np.float32), small, optimize=True)
        return np.ascontiguousarray(small)

    test = None if images.test is None else shrink(images.test)
    moments = None
    if images.moments is not None:
        mean, covariance = images.moments
        weights = np.kron(np.eye(c), np.kron(rows, columns))
        moments = (weights @ mean, weights @ covariance @ weights.T)
    # Averages of pixels leave the subspaces: their bases are forgotten.
    return replace(images, points=shrink(images.points), test=test, moments=moments, bases=())


def area_weights(size: int, smaller: int) -> Float64[np.ndarray, "smaller size"]:
    """Row a: the share of each of `size` pixels in output pixel a of `smaller`; rows sum to 1.

    >>> area_weights(3, 2).round(3).tolist()
    [[0.667, 0.333, 0.0], [0.0, 0.333, 0.667]]
    """
    edges = np.arange(smaller + 1) * size / smaller
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * smaller / size
