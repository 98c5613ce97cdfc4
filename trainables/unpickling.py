"""A reader of pickles that runs nothing.

A pickle is a program that may call anything it can name. Here it can name what a list says, and
every entry of it is a stand-in of ours: no function of another library is called on a pickle's
behalf. Everything else is refused by its name.
"""

import io
import pickle
from collections.abc import Callable

import numpy as np

__all__ = ["NUMPY", "Call", "Dtype", "Refused", "read"]

DTYPES = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}

Refused = pickle.UnpicklingError
"""Raised by a stand-in for what it does not take."""


class Call:
    """A function to which a pickle can set nothing."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        """The function's value."""
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        """Refused: BUILD would set attributes of the function, for everyone."""
        raise Refused("a function with a state")


class Dtype:
    """Stands for `numpy.dtype`: plain numbers alone."""

    def __init__(self, name: str, align: object = False, copy: object = False) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if text not in DTYPES:
            raise Refused(f"{text!r} instead of numbers")
        self.name, self.order = text, "|"

    def __setstate__(self, state: tuple) -> None:
        """The byte order is all that is taken of it."""
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise Refused(f"an unknown byte order {order!r}")
        self.order = order

    @property
    def real(self) -> np.dtype:
        """The type that it stands for."""
        return np.dtype(self.order + self.name)


def _encode(text: str, codec: str = "latin1") -> bytes:
    if codec != "latin1" or not isinstance(text, str):
        raise Refused(f"text in {codec!r}")
    return text.encode("latin1")


NUMPY: dict[tuple[str, str], object] = {
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): Call(_encode),  # how protocol 2 writes bytes
}
"""What pickles of numpy name beside the makers of numbers and of arrays."""


# The reader written in Python: that in C reserves memory for whatever index a memo names.
class _Reader(pickle._Unpickler):
    def __init__(
        self, data: bytes, encoding: str, known: Callable[[str, str], object | None]
    ) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding)
        self.known = known

    def find_class(self, module: str, name: str) -> object:
        found = self.known(module, name)
        if found is None:
            raise Refused(f"it names {module}.{name}, which is refused")
        return found

    def get_extension(self, code: int) -> None:
        raise Refused("it uses the extension registry, which is refused")

    def persistent_load(self, pid: object) -> None:
        raise Refused("it refers to something outside the file, which is refused")


def read(
    data: bytes,
    origin: str,
    known: Callable[[str, str], object | None],
    encoding: str = "ASCII",
) -> object:
    """What a pickle holds, made of plain containers and of stand-ins.

    Args:
        origin: how errors call the pickle.
        known: the stand-in for a module and a name in it; None refuses the name.
        encoding: of the texts of Python 2; "bytes" leaves them as bytes.

    Raises:
        ValueError: broken, or it names anything else; the name is said.
    """
    try:
        return _Reader(data, encoding, known).load()
    except RecursionError as error:
        raise ValueError(f"{origin}: refused pickle: it is nested too deeply.") from error
    except Exception as error:  # a hostile pickle can make its reader raise anything
        raise ValueError(f"{origin}: refused pickle: {error}.") from error
