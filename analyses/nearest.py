r"""Which training points lie nearest to a sample, counting near-duplicates as one.

The ratio of the two nearest distances says nothing where the second nearest point is the first
one again: a duplicate, a near-duplicate, its mirror image. Training points that are the *same*
(`Sameness`) form a group: in the order of training, a point joins the first earlier one that it
is the same as and that began a group itself. The second nearest is the nearest of another group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.specimen import Specimen, Subset

__all__ = [
    "Nearest",
    "Neighbours",
    "Sameness",
    "distinct",
    "mirrored",
    "near_heldout",
    "near_samples",
    "near_surrogate",
    "near_training",
    "nearest_two",
    "neighbours",
]

ROWS = 2**24


class Nearest(NamedTuple):
    """The two nearest points of each row, exact to rounding."""

    first: Float[Tensor, " n"]
    second: Float[Tensor, " n"]
    index: Int[Tensor, " n"]
    """The nearest point."""


class Neighbours(NamedTuple):
    """What samples are compared with: distinct training points, perhaps with mirror images."""

    points: Float[Tensor, "k d"]
    group: Int[Tensor, " k"]
    """Equal for points that count as one: the training point that began the group."""
    index: Int[Tensor, " k"]
    """The training point that each one is, of equal ones the first."""


@dataclass(frozen=True)
class Sameness:
    """When two training points count as one; equal ones always do."""

    distance: float = 0.0
    """Closer than this, in pixels (Euclidean)."""
    correlation: float = 1.0
    """Correlated above this, each image's mean pixel removed; 1 is off. arXiv:2310.02557 takes
    0.95, on images shrunk to 20 x 20."""
    flips: bool = False
    """Left-right mirror images are training points too, each the same as its original."""

    def __post_init__(self) -> None:
        if self.distance < 0:
            raise ValueError(f"`same_distance` must be at least 0, got {self.distance}.")
        if not 0 < self.correlation <= 1:
            raise ValueError(f"`same_correlation` must be in (0, 1], got {self.correlation}.")


def distinct(
    points: Float[Tensor, "n d"], flips: tuple[int, ...] | None = None
) -> Int[Tensor, " k"]:
    """Increasing indices of the first occurrence of each exactly distinct row.

    `flips`: the shape (c, h, w) of images that are the same as their mirror images. Rows are told
    apart by 128 bits of their hash, so that no copy of them is made.

    >>> distinct(torch.tensor([[1.0], [2.0], [1.0]]))
    tensor([0, 1])
    >>> distinct(torch.tensor([[1.0, 2.0], [3.0, 3.0], [2.0, 1.0]]), flips=(1, 1, 2))
    tensor([0, 1])
    """
    seen: dict[bytes, int] = {}
    for i, row in enumerate(points.numpy()):
        name = _name(row)
        if flips is not None:
            name = min(name, _name(row.reshape(flips)[..., ::-1]))
        seen.setdefault(name, i)
    return torch.tensor(list(seen.values()))


def _name(row: np.ndarray) -> bytes:
    """Hash of the numbers in `row`; -0 is 0."""
    return blake2b(np.ascontiguousarray(row + 0.0), digest_size=16).digest()


def mirrored(points: Float[Tensor, "n d"], shape: tuple[int, ...]) -> Float[Tensor, "n d"]:
    """The images of `shape` (c, h, w) with left and right exchanged.

    >>> mirrored(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (1, 2, 2))
    tensor([[2., 1., 4., 3.]])
    """
    return points.unflatten(1, shape).flip(-1).flatten(1)


def neighbours(train: Float[Tensor, "n d"], shape: tuple[int, ...], same: Sameness) -> Neighbours:
    """The distinct training points in the order of training, then their mirror images if any."""
    return _placed(train, shape, same, *_groups(train, shape, same))


def _groups(
    train: Float[Tensor, "n d"], shape: tuple[int, ...], same: Sameness
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """The distinct training points, and the training point that began the group of each."""
    kept = distinct(train, shape if same.flips else None)
    if same.distance == 0 and same.correlation == 1:
        return kept, kept
    return kept, kept[_grouped(_taken(train, kept), shape, same)]


def _taken(train: Float[Tensor, "n d"], kept: Int[Tensor, " k"]) -> Float[Tensor, "k d"]:
    """Some of the training points; all of them without a copy."""
    return train if len(kept) == len(train) else train[kept]


def _placed(
    train: Float[Tensor, "n d"],
    shape: tuple[int, ...],
    same: Sameness,
    kept: Int[Tensor, " k"],
    group: Int[Tensor, " k"],
) -> Neighbours:
    """The points that `_groups` names and their mirror images, with no other copy of them."""
    if not same.flips:
        return Neighbours(_taken(train, kept), group, kept)
    points = torch.empty(2 * len(kept), train.shape[1], dtype=train.dtype)
    originals, mirrors = points.chunk(2)
    torch.index_select(train, 0, kept, out=originals)
    _fill(mirrors, lambda rows: mirrored(rows, shape), originals)
    return Neighbours(points, group.repeat(2), kept.repeat(2))


def nearest_two(
    x: Float[Tensor, "n d"],
    points: Float[Tensor, "k d"],
    group: Int[Tensor, " k"] | None = None,
) -> Nearest:
    """Distances of each row to the nearest of `points` and to the nearest of another `group`.

    Without `group` every point is its own. ValueError if there are fewer than two groups.
    """
    group = torch.arange(len(points)) if group is None else group
    if len(group.unique()) < 2:
        raise ValueError(
            f"nearest_two: needs at least 2 distinct points, got {len(group.unique())}."
        )
    energy = torch.cat([rows.square().sum(1) for rows in points.split(_block(points.shape[1]))])
    parts = []
    for rows in x.split(_block(len(points))):
        # |x|^2 is left out: it moves no neighbour. The two candidates are then measured again by
        # their difference, because this form would put a copy at 1e-7 instead of 0.
        far = energy - 2 * rows @ points.T
        first = far.argmin(1)
        far.masked_fill_(group == group[first, None], torch.inf)
        near = torch.stack([first, far.argmin(1)], 1)
        distance = (rows[:, None] - points[near]).norm(dim=2)
        distance, swap = distance.sort(dim=1, stable=True)
        parts.append(Nearest(*distance.T, near.gather(1, swap)[:, 0]))
    return Nearest(*(torch.cat(part) for part in zip(*parts, strict=True)))


def near_training(subset: Subset, same: Sameness) -> Neighbours:
    """`neighbours` of the subset's training points; which they are is found once per subset."""
    shape = tuple(subset.shape)
    key = ("neighbours", shape, same)
    found = subset.shared(key, lambda: _groups(subset.train, shape, same))
    return _placed(subset.train, shape, same, *found)


def near_samples(specimen: Specimen, same: Sameness) -> Nearest:
    """Training points nearest to the samples of the denoiser, once per snapshot."""
    key = ("nearest", specimen.sampler, tuple(specimen.shape), same)
    return specimen.keep(key, lambda: _nearest(specimen, specimen.samples(), same))


def near_heldout(subset: Subset, same: Sameness) -> Nearest:
    """Training points nearest to the held-out images, once per subset."""
    key = ("nearest", "heldout", tuple(subset.shape), same)
    return subset.shared(key, lambda: _nearest(subset, subset.heldout, same))


def near_surrogate(subset: Subset, same: Sameness) -> Nearest:
    """Training points nearest to the samples of the Gaussian denoiser, once per subset."""
    key = ("nearest", "surrogate", subset.sampler.samples, tuple(subset.shape), same)
    return subset.shared(key, lambda: _nearest(subset, subset.surrogate, same))


def _nearest(subset: Subset, x: Float[Tensor, "n d"], same: Sameness) -> Nearest:
    """`index` counts in the order of training."""
    points, group, index = near_training(subset, same)
    near = nearest_two(x, points, group)
    return near._replace(index=index[near.index])


def _grouped(
    points: Float[Tensor, "k d"], shape: tuple[int, ...], same: Sameness
) -> Int[Tensor, " k"]:
    """For each of the distinct `points` the first one of its group, as the module says."""
    k, step = len(points), _block(len(points))
    group = torch.arange(k)
    directions = None
    if same.correlation < 1:
        directions = torch.empty_like(points)
        _fill(directions, _direction, points)
    for start in range(0, k, step):
        rows = points[start : start + step]
        alike = _alike(rows, points, directions, shape, same).tril(start - 1)
        for row in alike.any(1).nonzero()[:, 0].tolist():
            i = start + row
            began = (alike[row, :i] & (group[:i] == torch.arange(i))).nonzero()
            if len(began):
                group[i] = began[0, 0]
    return group


def _alike(
    rows: Float[Tensor, "b d"],
    points: Float[Tensor, "k d"],
    directions: Float[Tensor, "k d"] | None,
    shape: tuple[int, ...],
    same: Sameness,
) -> Bool[Tensor, "b k"]:
    """Which points are the same as which rows or their mirror images."""
    alike = torch.zeros(len(rows), len(points), dtype=torch.bool)
    for version in (rows, mirrored(rows, shape)) if same.flips else (rows,):
        if same.distance > 0:
            alike |= torch.cdist(version, points) < same.distance
        if directions is not None:
            alike |= _direction(version) @ directions.T > same.correlation
    return alike


def _block(columns: int) -> int:
    """Rows of a block of `ROWS` numbers."""
    return max(1, ROWS // columns)


def _fill(
    into: Float[Tensor, "n d"], function: Callable[[Tensor], Tensor], points: Float[Tensor, "n d"]
) -> None:
    """`function` of the points, block by block."""
    step = _block(points.shape[1])
    for target, rows in zip(into.split(step), points.split(step), strict=True):
        target.copy_(function(rows))


def _direction(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows without their mean, of length 1 (0 where the row is constant)."""
    return torch.nn.functional.normalize(x - x.mean(1, keepdim=True), dim=1)
