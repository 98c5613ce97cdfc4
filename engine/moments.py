"""Mean and covariance of the pool that training sets are drawn from, computed once.

Where pixels are many that takes minutes (an eigendecomposition of d x d), so the result lies in
the cache of prepared data, under the content's hash, and every process maps it. A driver computes
it before its tasks; on other machines the first of them does, while the others wait.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from analyses.moments import Moments
from trainables.datasets import cache
from trainables.datasets.data import Data

MANY = 1024
"""Pixels above which the moments are kept on disk: at 1024 they take a second."""
_POOLS: dict[str, Moments] = {}


def pool_moments(data: Data) -> Moments:
    """Mean and covariance of the pool (exact where known), once per process and data set."""
    if data.content_hash not in _POOLS:
        _POOLS.clear()
        _POOLS[data.content_hash] = _kept(data) if data.dim > MANY else _computed(data)
    return _POOLS[data.content_hash]


def _computed(data: Data) -> Moments:
    if data.moments:
        return Moments.of_covariance(*map(torch.from_numpy, data.moments))
    blocks = lambda: (torch.from_numpy(b.reshape(len(b), -1)) for b in data.blocks())  # noqa: E731
    return Moments.of_blocks(blocks, len(data.rows))


def _kept(data: Data) -> Moments:
    """From the cache, mapped; computed and left there if it is not there or torn."""
    path = cache.folder() / "moments" / f"{data.content_hash}.safetensors"
    found = _read(path, data.dim)
    if found is None:
        with _alone(path):
            found = _read(path, data.dim) or _written(path, _computed(data))
    return found


def _read(path: Path, dim: int) -> Moments | None:
    """What lies there; None if nothing whole does."""
    with contextlib.suppress(FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return _checked(Moments(**safetensors.torch.load_file(path)), dim)
    return None


def _written(path: Path, found: Moments) -> Moments:
    """The same, left there if it can be: a full or read-only disk costs time, no numbers."""
    fields = {name: getattr(found, name) for name in ("mean", "eigenvalues", "basis")}
    with contextlib.suppress(OSError, SafetensorError):
        with cache.replacing(path) as temporary:
            safetensors.torch.save_file(fields, temporary)
    return found


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of a machine at a time, where files can be locked; the lock ends with it."""
    with contextlib.ExitStack() as stack:
        # Without locks, or a place for one, each computes for itself: the same numbers.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_suffix(".lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _checked(found: Moments, dim: int) -> Moments:
    if found.basis.shape != (dim, found.rank) or found.dim != dim:
        raise ValueError("moments of other data")
    return found
