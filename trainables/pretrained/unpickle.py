"""Tensors and constructor arguments out of a network pickle, without running what it says.

A pickle is a program that names functions to call. This reader knows a closed list of names: the
ones that rebuild tensors, plain containers, and stand-ins that merely record what a module's
constructor was told and holds. Any other name is refused before anything is called; source code
inside the file is read over as text. Weights nested as bytes go through torch's own reader of
weights, which has the same rule.
"""

import collections
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Recorded", "read", "tensors"]

DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int32", "int64", "bool")
PERSISTENT = "_reconstruct_persistent_obj"


class Recorded:
    """A module that was pickled: what its constructor was told, and what it holds."""

    kind: str = ""
    """Name of its class."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __new__(cls, *args: object) -> "Recorded":
        """Whatever the pickle passes: nothing is done with it."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module whose state is not a mapping")
        self.state = state

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        found = self.state.get("_init_kwargs", {})
        return dict(found) if isinstance(found, dict) else {}

    def part(self, name: str) -> "Recorded":
        """A module that it holds; ValueError if there is none of that name."""
        found = (self.state.get("_modules") or {}).get(name)
        if not isinstance(found, Recorded):
            raise ValueError(f"{self.kind or 'the module'} has no part {name!r}")
        return found


def _persistent(meta: object) -> Recorded:
    """The stand-in for an object that carries the source code of its class: it stays text."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise pickle.UnpicklingError("a persistent object without a class name")
    made = Recorded()
    made.__setstate__(meta.get("state") or {})
    made.kind = meta["class_name"]
    return made


def _nested(data: bytes) -> object:
    """A storage that was pickled as bytes of its own."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _Reader(pickle.Unpickler):
    """Knows the names that a network pickle needs, and no others."""

    known: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("dnnlib.util", "EasyDict"): dict,
        ("builtins", "set"): set,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch.storage", "_load_from_bytes"): _nested,
        ("torch_utils.persistence", PERSISTENT): _persistent,
        **{("torch", name): getattr(torch, name) for name in DTYPES},
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; UnpicklingError if it is none of the known ones."""
        if (module, name) in self.known:
            return self.known[module, name]
        if module.startswith("torch.nn.modules.") and "." not in name:
            return type(name, (Recorded,), {"kind": name})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")

    def persistent_load(self, pid: object) -> Any:
        """Refused: there is nothing outside the file."""
        raise pickle.UnpicklingError("it refers to something outside the file")


def read(path: str | Path) -> object:
    """The content of a pickle of the known names alone.

    Raises:
        ValueError: not readable, torn, or it names something else; the name is said.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _Reader(file).load()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    # A torn or hostile stream makes the reader raise almost anything; nothing of it was run.
    except Exception as error:
        raise ValueError(f"{path}: not a network pickle that can be read: {error}") from error


def tensors(module: Recorded, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of all that it holds, by dotted name."""
    for group in ("_parameters", "_buffers"):
        for name, tensor in (module.state.get(group) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor.detach()
    for name, part in (module.state.get("_modules") or {}).items():
        if isinstance(part, Recorded):
            yield from tensors(part, f"{prefix}{name}.")
