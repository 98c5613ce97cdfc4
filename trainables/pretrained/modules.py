"""Tensors and constructor arguments out of a pickled network, without running what it says.

Known are the names that rebuild tensors, plain containers, and modules: each is a stand-in that
records what it is told. Source code inside the file is read over as text. The bytes of a tensor,
themselves a file of torch's, go through torch's own reader of weights alone.
"""

import collections
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.unpickling import NUMPY, Call, Dtype, Refused
from trainables.unpickling import read as unpickled

__all__ = ["Recorded", "read", "tensors"]

DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int32", "int64", "bool")
DEPTH = 100
"""Modules inside modules, at most."""


class Recorded:
    """A module that was pickled: what its constructor was told, and what it holds."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """Name of its class."""
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        """What BUILD brings."""
        if not isinstance(state, dict):
            raise Refused("a module whose state is not a mapping")
        self.state = state

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        found = self.state.get("_init_kwargs", {})
        return dict(found) if isinstance(found, dict) else {}

    def part(self, name: str) -> "Recorded":
        """A module that it holds; ValueError if there is none of that name."""
        found = self._mapping("_modules").get(name)
        if not isinstance(found, Recorded):
            raise ValueError(f"{self.kind or 'the module'} has no part {name!r}")
        return found

    def _mapping(self, name: str) -> Mapping[str, Any]:
        found = self.state.get(name)
        return found if isinstance(found, dict) else {}


class _Tensor:
    """A tensor that was rebuilt; a pickle can set nothing of it."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __setstate__(self, state: object) -> None:
        raise Refused("a tensor with a state")


def _class(name: str) -> type:
    """A class of modules, of which pickles make an object, then give it a state.

    A type, which they insist on; new at each call, so that what is set on it has no effect.
    """

    def new(cls: type, *args: object) -> Recorded:
        made = object.__new__(cls)
        Recorded.__init__(made, name)  # whatever the pickle passes: nothing is done with it
        return made

    return type(name, (Recorded,), {"__new__": new, "__init__": lambda self, *args: None})


def _module(meta: object) -> Recorded:
    """The stand-in for an object that carries the source code of its class: it stays text."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise Refused("a persistent object without a class name")
    made = Recorded(meta["class_name"])
    made.__setstate__(meta.get("state") or {})
    return made


def _storage(data: object) -> _Tensor:
    """Numbers that were pickled as a file of their own, as a flat tensor."""
    if not isinstance(data, bytes):
        raise Refused("a storage that is not bytes")
    with warnings.catch_warnings():
        # torch warns of the class of storages that its own pickles are made of.
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if isinstance(found, torch.storage.TypedStorage):
            return _Tensor(torch.tensor([], dtype=found.dtype).set_(found.untyped()))
    raise Refused(f"a storage that is a {type(found).__name__}")


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> _Tensor:
    """A view of a storage; as_strided refuses what reaches beyond it."""
    if not isinstance(storage, _Tensor):
        raise Refused("a tensor without a storage")
    flat = storage.value
    return _Tensor(torch.as_strided(flat, tuple(size), tuple(stride), int(offset)))


def _parameter(data: object, *_: object) -> _Tensor:
    """A parameter is its tensor."""
    if not isinstance(data, _Tensor):
        raise Refused("a parameter without a tensor")
    return data


def _number(dtype: object, data: object) -> bool | int | float:
    """A number of numpy's, as one of Python's."""
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
        raise Refused("a number without a plain type or without bytes")
    if len(data) != dtype.real.itemsize:
        raise Refused(f"a number of type {dtype.name} with {len(data)} bytes")
    return np.frombuffer(data, dtype.real)[0].item()


KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): Call(_parameter),
    ("torch.storage", "_load_from_bytes"): Call(_storage),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Call(_module),
    ("torch", "device"): Call(lambda *told: told),
    **NUMPY,
    ("numpy.core.multiarray", "scalar"): Call(_number),
    ("numpy._core.multiarray", "scalar"): Call(_number),
    **{("torch", name): name for name in DTYPES},
}


def _known(module: str, name: str) -> object | None:
    if module.startswith("torch.nn.modules.") and name.isidentifier():
        return _class(name)
    return KNOWN.get((module, name))


def read(path: str | Path) -> object:
    """The content of a pickled network: containers, `Recorded` modules and their tensors.

    Raises:
        ValueError: not readable, torn, or it names something else; the name is said.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    return unpickled(data, str(path), _known)


def tensors(module: Recorded, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of all that it holds, by dotted name."""
    if depth > DEPTH:
        raise ValueError(f"modules nested more than {DEPTH} deep")
    for group in ("_parameters", "_buffers"):
        for name, found in module._mapping(group).items():
            if isinstance(found, _Tensor):
                yield f"{prefix}{name}", found.value
    for name, part in module._mapping("_modules").items():
        if isinstance(part, Recorded):
            yield from tensors(part, f"{prefix}{name}.", depth + 1)
