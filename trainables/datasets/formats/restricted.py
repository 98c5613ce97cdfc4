"""A reader of pickles that runs nothing: dictionaries, lists, texts, numbers and numpy arrays.

A pickle is a program that may call anything it can name. Here it can name four things, the ones
that pickled arrays need, and each is a stand-in of ours: no function of numpy, none of the
standard library is ever called on a pickle's behalf. Everything else is refused by its name.
"""

import io
import math
import pickle
from collections.abc import Callable

import numpy as np

DTYPES = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: str, align: object = False, copy: object = False) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if text not in DTYPES:
            raise ValueError(f"an array of {text!r} instead of numbers")
        self.name, self.order = text, "|"

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"an unknown byte order {order!r}")
        self.order = order


class _NdArray:
    """Stands for `numpy.ndarray`, which pickles name and never call."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("an array without its constructor")


class _Array:
    """An array in the making: its state brings shape, type and bytes."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("an array without a plain type or without bytes")
        real = np.dtype(dtype.order + dtype.name)
        shape = tuple(int(n) for n in shape)
        if min(shape, default=0) < 0 or math.prod(shape) * real.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype=real).reshape(shape, order=order)


def _reconstruct(kind: type, shape: object, code: object) -> _Array:
    if kind is not _NdArray:
        raise ValueError("an array of another kind")
    return _Array()


def _encode(text: str, codec: str = "latin1") -> bytes:
    if codec != "latin1" or not isinstance(text, str):
        raise ValueError(f"text in {codec!r}")
    return text.encode("latin1")


class _Call:
    """A function to which a pickle can set nothing."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function with a state")


NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Call(_encode),  # how protocol 2 writes bytes
}


# The reader written in Python: that in C reserves memory for whatever index a memo names.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused")
        return NAMES[module, name]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("it uses the extension registry, which is refused")


def loads(data: bytes, origin: str) -> object:
    """What a pickle holds; texts of Python 2 come as bytes.

    Raises ValueError naming `origin` if it is broken or names anything but a plain numpy array.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except RecursionError as error:
        raise ValueError(f"{origin}: refused pickle: it is nested too deeply.") from error
    except Exception as error:  # a hostile pickle can make its reader raise anything
        raise ValueError(f"{origin}: refused pickle: {error}.") from error


def _plain(value: object, done: dict[int, object] | None = None) -> object:
    """With the arrays in their places; ValueError where a stand-in is left over."""
    done = {} if done is None else done
    if id(value) in done:  # a list of lists of one list holds little and would unfold to anything
        return done[id(value)]
    if isinstance(value, _Array) and value.value is not None:
        plain = value.value
    elif type(value) is dict:
        plain = {_plain(k, done): _plain(v, done) for k, v in value.items()}
    elif type(value) in (list, tuple):
        plain = type(value)(_plain(v, done) for v in value)
    elif value is None or type(value) in (str, bytes, int, float, bool):
        plain = value
    else:
        raise ValueError(f"it holds a {type(value).__name__.strip('_')}")
    done[id(value)] = plain
    return plain
