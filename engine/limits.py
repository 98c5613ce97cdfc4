"""Limits on what a sweep file may make the engine hold: said at once, never by a dead process.

A file of a few hundred bytes can ask for anything: `range: [0, 1e12, 1]`, or twenty YAML aliases
that double one another. Everything here is counted before it is built.
"""

import math
from collections.abc import Mapping
from typing import Any

MAX_FILE_BYTES = 2**20
MAX_ENTRIES = 200_000
"""Values in a sweep file, aliases counted as often as they are used."""
MAX_DEPTH = 16
MAX_VALUES = 100_000
"""Values of one axis."""
MAX_CELLS = 1_000_000
"""Cells of a grid: ten times what has been measured."""
MAX_WHOLE = 2**53
"""Whole numbers beyond it are not exact as floats, and an address would not name them."""


def check_entries(value: Any) -> None:
    """Refuse what is too deep, too much, or no value of JSON; aliases are followed, not trusted.

    Raises:
        ValueError: says where in the file.
    """
    left = MAX_ENTRIES
    stack = [("", value, 0)]
    while stack:
        key, node, depth = stack.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_ENTRIES} values, aliases counted at each use")
        if depth > MAX_DEPTH:
            raise ValueError(f"{key}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, Mapping):
            for name, child in node.items():
                if not isinstance(name, str):
                    raise ValueError(f"{key or 'keys'}: wanted text as a key, got {name!r:.60}")
                _check_text(key or "keys", name)
                stack.append((f"{key}.{name}".lstrip("."), child, depth + 1))
        elif isinstance(node, list | tuple):
            stack += ((key, child, depth + 1) for child in node)
        else:
            _check_plain(key or "the file", node)


def _check_plain(key: str, value: Any) -> None:
    if isinstance(value, str):
        _check_text(key, value)
        return
    if isinstance(value, bool) or value is None:
        return
    if not isinstance(value, int | float):
        raise ValueError(
            f"{key}: wanted a number, text, a list or a mapping, got {value!r:.60}"
            f" ({type(value).__name__}); quote it if it is text"
        )
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise ValueError(f"{key}: wanted a whole number up to 2^53, got one of {_digits(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{key}: wanted a finite number, got {value!r}")


def _check_text(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key}: not text that can be written: {error.reason}") from None


def _digits(value: int) -> str:
    # `str` of a very long number raises.
    return f"about {round(value.bit_length() * math.log10(2))} digits"


def check_count(count: float) -> None:
    """Refuse an axis of more values than are ever wanted, before they are listed."""
    if not count <= MAX_VALUES:
        raise ValueError(f"{count:.3g} values, at most {MAX_VALUES} fit an axis")


def check_cells(axes: Mapping[str, tuple], kimg: tuple) -> None:
    """Refuse a grid of more cells than the engine can hold."""
    cells = math.prod(map(len, axes.values())) * len(kimg)
    if cells > MAX_CELLS:
        raise ValueError(
            f"{cells:.3g} cells ("
            + " x ".join(f"{a} {len(v)}" for a, v in axes.items())
            + f" x kimg {len(kimg)}), at most {MAX_CELLS:,} fit a sweep; split it"
        )
