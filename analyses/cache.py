"""One bounded, process-wide cache for what many cells share: inputs, noise, oracle outputs.

All cells of one training subset see the same noisy inputs and the same oracle outputs, so a worker
computes them once. A key names everything its value depends on (content digests, never only N).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["SHARED", "Cache", "digest", "size_of"]

T = TypeVar("T")


def digest(*arrays: Shaped[Tensor, "..."]) -> str:
    """blake2b of the dtypes, shapes and bytes of `arrays`, as 32 hexadecimal digits."""
    state = blake2b(digest_size=16)
    for array in arrays:
        values = np.ascontiguousarray(array.detach().cpu().numpy())
        state.update(repr((values.dtype.str, values.shape)).encode())
        state.update(values)
    return state.hexdigest()


def size_of(value: object) -> int:
    """Bytes of the tensors in `value` (a tensor; a tuple, dict or dataclass of them)."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, tuple):
        return sum(map(size_of, value))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return 64


class Cache:
    """Least-recently-used values, at most `max_bytes` of tensors; a larger one is never kept.

    What somebody else holds costs nothing more: it is shared for as long as they do.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"Cache: `max_bytes` must be at least 0, got {max_bytes}.")
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._alive: WeakValueDictionary[Hashable, object] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._alive.clear()
        self.n_bytes = 0

    def get(
        self, key: Hashable, build: Callable[[], T], enough: Callable[[T], bool] | None = None
    ) -> T:
        """The value under `key`, built if absent or not `enough`; callers must not edit it."""
        value = self._values.get(key, self._alive.get(key))
        if value is None or not (enough is None or enough(value)):
            value = build()
        # Dropped only now: `build` itself may have filled the cache.
        self._drop(key)
        if isinstance(value, Tensor) or is_dataclass(value):
            self._alive[key] = value
        if size_of(value) <= self.max_bytes:
            self._values[key] = value
            self.n_bytes += size_of(value)
            while self.n_bytes > self.max_bytes:
                self._drop(next(iter(self._values)))
        return value

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.n_bytes -= size_of(self._values.pop(key))


SHARED = Cache(max_bytes=768 * 2**20)
"""Of this process. Whoever knows how much memory there is may raise `max_bytes`."""
