"""Mean and covariance of the pool that training sets are drawn from, computed once.

Where pixels are many that takes minutes (an eigendecomposition of d x d), so the result lies in
the cache of prepared data, under the content's hash, and every process maps it.
"""

import contextlib

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
    with contextlib.suppress(FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return _checked(Moments(**safetensors.torch.load_file(path)), data.dim)
    found = _computed(data)
    fields = {name: getattr(found, name) for name in ("mean", "eigenvalues", "basis")}
    # A full or read-only disk costs time, no numbers.
    with contextlib.suppress(OSError, SafetensorError):
        with cache.replacing(path) as temporary:
            safetensors.torch.save_file(fields, temporary)
    return found


def _checked(found: Moments, dim: int) -> Moments:
    if found.basis.shape != (dim, found.rank) or found.dim != dim:
        raise ValueError("moments of other data")
    return found
