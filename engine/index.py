"""What a survey found in each trial's folder, kept so that the next one reads what changed alone.

Derived from the store and rebuildable: `index.ipc` in the sweep's folder, one row a trial, valid
as long as the folder's signature is the same and the sweep asks for the same of each trial. Rows
of trials that were running are never kept: whether they still do depends on the clock.
"""

import contextlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from engine.pieces import UNREADABLE, first_batch
from engine.records import NOTES
from engine.store import Store

INDEX = "index.ipc"
VERSION = "1"
LAST = 4
"""The highest status (`engine.work`)."""


@dataclass
class Row:
    """One trial, as read from its folder."""

    pieces: np.ndarray
    """int8 (kimg, 1 + analysis): the first entry is the training."""
    noted: np.ndarray
    """float64 (number, kimg): what training and receipts noted."""
    stale: dict[int, dict[str, str | None]] = field(default_factory=dict)
    """Fingerprints of pieces whose options or version have changed, by kimg index and analysis."""
    errors: dict[int, str] = field(default_factory=dict)
    """First error of a failed cell, by kimg index."""


class Index:
    """The rows of an earlier survey that asked for the same."""

    def __init__(self, store: Store, asked: str, shapes: tuple[tuple[int, ...], ...]) -> None:
        self.store, self.asked, self.shapes = store, asked, shapes
        self.signatures: dict[str, str] = {}
        self.rows: dict[str, Row] = {}
        data = store.files.read(INDEX)
        # Torn by hand or foreign: everything is read again.
        with contextlib.suppress(*UNREADABLE):
            self._load(data or b"")

    def _schema(self) -> pa.Schema:
        kinds = zip((pa.int8(), pa.float64()), self.shapes, strict=True)
        pieces, noted = (pa.list_(kind, math.prod(shape)) for kind, shape in kinds)
        names, text = ("folder", "signature", "pieces", "noted", "rest"), pa.string()
        fields = map(pa.field, names, (text, text, pieces, noted, text))
        return pa.schema(fields, {"asked": f"{VERSION} {self.asked}"})

    def _load(self, data: bytes) -> None:
        batch = first_batch(data)
        if not batch.schema.equals(self._schema(), check_metadata=True):
            return
        folders, signatures = (batch[name].to_pylist() for name in ("folder", "signature"))
        if any(batch[name].values.null_count for name in ("pieces", "noted")):
            return
        # Not to_numpy, which imports pandas: half a second of every `status`.
        numbers = (np.from_dlpack(batch[name].values) for name in ("pieces", "noted"))
        pieces, noted = (
            array.reshape(len(folders), *shape)
            for array, shape in zip(numbers, self.shapes, strict=True)
        )
        notes = [NOTES.validate_json(rest or "{}") for rest in batch["rest"].to_pylist()]
        times = {j for said in notes for part in said.values() for j in part}
        if not ((pieces >= 0) & (pieces <= LAST)).all() or not times <= {*range(len(pieces[0]))}:
            return
        rows = (Row(*found, **said) for *found, said in zip(pieces, noted, notes, strict=True))
        self.signatures = dict(zip(folders, signatures, strict=True))
        self.rows = dict(zip(folders, rows, strict=True))

    def row(self, place: str) -> Row:
        """What was found in a folder."""
        return self.rows[place]

    def save(self, rows: Iterable[tuple[str, str, Row]]) -> None:
        """Replace the index by (folder, signature, row) of each trial."""
        rows = [row for row in rows if row[1]]
        if not rows:
            return
        places, signatures, found = zip(*rows, strict=True)
        rest = [
            json.dumps({"stale": r.stale, "errors": r.errors}) if r.stale or r.errors else ""
            for r in found
        ]
        columns = [
            pa.array(places),
            pa.array(signatures),
            _lists([r.pieces for r in found]),
            _lists([r.noted for r in found]),
            pa.array(rest),
        ]
        batch = pa.record_batch(columns, schema=self._schema())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        # A store that may only be read does without.
        with contextlib.suppress(OSError):
            self.store.files.write(INDEX, sink.getvalue().to_pybytes())


def _lists(arrays: list[np.ndarray]) -> pa.FixedSizeListArray:
    flat = pa.array(np.stack(arrays).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, arrays[0].size)
