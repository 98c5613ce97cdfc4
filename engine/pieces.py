"""A piece as bytes: one Arrow IPC file, one row, a column per variable.

Arrays are `fixed_shape_tensor` columns with dim names; attributes travel as field metadata; the
fingerprint and the labels of the dims as schema metadata. The bytes depend on the content alone.
"""

import json
import struct
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

# What Arrow and json raise for a damaged file.
UNREADABLE = (
    pa.ArrowException, ValueError, OSError, LookupError, TypeError, AttributeError,
    NotImplementedError, RecursionError, OverflowError, MemoryError, StopIteration, struct.error,
)  # fmt: skip
MAGIC = b"ARROW1\0\0"
"""Before the messages of a file."""


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
        ValueError: truncated or not such a file.
    """
    try:
        return _decode(data)
    except UNREADABLE as error:
        raise ValueError(f"not a whole piece: {error}") from error


def _decode(data: bytes) -> Piece:
    batch = first_batch(data)
    if batch.num_columns and batch.num_rows != 1:
        raise ValueError(f"{batch.num_rows} rows")
    metadata = batch.schema.metadata
    labels = {dim: list(labels) for dim, labels in json.loads(metadata[b"labels"]).items()}
    variables = {
        field.name: _variable(field, column, labels)
        for field, column in zip(batch.schema, batch.columns, strict=True)
    }
    return Piece(variables, labels, metadata[b"fingerprint"].decode())


def _variable(field: pa.Field, column: pa.Array, labels: Mapping[str, list]) -> Variable:
    tensor = isinstance(field.type, pa.FixedShapeTensorType)
    kind = field.type.value_type if tensor else field.type
    # Of others a few bytes may be any number of values.
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or kind == pa.bool_()):
        raise ValueError(f"variable {field.name!r} is no array of numbers")
    if tensor:
        values, dims = column.to_numpy_ndarray()[0], tuple(field.type.dim_names)
    else:
        values, dims = np.asarray(column.to_numpy(zero_copy_only=False)[0]), ()
    if values.ndim != len({*dims}):
        raise ValueError(f"variable {field.name!r} has the dims {dims}")
    if any(len(labels.get(d, range(n))) != n for d, n in zip(dims, values.shape, strict=True)):
        raise ValueError(f"variable {field.name!r} has other lengths than the labels")
    return Variable(dims, values, dict(json.loads(field.metadata[b"attrs"])))


def first_batch(data: bytes) -> pa.RecordBatch:
    """The first batch of an Arrow IPC file, in the memory of the file.

    Raises:
        ValueError: it is compressed, as no file of ours is: there is no telling to what size.
    """
    whole = pa.py_buffer(data)
    with pa.ipc.open_file(whole) as reader:
        schema = reader.schema
    messages = pa.ipc.MessageReader.open_stream(whole.slice(len(MAGIC)))
    messages.read_next_message()  # the schema
    message = messages.read_next_message()
    if _is_compressed(message):
        raise ValueError("its numbers are compressed, which ours never are")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)  # what the file says of its own layout is not trusted
    return batch


def _is_compressed(message: pa.Message) -> bool:
    """Whether a batch says that its body is compressed, which pyarrow does not tell.

    Its header is a flatbuffer (Arrow's Message.fbs): a table points back to where the distances
    of its fields are listed, 0 for a field that it has not.
    """
    header = message.metadata.to_pybytes()

    def number(kind: str, at: int) -> int:
        return struct.unpack_from(f"<{kind}", header, at)[0]

    def place(table: int, field: int) -> int:
        listed = table - number("i", table)
        known = 4 + 2 * field < number("H", listed)
        distance = number("H", listed + 4 + 2 * field) if known else 0
        return distance and table + distance

    body = place(number("I", 0), 2)
    return place(body + number("I", body), 3) != 0


def fingerprint_of(data: bytes) -> str | None:
    """The fingerprint in the file's header; None where the file is torn or foreign."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            return (reader.schema.metadata or {}).get(b"fingerprint", b"").decode() or None
    except UNREADABLE:
        return None


class Layout:
    """Where the numbers lie in the file of a piece.

    The pieces of an analysis have equal files but for their numbers: what is found out about the
    first holds for all that have the same bytes around theirs.
    """

    def __init__(self, data: bytes) -> None:
        self.piece = decode(data)
        """Names, dims, labels, attributes and fingerprint; the values are the first piece's."""
        storages = [getattr(c, "storage", c) for c in first_batch(data).columns]
        buffers = [(getattr(s, "values", s)).buffers()[-1] for s in storages]
        file = pa.py_buffer(data).address
        places = [(b.address - file, b.size) for b in buffers]
        if not all(0 <= at <= at + size <= len(data) for at, size in places):
            raise ValueError("its numbers do not lie in it as they are")
        self.start = min((at for at, _ in places), default=len(data))
        self.end = max((at + size for at, size in places), default=len(data))
        self.head, self.tail, self.size = data[: self.start], data[self.end :], len(data)
        self.places = dict(zip(self.piece.variables, (at for at, _ in places), strict=True))
        numbers = np.frombuffer(self.numbers(data), np.uint8)[None]
        for name, first in self.piece.variables.items():
            if self.values(name, numbers).tobytes() != first.values.tobytes():
                raise ValueError(f"variable {name!r} reads otherwise than it lies in the file")

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
        except UNREADABLE:
            return None
        self.known[len(data)].appendleft(layout)
        return layout
