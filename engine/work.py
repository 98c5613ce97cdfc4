"""What a sweep lacks: the grid compared with the store.

Each (cell, analysis) and each training has one status. A piece counts when its fingerprint is the
one asked for; an older one is *stale*: pending, kept on disk until its replacement is complete.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.grid import Cell, Subset, Trial, moment, partner, trials
from engine.index import Index, Row
from engine.scan import Stored
from engine.spec import Sweep, as_mapping, canonical, digest
from engine.store import HEARTBEAT_SECONDS, Store, folder, piece_name

PENDING, RUNNING, DONE, FAILED, SKIPPED = range(5)
MEANINGS = ("pending", "running", "done", "failed", "skipped")
NOTED = ("stream_loss", "heldout_stream_loss", "train_seconds", "analysis_seconds")
"""Numbers of a cell that training and receipts note."""
RELISTED = 0.002
"""With more of the trials read anew than this share the index is written again."""


@dataclass
class Survey:
    """Status of everything on the grid, and the work that is left."""

    sweep: Sweep
    trials: list[Trial]
    pieces: np.ndarray
    """int8 (trial, kimg, 1 + analysis): the first entry is the training."""
    subsets: dict[Subset, dict[str, int]]
    errors: dict[tuple[int, int], str]
    """First error of a failed cell, by (trial, kimg) index."""
    stale: Counter = field(default_factory=Counter)
    """Number of pieces per analysis whose options or version have changed."""
    stale_prints: Counter = field(default_factory=Counter)
    """The same by (analysis, `pieces` or `subset_pieces`, stored fingerprint)."""
    stale_at: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    """The analyses with a stale piece, by (trial, kimg) index."""
    begun: np.ndarray | None = None
    """Under a search, bool (trial): asked for, or stored."""
    left: int = 0
    """How many further trials a search may ask for."""
    pairs: dict[str, tuple[np.ndarray, list[int]]] = field(default_factory=dict)
    """Pair analyses: index of each trial's partner (-1: none), and what they need of both."""
    noted: np.ndarray = field(default_factory=lambda: np.empty(0))
    """float64 (trial, number, kimg): the numbers `NOTED` of each cell."""
    found: dict[str, Stored] = field(default_factory=dict)
    """Folders of the store, by trial and subset."""

    def measured(self) -> np.ndarray:
        """bool (trial, kimg, analysis): stored, or a pair without a partner."""
        settled = np.isin(self.pieces[:, :, 1:], (DONE, SKIPPED))
        return settled & (self.pieces[:, :, :1] != SKIPPED)

    def cells(self) -> np.ndarray:
        """int8 (trial, kimg): done when every analysis asked for has a valid piece."""
        measured = self.pieces[:, :, 1:]
        status = np.full(measured.shape[:2], PENDING, np.int8)
        by_subset = {s: self._reference_status(s) for s in self.subsets}
        reference = np.array([by_subset.get(trial.subset, DONE) for trial in self.trials])
        complete = (self.pieces[:, :, 0] == DONE) & self.measured().all(2)
        complete &= (reference == DONE)[:, None]
        status[complete] = DONE
        status[(self.pieces == RUNNING).any(2) & ~complete] = RUNNING
        failed = (measured == FAILED).any(2) | (self.pieces[:, :, 0] == FAILED)
        status[(failed | (reference == FAILED)[:, None]) & ~complete] = FAILED
        status[self.pieces[:, :, 0] == SKIPPED] = SKIPPED
        return status

    def _reference_status(self, subset: Subset) -> int:
        found = self.subsets.get(subset, {}).values()
        return FAILED if FAILED in found else PENDING if PENDING in found else DONE

    def counts(self) -> dict[str, int]:
        """Number of cells by status."""
        found = Counter(self.cells().ravel().tolist())
        return {name: found.get(code, 0) for code, name in enumerate(MEANINGS)}

    def to_train(self) -> list[tuple[Trial, list[float]]]:
        """Trials that lack snapshots, with the training times that are missing."""
        lacking = self.pieces[:, :, 0] == PENDING
        return [
            (trial, [k for k, missing in zip(self.sweep.kimg, row, strict=True) if missing])
            for trial, row in zip(self.trials, lacking, strict=True)
            if row.any()
        ]

    def most(self) -> int:
        """How many trials a run trains: under a search at most."""
        lacking = (self.pieces[:, :, 0] == PENDING).any(axis=1)
        if self.begun is None:
            return int(lacking.sum())
        return int((lacking & self.begun).sum() + min(self.left, (lacking & ~self.begun).sum()))

    def to_analyse(self) -> list[tuple[Cell, list[str]]]:
        """Stored snapshots that lack pieces, with the analyses that are missing."""
        names = list(self.sweep.analyses)
        trained = self.pieces[:, :, 0] == DONE
        pending = (self.pieces[:, :, 1:] == PENDING) & trained[:, :, None]
        for name, (other, needs) in self.pairs.items():
            stored = (self.pieces[:, :, needs] == DONE).all(2)
            pending[:, :, names.index(name)] &= stored & stored[other]
        return [
            (
                Cell(self.trials[i], self.sweep.kimg[j]),
                [names[a] for a in np.flatnonzero(pending[i, j])],
            )
            for i, j in np.argwhere(pending.any(2))
        ]

    def to_reference(self) -> list[tuple[Subset, list[str]]]:
        """Subsets that lack pieces of their own, with the analyses that are missing."""
        lists = {
            s: [a for a, code in found.items() if code == PENDING]
            for s, found in self.subsets.items()
        }
        return [(subset, missing) for subset, missing in lists.items() if missing]

    def missing(self) -> int:
        """How many pieces are still to come, pairs and oracles included."""
        possible = np.isin(self.pieces[:, :, :1], (DONE, PENDING))
        of_cells = ((self.pieces[:, :, 1:] == PENDING) & possible).sum()
        return int(of_cells) + sum(len(names) for _, names in self.to_reference())

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to compute."""
        return not (self.to_train() or self.to_analyse() or self.to_reference())


def survey(
    sweep: Sweep,
    store: Store,
    prints: Mapping[str, Any],
    *,
    retry_failed: bool = False,
    live: bool = False,
) -> Survey:
    """Compare the grid with the store.

    Args:
        prints: the fingerprints asked for (`engine.resolve.fingerprints`).
        retry_failed: count what has failed as pending.
        live: mark trials with a young heartbeat as running (only `status` wants this).
    """
    every = trials(sweep)
    shape = (len(every), len(sweep.kimg), 1 + len(sweep.analyses))
    noted = np.full((len(every), len(NOTED), len(sweep.kimg)), np.nan)
    result = Survey(sweep, every, np.full(shape, PENDING, np.int8), {}, {}, noted=noted)
    _pair_up(result, prints.get("needs", {}))
    _survey_trials(result, store, prints, live)
    for subset in dict.fromkeys(trial.subset for trial in every):
        stored = result.found.get(folder(subset), Stored())
        result.subsets[subset] = _survey_subset(
            result, store, subset, stored, prints["subset_pieces"]
        )
    if retry_failed:
        result.pieces[result.pieces == FAILED] = PENDING
        for states in result.subsets.values():
            states.update({a: PENDING for a, code in states.items() if code == FAILED})
        result.errors.clear()
    _drop_torn(result, store)
    if sweep.search:
        _skip(result, store)
    _skip_lost_pairs(result)
    return result


def _pair_up(result: Survey, needs: Mapping[str, list[str]]) -> None:
    """Find the partners of all trials; a pair without a partner is skipped."""
    names, index = list(result.sweep.analyses), {t: i for i, t in enumerate(result.trials)}
    for name, needed in needs.items():
        found = [partner(trial, name, result.sweep) for trial in result.trials]
        other = np.array([index.get(trial, -1) for trial in found])
        result.pairs[name] = other, [1 + names.index(need) for need in needed]
        result.pieces[other == -1, :, 1 + names.index(name)] = SKIPPED


def _drop_torn(result: Survey, store: Store) -> None:
    """Snapshots that are needed but torn are trained again, and what failed on them is repeated.

    What nobody needs is not looked at.
    """
    alone = [a for a, name in enumerate(result.sweep.analyses, 1) if name not in result.pairs]
    lacking = np.isin(result.pieces[:, :, alone], (PENDING, FAILED)).any(2)
    for i, j in np.argwhere(lacking & (result.pieces[:, :, 0] == DONE)):
        if not store.has_snapshot(Cell(result.trials[i], result.sweep.kimg[j])):
            row = result.pieces[i, j]
            row[row == FAILED] = row[0] = PENDING
            result.errors.pop((int(i), int(j)), None)


def _skip_lost_pairs(result: Survey) -> None:
    """A pair whose partner will never be there is skipped too."""
    names = list(result.sweep.analyses)
    for name, (other, columns) in result.pairs.items():
        lost = np.isin(result.pieces[:, :, [0, *columns]], (FAILED, SKIPPED)).any(2)
        own = result.pieces[:, :, 1 + names.index(name)]
        own[(own == PENDING) & lost[other]] = SKIPPED


def _survey_trials(result: Survey, store: Store, prints: Mapping[str, Any], live: bool) -> None:
    """Fill the statuses of all trials, from the index where their folders have not changed."""
    sweep = result.sweep
    asked = digest([sweep.kimg, sweep.analyses, prints, sweep.axes if result.pairs else None])
    index = Index(store, asked, (result.pieces.shape[1:], result.noted.shape[1:]))
    result.found, rows, read = store.scan(index.signatures), [], 0
    for i, trial in enumerate(result.trials):
        place = folder(trial)
        stored = result.found.get(place)
        if stored is None:
            continue
        if stored.listed:
            row, lasting = _survey_trial(result, i, store, stored, prints["pieces"], live)
            read += 1
        else:
            row, lasting = index.row(place), True
        result.pieces[i], result.noted[i] = row.pieces, row.noted
        for j, stale in row.stale.items():
            result.stale.update(stale.keys())
            result.stale_prints.update((name, "pieces", print_) for name, print_ in stale.items())
            result.stale_at[i, j] = set(stale)
        result.errors |= {(i, j): error for j, error in row.errors.items()}
        rows.append((place, stored.signature if lasting else "", row))
    if read > RELISTED * len(rows):
        index.save(rows)


def _survey_trial(
    result: Survey, i: int, store: Store, stored: Stored, prints: Mapping[str, str], live: bool
) -> tuple[Row, bool]:
    """What one trial's folder holds, and whether that depends on the folder alone."""
    sweep, trial = result.sweep, result.trials[i]
    names = list(sweep.analyses)
    record = store.trial_record(trial) if stored.has_record else {}
    found = Row(result.pieces[i].copy(), result.noted[i].copy())
    # A comparison of two cells needs no snapshot: the others decide whether one is wanted.
    alone = [a for a, name in enumerate(names, start=1) if name not in result.pairs]
    receipts = defaultdict(list)
    for name in sorted(stored.receipts):
        receipts[name.rpartition(",")[0]].append(name)
    for j, kimg in enumerate(sweep.kimg):
        cell, row = Cell(trial, kimg), found.pieces[j]
        for a, name in enumerate(names, start=1):
            if row[a] != SKIPPED and piece_name(cell, name) in stored.pieces:
                stored_print = store.piece_fingerprint(cell, name)
                row[a] = DONE if stored_print == prints[name] else PENDING
                if row[a] == PENDING:
                    found.stale.setdefault(j, {})[name] = stored_print
        said = store.read_receipts(cell, receipts[moment(kimg)])
        for name, receipt in said.items():
            a = 1 + names.index(name) if name in names else 0
            if (
                a
                and row[a] == PENDING
                and receipt.get("error")
                and receipt["fingerprint"] == prints[name]
            ):
                row[a] = FAILED
                found.errors.setdefault(j, f"{name}: {receipt['error']}")
        complete = bool(alone) and (row[alone] == DONE).all()
        row[0] = _training_status(record, stored, kimg, complete=complete, live=live)
        if row[0] == FAILED:
            found.errors.setdefault(j, f"training: {record.get('error')}")
        numbers = record.get("snapshots", {}).get(moment(kimg), {})
        if said:
            numbers = {
                **numbers,
                "analysis_seconds": sum(r.get("seconds", 0.0) for r in said.values()),
            }
        found.noted[:, j] = [numbers.get(name, np.nan) for name in NOTED]
    return found, record.get("status") != "running"


def _training_status(
    record: dict, stored: Stored, kimg: float, *, complete: bool, live: bool
) -> int:
    if moment(kimg) in stored.snapshots or complete:
        return DONE
    if record.get("status") == "failed":
        return FAILED
    young = time.time() - record.get("heartbeat", 0) < HEARTBEAT_SECONDS
    return RUNNING if live and young and record.get("status") == "running" else PENDING


def _survey_subset(
    result: Survey, store: Store, subset: Subset, stored: Stored, prints: Mapping[str, str]
) -> dict[str, int]:
    states = {}
    receipts = store.read_receipts(subset, sorted(stored.receipts))
    for name, wanted in prints.items():
        receipt = receipts.get(name, {})
        there = name in stored.pieces
        stored_print = store.piece_fingerprint(subset, name) if there else None
        if there and stored_print == wanted:
            states[name] = DONE
        elif receipt.get("error") and receipt["fingerprint"] == wanted:
            states[name] = FAILED
            for i, trial in enumerate(result.trials):
                if trial.subset == subset:
                    for j in range(len(result.sweep.kimg)):
                        result.errors.setdefault(
                            (i, j), f"{name} of the subset: {receipt['error']}"
                        )
        else:
            states[name] = PENDING
            if there:
                result.stale[name] += 1
                result.stale_prints[name, "subset_pieces", stored_print] += 1
    return states


def _skip(result: Survey, store: Store) -> None:
    """Mark what a finished search did not ask for; oracles are wanted for what it did."""
    search, record = result.sweep.search, store.search()
    points = {canonical(entry["point"]) for entry in record["asked"]}
    untouched = np.isin(result.pieces, (PENDING, SKIPPED)).all(axis=(1, 2))
    asked = [canonical(dict(trial.coordinates)) in points for trial in result.trials]
    result.begun = ~untouched | np.array(asked)
    if search.optuna:
        result.left = max(search.optuna.trials - len(record["asked"]), 0)
        over = result.left == 0
    else:
        result.left = max(search.boundary.budget - int(result.begun.sum()), 0)
        over = record["over"] == question(result.sweep)
    if over:
        result.pieces[~result.begun] = SKIPPED
    wanted = {t.subset for t, begun in zip(result.trials, result.begun, strict=True) if begun}
    result.subsets = {s: states for s, states in result.subsets.items() if s in wanted}


def question(sweep: Sweep) -> str:
    """What a search answers: asked otherwise, or on another grid, it goes on."""
    search = as_mapping(sweep)["search"]
    return digest([search, sweep.axes, sweep.kimg])
