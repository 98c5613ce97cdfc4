"""Pickles of dictionaries, lists, texts, numbers and numpy arrays, read without running them.

Four names are known, the ones that pickled arrays need, and each is a stand-in of ours: no
function of numpy, none of the standard library is ever called on a pickle's behalf.
"""

import math

import numpy as np

from trainables.unpickling import NUMPY, Call, Dtype, read


class _NdArray:
    """Stands for `numpy.ndarray`, which pickles name and never call."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("an array without its constructor")


class _Array:
    """An array in the making: its state brings shape, type and bytes."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
            raise ValueError("an array without a plain type or without bytes")
        real = dtype.real
        shape = tuple(int(n) for n in shape)
        if min(shape, default=0) < 0 or math.prod(shape) * real.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype=real).reshape(shape, order=order)


def _reconstruct(kind: type, shape: object, code: object) -> _Array:
    if kind is not _NdArray:
        raise ValueError("an array of another kind")
    return _Array()


NAMES = {
    **NUMPY,
    ("numpy.core.multiarray", "_reconstruct"): Call(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): Call(_reconstruct),
    ("numpy", "ndarray"): _NdArray,
}


def loads(data: bytes, origin: str) -> object:
    """What a pickle holds; texts of Python 2 come as bytes.

    Raises ValueError naming `origin` if it is broken or names anything but a plain numpy array.
    """
    found = read(data, origin, lambda module, name: NAMES.get((module, name)), encoding="bytes")
    try:
        return _plain(found)
    except RecursionError as error:
        raise ValueError(f"{origin}: refused pickle: it is nested too deeply.") from error
    except (ValueError, TypeError) as error:  # TypeError: a key that cannot be one
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
