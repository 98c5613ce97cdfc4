"""Where a sweep's results lie: every path, read and write of the engine.

<storage>/<sweep>/
  sweep.json                          resolved sweep, facts, identity, history
  trials/<address>/trial.json         state of the training, one record per snapshot
                   checkpoint.safetensors
                   snapshots/kimg=64.safetensors
                   pieces/kimg=64,<analysis>.arrow
                   log/kimg=64,<group>.json      receipts: seconds, host, errors
  subsets/<address>/pieces/<analysis>.arrow      what depends on the training points alone
  search.json  tensorboard/  results.zarr  results.nc  figures/
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from engine import records, tensors
from engine.files import Files, join
from engine.grid import Cell, Point, Subset, Trial, moment
from engine.pieces import Piece, decode, encode, fingerprint_of
from engine.records import Damaged

HEARTBEAT_SECONDS = 60
"""A trial whose record is younger counts as running."""


def place() -> dict[str, Any]:
    """Where this process runs, for records: host, process, and the raylet of its node."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "raylet": int(os.environ.get("RAY_RAYLET_PID", 0)),
    }


@dataclass
class Stored:
    """What lies in one trial's or subset's folder, by listing alone."""

    snapshots: set[str] = field(default_factory=set)
    pieces: set[str] = field(default_factory=set)
    receipts: set[str] = field(default_factory=set)
    has_record: bool = False


class Store:
    """The folder of one sweep.

    Args:
        out: another folder for what is derived from the store (cube, tables, figures), for a store
            that may only be read.
    """

    def __init__(self, storage: str, sweep: str, out: str | None = None) -> None:
        # Absolute: a worker that is handed the store has another working directory.
        self.storage = storage if "://" in storage else os.path.abspath(storage)
        self.sweep = sweep
        self.files = Files(join(self.storage, sweep))
        self.out = self.files if out is None else Files(out)

    def __reduce__(self) -> tuple:
        return Store, (self.storage, self.sweep)

    @property
    def folder(self) -> str:
        """The sweep's folder as the user names it."""
        return self.files.shown

    # The sweep -----------------------------------------------------------------------------------

    def record(self) -> dict | None:
        """The content of sweep.json, or None before the first run.

        Raises:
            Damaged: it is torn or foreign.
        """
        way_out = "put a copy of it back, or remove it: a run writes it anew, what is stored stays"
        return self._whole("sweep.json", records.SWEEP, way_out)

    def _whole(self, name: str, kind: TypeAdapter, way_out: str) -> Any:
        try:
            return self.files.read_json(name, kind.validate_json)
        except ValueError as error:
            raise Damaged(f"{self.folder}/{name} is damaged: {way_out}\n{error}") from error

    def write_record(self, record: dict) -> None:
        """Replace sweep.json."""
        self.files.write_json("sweep.json", record)

    def asked(self) -> list[dict]:
        """Points that a search has asked for so far, with their objective.

        Raises:
            Damaged: the record is torn or foreign.
        """
        way_out = "remove it: the search asks anew, and stored trials cost nothing"
        return (self._whole("search.json", records.SEARCH, way_out) or {"asked": []})["asked"]

    def write_asked(self, asked: list[dict]) -> None:
        """Replace the record of a search."""
        self.files.write_json("search.json", {"asked": asked})

    def scan(self) -> dict[str, Stored]:
        """What is stored, by folder (`trials/<address>` or `subsets/<address>`)."""
        found: dict[str, Stored] = {}
        for root in ("trials", "subsets"):
            for path in self.files.listing(root):
                _, address, *rest = path.split("/")
                stored = found.setdefault(f"{root}/{address}", Stored())
                if rest == ["trial.json"]:
                    stored.has_record = True
                elif len(rest) == 2:
                    kind = {
                        "snapshots": stored.snapshots,
                        "pieces": stored.pieces,
                        "log": stored.receipts,
                    }.get(rest[0])
                    if kind is not None:
                        kind.add(rest[1].rsplit(".", 1)[0])
        return found

    # Trials --------------------------------------------------------------------------------------

    def trial_record(self, trial: Trial) -> dict:
        """State of a training: status, error, one record per snapshot. Empty before it starts.

        One that is torn or lost is made again from the headers of the snapshots.
        """
        with contextlib.suppress(ValueError):
            path = f"{folder(trial)}/trial.json"
            found = self.files.read_json(path, records.TRIAL.validate_json)
            if found is not None:
                return found
        noted = {}
        for path in self.files.listing(f"{folder(trial)}/snapshots"):
            header = self.read_header(path) or {}
            if "numbers" in header:
                noted[PurePath(path).stem] = json.loads(header["numbers"])
        return {"snapshots": noted} if noted else {}

    def write_trial_record(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Replace a trial's record, stamped with the time."""
        stamped = {**record, "coordinates": dict(trial.coordinates), "heartbeat": time.time()}
        self.files.write_json(f"{folder(trial)}/trial.json", stamped)

    def read_tensors(self, path: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Tensors and header of a safetensors file, or None where there is none.

        Raises:
            ValueError: the file is torn or foreign.
        """
        data = self.files.read(path)
        try:
            return None if data is None else tensors.decode(data)
        except ValueError as error:
            raise ValueError(f"{self.folder}/{path} is not a whole safetensors file") from error

    def read_header(self, path: str) -> dict[str, str] | None:
        """The header of a safetensors file; None where there is none or it is not whole."""
        with contextlib.suppress(FileNotFoundError, ValueError), self.files.open(path) as file:
            return tensors.header_of(file, file.size())
        return None

    def has_snapshot(self, cell: Cell) -> bool:
        """Whether a cell's snapshot is there, as long as it says it is."""
        return self.read_header(snapshot_path(cell)) is not None

    def write_tensors(
        self, path: str, arrays: Mapping[str, np.ndarray], header: Mapping[str, str]
    ) -> None:
        """Replace a safetensors file."""
        self.files.write(path, tensors.encode(arrays, header))

    # Pieces --------------------------------------------------------------------------------------

    def piece_fingerprint(self, at: Cell | Subset, analysis: str) -> str | None:
        """The fingerprint of a stored piece; None where there is none or it is torn."""
        data = self.files.read(piece_path(at, analysis))
        return None if data is None else fingerprint_of(data)

    def read_piece(self, at: Cell | Subset, analysis: str) -> Piece | None:
        """A stored piece, or None."""
        data = self.files.read(piece_path(at, analysis))
        return None if data is None else decode(data)

    def write_piece(self, at: Cell | Subset, analysis: str, piece: Piece) -> None:
        """Store a piece; a late writer replaces it by an equal one."""
        self.files.write(piece_path(at, analysis), encode(piece))

    def read_receipts(self, at: Cell | Subset, names: Iterable[str]) -> dict[str, dict]:
        """Seconds, error and attempts of each analysis, from the receipts of the given names."""
        merged: dict[str, dict] = {}
        for name in names:
            path = f"{_folder_of(at)}/log/{name}.json"
            # A torn one says no more than a lost one: the pieces are what counts.
            with contextlib.suppress(ValueError):
                receipt = self.files.read_json(path, records.RECEIPT.validate_json)
                merged.update(receipt["analyses"] if receipt else {})
        return merged

    def add_receipts(
        self,
        at: Cell | Subset,
        group: str,
        receipts: Mapping[str, Mapping[str, Any]],
        lost: Sequence[str] = (),
    ) -> None:
        """Note what a task did: never part of a piece, whose bytes depend on its inputs alone.

        Args:
            receipts: seconds, fingerprint and perhaps error of each of its analyses.
            lost: errors of earlier attempts of the same task, which noted nothing themselves.
        """
        merged = self.read_receipts(at, [receipt_name(at, group)])
        for name, receipt in receipts.items():
            before = merged.get(name, {})
            errors = [*before.get("errors", []), *lost]
            errors += [receipt["error"]] if "error" in receipt else []
            attempts = before.get("attempts", 0) + len(lost) + 1
            merged[name] = {**receipt, "attempts": attempts, "errors": errors}
        note = {
            "analyses": merged,
            **place(),
            "time": time.time(),
        }
        self.files.write_json(f"{_folder_of(at)}/log/{receipt_name(at, group)}.json", note)


def folder(point: Point) -> str:
    """The folder of a trial or subset, relative to the sweep's."""
    return f"{'subsets' if isinstance(point, Subset) else 'trials'}/{point.address}"


def _folder_of(at: Cell | Subset) -> str:
    return folder(at.trial if isinstance(at, Cell) else at)


def piece_name(at: Cell | Subset, analysis: str) -> str:
    """File name of a piece without its ending, e.g. `kimg=64,linearity`."""
    return f"{moment(at.kimg)},{analysis}" if isinstance(at, Cell) else analysis


def piece_path(at: Cell | Subset, analysis: str) -> str:
    """Where a piece lies, relative to the sweep's folder."""
    return f"{_folder_of(at)}/pieces/{piece_name(at, analysis)}.arrow"


def receipt_name(at: Cell | Subset, group: str) -> str:
    """File name of a task's receipt without its ending."""
    return piece_name(at, group)


def snapshot_path(cell: Cell) -> str:
    """Where a snapshot lies, relative to the sweep's folder."""
    return f"{folder(cell.trial)}/snapshots/{moment(cell.kimg)}.safetensors"


def checkpoint_path(trial: Trial) -> str:
    """Where a trial's full state lies, relative to the sweep's folder."""
    return f"{folder(trial)}/checkpoint.safetensors"
