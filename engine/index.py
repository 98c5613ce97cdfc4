"""What a survey found in each trial's folder, kept so that the next one reads what changed alone.

Derived from the store and rebuildable: `index.ipc` in the sweep's folder, one row a trial, valid
as long as the folder's signature is the same and the sweep asks for the same of each trial. Rows
of trials that were running are never kept: whether they still do depends on the clock.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from engine.pieces import UNREADABLE
from engine.store import Store

INDEX = "index.ipc"
VERSION = "1"


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
        self.places: dict[str, int] = {}
        self._load()

    def _load(self) -> None:
        data = self.store.files.read(INDEX)
        if data is None:
            return
        try:
            table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        except UNREADABLE:
            return  # torn by hand: everything is read again
        if (table.schema.metadata or {}).get(b"asked") != f"{VERSION} {self.asked}".encode():
            return
        folders = table["folder"].to_pylist()
        self.signatures = dict(zip(folders, table["signature"].to_pylist(), strict=True))
        self.places = {place: i for i, place in enumerate(folders)}
        # Not to_numpy, which imports pandas: half a second of every `status`.
        arrays = (np.from_dlpack(table[n].combine_chunks().values) for n in ("pieces", "noted"))
        self.pieces, self.noted = (
            array.reshape(len(folders), *shape)
            for array, shape in zip(arrays, self.shapes, strict=True)
        )
        self.rest = table["rest"].to_pylist()

    def row(self, place: str) -> Row:
        """What was found in a folder."""
        i = self.places[place]
        rest = json.loads(self.rest[i]) if self.rest[i] else {"stale": {}, "errors": {}}
        stale, errors = ({int(j): v for j, v in rest[n].items()} for n in ("stale", "errors"))
        return Row(self.pieces[i], self.noted[i], stale, errors)

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
        columns = {
            "folder": pa.array(places),
            "signature": pa.array(signatures),
            "pieces": _lists([r.pieces for r in found]),
            "noted": _lists([r.noted for r in found]),
            "rest": pa.array(rest),
        }
        table = pa.table(columns).replace_schema_metadata({"asked": f"{VERSION} {self.asked}"})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        # A store that may only be read does without.
        with contextlib.suppress(OSError):
            self.store.files.write(INDEX, sink.getvalue().to_pybytes())


def _lists(arrays: list[np.ndarray]) -> pa.FixedSizeListArray:
    flat = pa.array(np.stack(arrays).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, arrays[0].size)
