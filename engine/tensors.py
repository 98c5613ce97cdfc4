"""Weights as bytes: one safetensors file, its header readable by itself.

A header says how long the file must be, so a torn file is known without its content.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

FOREIGN = (struct.error, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""What reading a header raises that is none, beside ValueError."""


def encode(tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> bytes:
    """The tensors as a safetensors file with a header of text; equal content gives equal bytes."""
    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors.items()}
    # One entry: safetensors writes several in any order.
    metadata = {"header": json.dumps(dict(header), sort_keys=True)}
    return safetensors.numpy.save(contiguous, metadata=metadata)


def decode(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and header of such a file.

    Raises:
        ValueError: torn or foreign.
    """
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = _header(data[8 : 8 + size])
        return safetensors.numpy.load(data), header
    except (*FOREIGN, safetensors.SafetensorError) as error:
        raise ValueError(str(error)) from error


def header_of(file: BinaryIO, length: int) -> dict[str, str]:
    """The header of an open file of `length` bytes, without reading its tensors.

    Raises:
        ValueError: torn or foreign: the file is not as long as its header says.
    """
    try:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > length - 8:
            raise ValueError(f"a header of {size} bytes in a file of {length}")
        text = file.read(size)
        ends = [v["data_offsets"][1] for k, v in json.loads(text).items() if k != "__metadata__"]
        if 8 + size + max(ends, default=0) != length:
            raise ValueError(f"{length} bytes, {8 + size + max(ends, default=0)} announced")
        return _header(text)
    except FOREIGN as error:
        raise ValueError(str(error)) from error


def _header(text: bytes) -> dict[str, Any]:
    header = json.loads(json.loads(text)["__metadata__"]["header"])
    if not isinstance(header, dict):
        raise TypeError("the header is no mapping")
    return header
