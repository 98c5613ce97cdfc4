"""Where a sweep's results lie: every path, read and write of the engine.

<storage>/<sweep>/
  sweep.json                          resolved sweep, facts, identity, history
  trials/<address>/trial.json         state of the training, one record per snapshot
                   checkpoint.safetensors  checkpoint-again.safetensors
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from engine import records, tensors
from engine.files import Files, join
from engine.grid import Cell, Point, Subset, Trial, moment
from engine.pieces import Layout, Layouts, Piece, decode, encode
from engine.records import Damaged
from engine.scan import Stored, scan

HEARTBEAT_SECONDS = 60
"""A trial whose record is younger counts as running."""


def place() -> dict[str, Any]:
    """Where this process runs, for records: host, process, and the raylet of its node."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "raylet": int(os.environ.get("RAY_RAYLET_PID", 0)),
    }


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
        self.layouts = Layouts()

    def __reduce__(self) -> tuple:
        return Store, (self.storage, self.sweep)

    @property
    def folder(self) -> str:
        """The sweep's folder as the user names it."""
        return self.files.shown

    # The sweep -----------------------------------------------------------------------------------

    def record(self) -> dict | None:
        """The content of sweep.json; None before the first run, or where it is torn or foreign.

        Then a run writes it anew; what is stored beside it stays.
        """
        return self.files.read_record("sweep.json", records.SWEEP)

    def write_record(self, record: dict) -> None:
        """Replace sweep.json."""
        self.files.write_json("sweep.json", record)

    def search(self) -> dict:
        """Points that a search has asked for, with their value; `over`: what it has answered."""
        asked = self.files.read_record("search.json", records.SEARCH)
        return {"asked": [], "over": None} | (asked or {})

    def asked(self) -> list[dict]:
        """Points that a search has asked for so far, with their objective."""
        return self.search()["asked"]

    def write_asked(self, asked: list[dict], over: str | None = None) -> None:
        """Replace the record of a search."""
        self.files.write_json("search.json", {"asked": asked, "over": over})

    def scan(self, known: Mapping[str, str] | None = None) -> dict[str, Stored]:
        """What is stored, by folder (`trials/<address>` or `subsets/<address>`).

        Args:
            known: signatures by folder; those that still hold are not listed again.
        """
        return scan(self.files, known or {})

    # Trials --------------------------------------------------------------------------------------

    def trial_record(self, trial: Trial) -> dict:
        """State of a training: status, error, one record per snapshot. Empty before it starts.

        One that is torn or lost is made again from the headers of the snapshots.
        """
        found = self.files.read_record(f"{folder(trial)}/trial.json", records.TRIAL)
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
            Damaged: the file is torn or foreign.
        """
        data = self.files.read(path)
        try:
            return None if data is None else tensors.decode(data)
        except ValueError as error:
            whole = "is not a whole safetensors file"
            raise Damaged(f"{self.folder}/{path} {whole}: {error}") from error

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
        layout = None if data is None else self.layouts.of(data)
        return None if layout is None else layout.piece.fingerprint

    def read_numbers(self, paths: Iterable[str]) -> Iterator[tuple[Layout, bytes] | None]:
        """Numbers of many pieces and how they lie in each; None where one is missing or torn."""
        for data in self.files.read_many(paths):
            layout = None if data is None else self.layouts.of(data)
            yield None if layout is None else (layout, layout.numbers(data))

    def read_piece(self, at: Cell | Subset, analysis: str) -> Piece | None:
        """A stored piece, or None.

        Raises:
            Damaged: the file is torn or foreign.
        """
        data = self.files.read(piece_path(at, analysis))
        try:
            return None if data is None else decode(data)
        except ValueError as error:
            raise Damaged(f"{self.folder}/{piece_path(at, analysis)}: {error}") from error

    def write_piece(self, at: Cell | Subset, analysis: str, piece: Piece) -> None:
        """Store a piece; a late writer replaces it by an equal one."""
        self.files.write(piece_path(at, analysis), encode(piece))

    def read_receipts(self, at: Cell | Subset, names: Iterable[str]) -> dict[str, dict]:
        """Seconds, error and attempts of each analysis, from the receipts of the given names."""
        merged: dict[str, dict] = {}
        for name in names:
            # A torn one says no more than a lost one: the pieces are what counts.
            receipt = self.files.read_record(f"{_folder_of(at)}/log/{name}.json", records.RECEIPT)
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


def checkpoint_path(trial: Trial, *, again: bool = False) -> str:
    """Where a trial's full state lies, relative to the sweep's folder.

    Args:
        again: that of a training on its way to a kimg before the stored state.
    """
    return f"{folder(trial)}/checkpoint{'-again' if again else ''}.safetensors"
