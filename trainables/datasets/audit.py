r"""Near duplicates: images that are one another but for brightness, contrast and small changes.

Two images are near where the Pearson correlation of all their pixels is at least .95 (the
threshold of arXiv 2310.02557, there on shrunken images). For images that are centred and scaled
to length 1, :math:`|x - y|^2 = 2 (1 - \mathrm{corr})`, and an orthogonal projection only brings
points closer: the means of 8 x 8 blocks of the grey image, scaled by the roots of their sizes,
are one. So all pairs are compared in 64 dimensions, in blocks, only those that are close there
in all pixels, and no near pair is missed. Images of one level correlate with nothing.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float32, Int64

from trainables.datasets.cache import folder, write_json
from trainables.datasets.images import Stored, floats

THRESHOLD = 0.95
GRID = 8
MOST = 1 << 17
"""Above so many points the pairs are too many, and nothing is said."""
ROWS, NEAREST = 256, 4
SLACK = 1e-4  # of squared distances in float32: a pair too many is found out, one too few is not


@dataclass(frozen=True)
class Near:
    """How many points of the pool have a near one."""

    n_near_duplicates: int
    """Earlier in the pool."""
    n_near_leaked: int
    """Among the held-out points."""
    near_threshold: float = THRESHOLD
    """The correlation from which two images are near."""


def near(
    points: Stored, rows: Int64[np.ndarray, " p"], heldout: Stored, content_hash: str
) -> Near | None:
    """The counts for the pool `rows` of `points`, once per content; None for too many points."""
    if len(rows) > MOST:
        return None
    known = folder() / "near" / f"{content_hash}-{THRESHOLD}.json"
    try:
        return Near(**json.loads(known.read_text()))
    except (OSError, ValueError, TypeError):
        found = count(points, rows, heldout)
        write_json(known, asdict(found))
        return found


def count(points: Stored, rows: Int64[np.ndarray, " p"], heldout: Stored) -> Near:
    """The counts, computed."""
    pool = _described(points, rows)
    held = np.arange(len(heldout))
    of_held = _described(heldout, held)
    duplicates = leaked = 0
    for start in range(0, len(rows), ROWS):
        mine = np.arange(start, min(start + ROWS, len(rows)))
        x = _unit(points[rows[mine]])
        d2 = _squared_distances(pool[mine], pool[: mine[-1] + 1])
        d2[mine[:, None] <= np.arange(d2.shape[1])] = np.inf  # earlier ones only
        duplicates += _confirmed(d2, x, points, rows)
        leaked += _confirmed(_squared_distances(pool[mine], of_held), x, heldout, held)
    return Near(duplicates, leaked)


def _unit(images: Stored) -> Float32[np.ndarray, "n d"]:
    """Centred and scaled to length 1; nan for an image of one level."""
    x = floats(images).reshape(len(images), -1)
    x = x - x.mean(1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 1e-6 * x.shape[1] ** 0.5, length, np.nan)


def _described(points: Stored, rows: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k g"]:
    return np.concatenate([_blocks(points[rows[i : i + ROWS]]) for i in range(0, len(rows), ROWS)])


def _blocks(images: Stored) -> Float32[np.ndarray, "n g"]:
    """Orthogonal projection of the unit images on means of blocks of all channels."""
    n, c, h, w = images.shape
    means = _unit(images).reshape(n, c, h, w).sum(1) / np.sqrt(c)
    for axis, size in ((1, h), (2, w)):
        edges = np.arange(min(GRID, size)) * size // min(GRID, size)
        sizes = np.diff(np.append(edges, size)).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = len(edges)
        means = np.add.reduceat(means, edges, axis=axis) / np.sqrt(sizes).reshape(shape)
    return means.reshape(n, -1).astype(np.float32)


def _squared_distances(
    a: Float32[np.ndarray, "n g"], b: Float32[np.ndarray, "m g"]
) -> Float32[np.ndarray, "n m"]:
    """inf where they are too large for a near pair."""
    d2 = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.where(d2 <= 2 * (1 - THRESHOLD) + SLACK, d2, np.inf)


def _confirmed(
    d2: Float32[np.ndarray, "n m"],
    x: Float32[np.ndarray, "n d"],
    points: Stored,
    rows: Int64[np.ndarray, " p"],
) -> int:
    """How many of `x` are near one of their candidates, the closest ones being tried first."""
    left, total = np.flatnonzero(np.isfinite(d2).any(1)), 0
    k = min(NEAREST, d2.shape[1])
    while len(left):
        found = np.argpartition(d2[left], k - 1, axis=1)[:, :k]
        tried = np.take_along_axis(d2[left], found, axis=1)
        y = _unit(points[rows[found.ravel()]]).reshape(*found.shape, -1)
        corr = np.einsum("nd,nkd->nk", x[left], y)
        hit = ((corr >= THRESHOLD) & np.isfinite(tried)).any(1)
        total += int(hit.sum())
        d2[left[:, None], found] = np.inf
        left = left[~hit]
        left = left[np.isfinite(d2[left]).any(1)]
    return total
