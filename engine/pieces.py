"""A piece as bytes: one Arrow IPC file, one row, a column per variable.

Arrays are `fixed_shape_tensor` columns with dim names; attributes travel as field metadata; the
fingerprint and the labels of the dims as schema metadata. The bytes depend on the content alone.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Variable:
    """One labelled array of a piece."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """The labelled result of one analysis on one cell (or one subset)."""

    variables: Mapping[str, Variable]
    labels: Mapping[str, list]
    """Coordinates of the labelled dims, e.g. `inputs`: [train, heldout]."""
    fingerprint: str


def coordinate(values: Iterable[Any]) -> np.ndarray:
    """Values of a coordinate as an array; text as objects (zarr has no fixed-width text)."""
    array = np.array(list(values))
    return array.astype(object) if array.dtype.kind in "US" else array


def encode(piece: Piece) -> bytes:
    """The piece as an Arrow IPC file.

    Raises:
        ValueError: a variable is not numeric.
    """
    fields, columns = [], []
    for name, variable in piece.variables.items():
        values = np.asarray(variable.values, order="C")
        if values.dtype.kind not in "fiub":
            raise ValueError(f"variable {name!r} has dtype {values.dtype}: a piece holds numbers")
        scalar = pa.from_numpy_dtype(values.dtype)
        if values.ndim:
            kind = pa.fixed_shape_tensor(scalar, values.shape, dim_names=list(variable.dims))
            flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.size)
            columns.append(pa.ExtensionArray.from_storage(kind, flat))
        else:
            kind = scalar
            columns.append(pa.array([values.item()], type=scalar))
        metadata = {"attrs": json.dumps(dict(variable.attrs), sort_keys=True)}
        fields.append(pa.field(name, kind, metadata=metadata))
    schema = pa.schema(
        fields,
        metadata={"fingerprint": piece.fingerprint, "labels": json.dumps(dict(piece.labels))},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue().to_pybytes()


def decode(data: bytes) -> Piece:
    """The piece in an Arrow IPC file.

    Raises:
        pyarrow.ArrowInvalid: truncated or not such a file.
    """
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        batch = reader.get_batch(0)
    variables = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if isinstance(field.type, pa.FixedShapeTensorType):
            values = column.to_numpy_ndarray()[0]
            dims = tuple(field.type.dim_names)
        else:
            values, dims = column.to_numpy(zero_copy_only=False)[0], ()
        attrs = json.loads(field.metadata[b"attrs"])
        variables[field.name] = Variable(dims, np.asarray(values), attrs)
    metadata = batch.schema.metadata
    return Piece(variables, json.loads(metadata[b"labels"]), metadata[b"fingerprint"].decode())


def fingerprint_of(data: bytes) -> str | None:
    """The fingerprint in the file's header; None where the file is torn or foreign."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            return (reader.schema.metadata or {}).get(b"fingerprint", b"").decode() or None
    except (pa.ArrowInvalid, OSError):
        return None


class Layout:
    """Where the numbers lie in the file of a piece.

    The pieces of an analysis have equal files but for their numbers: what is found out about the
    first holds for all that have the same bytes around theirs.
    """

    def __init__(self, data: bytes) -> None:
        self.piece = decode(data)
        """Names, dims, labels, attributes and fingerprint; the values are the first piece's."""
        whole = pa.py_buffer(data)
        with pa.ipc.open_file(whole) as reader:
            columns = reader.get_batch(0).columns
        storages = [getattr(c, "storage", c) for c in columns]
        buffers = [(getattr(s, "values", s)).buffers()[-1] for s in storages]
        places = [(b.address - whole.address, b.size) for b in buffers]
        self.start = min((at for at, _ in places), default=len(data))
        self.end = max((at + size for at, size in places), default=len(data))
        self.head, self.tail, self.size = data[: self.start], data[self.end :], len(data)
        self.places = dict(zip(self.piece.variables, (at for at, _ in places), strict=True))

    def fits(self, data: bytes) -> bool:
        """Whether a file differs in its numbers alone."""
        same = len(data) == self.size and data.startswith(self.head)
        return same and data.endswith(self.tail)

    def numbers(self, data: bytes) -> bytes:
        """The part of the file that `values` reads."""
        return data[self.start : self.end]

    def values(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """A variable of many pieces (n, *its shape), from their numbers as bytes (n, size)."""
        first, at = self.piece.variables[name].values, self.places[name] - self.start
        own = np.ascontiguousarray(numbers[:, at : at + first.nbytes])
        return own.view(first.dtype).reshape(len(numbers), *first.shape)


class Layouts:
    """The layouts that were met."""

    KEPT = 64
    """Of files of one size."""

    def __init__(self) -> None:
        self.known: dict[int, deque[Layout]] = defaultdict(lambda: deque(maxlen=self.KEPT))

    def of(self, data: bytes) -> Layout | None:
        """The layout of a file; None where it is torn or foreign."""
        for layout in self.known[len(data)]:
            if layout.fits(data):
                return layout
        try:
            layout = Layout(data)
        except (pa.ArrowInvalid, OSError, KeyError, IndexError):
            return None
        self.known[len(data)].appendleft(layout)
        return layout
