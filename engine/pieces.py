"""A piece as bytes: one Arrow IPC file, one row, a column per variable.

Arrays are `fixed_shape_tensor` columns with dim names; attributes travel as field metadata; the
fingerprint and the labels of the dims as schema metadata. The bytes depend on the content alone.
"""

import json
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
