"""What a sweep lacks: the grid compared with the store.

Each (cell, analysis) and each training has one status. A piece counts when its fingerprint is the
one asked for; an older one is *stale*: pending, kept on disk until its replacement is complete.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.grid import Cell, Subset, Trial, moment, partner, subsets, trials
from engine.spec import Sweep
from engine.store import HEARTBEAT_SECONDS, Store, Stored, folder, piece_name

PENDING, RUNNING, DONE, FAILED, SKIPPED = range(5)
MEANINGS = ("pending", "running", "done", "failed", "skipped")


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
    pairs: dict[str, tuple[np.ndarray, list[int]]] = field(default_factory=dict)
    """Pair analyses: index of each trial's partner (-1: none), and what they need of both."""

    def measured(self) -> np.ndarray:
        """bool (trial, kimg, analysis): stored, or a pair without a partner."""
        settled = np.isin(self.pieces[:, :, 1:], (DONE, SKIPPED))
        return settled & (self.pieces[:, :, :1] != SKIPPED)

    def cells(self) -> np.ndarray:
        """int8 (trial, kimg): done when every analysis asked for has a valid piece."""
        measured = self.pieces[:, :, 1:]
        status = np.full(measured.shape[:2], PENDING, np.int8)
        reference = np.array([self._reference_status(trial.subset) for trial in self.trials])
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
    found = store.scan()
    every = trials(sweep)
    shape = (len(every), len(sweep.kimg), 1 + len(sweep.analyses))
    result = Survey(sweep, every, np.full(shape, PENDING, np.int8), {}, {})
    _pair_up(result, prints.get("needs", {}))
    for i, trial in enumerate(every):
        stored = found.get(folder(trial))
        if stored:
            _survey_trial(result, i, store, stored, prints["pieces"], live)
    for subset in subsets(sweep):
        stored = found.get(folder(subset), Stored())
        result.subsets[subset] = _survey_subset(
            result, store, subset, stored, prints["subset_pieces"]
        )
    if retry_failed:
        result.pieces[result.pieces == FAILED] = PENDING
        for states in result.subsets.values():
            states.update({a: PENDING for a, code in states.items() if code == FAILED})
        result.errors.clear()
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


def _skip_lost_pairs(result: Survey) -> None:
    """A pair whose partner will never be there is skipped too."""
    names = list(result.sweep.analyses)
    for name, (other, columns) in result.pairs.items():
        lost = np.isin(result.pieces[:, :, [0, *columns]], (FAILED, SKIPPED)).any(2)
        own = result.pieces[:, :, 1 + names.index(name)]
        own[(own == PENDING) & lost[other]] = SKIPPED


def _survey_trial(
    result: Survey, i: int, store: Store, stored: Stored, prints: Mapping[str, str], live: bool
) -> None:
    """Fill one trial's statuses from its folder."""
    sweep, trial = result.sweep, result.trials[i]
    record = store.trial_record(trial) if stored.has_record else {}
    # A comparison of two cells needs no snapshot: the others decide whether one is wanted.
    alone = [a for a, name in enumerate(sweep.analyses, start=1) if name not in result.pairs]
    for j, kimg in enumerate(sweep.kimg):
        cell, row = Cell(trial, kimg), result.pieces[i, j]
        for a, name in enumerate(sweep.analyses, start=1):
            if row[a] != SKIPPED and piece_name(cell, name) in stored.pieces:
                stored_print = store.piece_fingerprint(cell, name)
                row[a] = DONE if stored_print == prints[name] else PENDING
                if row[a] == PENDING:
                    result.stale[name] += 1
                    result.stale_prints[name, "pieces", stored_print] += 1
                    result.stale_at.setdefault((i, j), set()).add(name)
        receipts = _receipts(stored, moment(kimg)) if (row[1:] == PENDING).any() else []
        for name, receipt in store.read_receipts(cell, receipts).items():
            a = 1 + list(sweep.analyses).index(name) if name in sweep.analyses else 0
            if (
                a
                and row[a] == PENDING
                and receipt.get("error")
                and receipt["fingerprint"] == prints[name]
            ):
                row[a] = FAILED
                result.errors.setdefault((i, j), f"{name}: {receipt['error']}")
        complete = bool(alone) and (row[alone] == DONE).all()
        if not complete and moment(kimg) in stored.snapshots and not store.has_snapshot(cell):
            # Torn: trained to again, and what failed on it is tried again.
            stored.snapshots.discard(moment(kimg))
            row[row == FAILED] = PENDING
            result.errors.pop((i, j), None)
        row[0] = _training_status(record, stored, kimg, complete=complete, live=live)
        if row[0] == FAILED:
            result.errors.setdefault((i, j), f"training: {record.get('error')}")


def _training_status(
    record: dict, stored: Stored, kimg: float, *, complete: bool, live: bool
) -> int:
    if moment(kimg) in stored.snapshots or complete:
        return DONE
    if record.get("status") == "failed":
        return FAILED
    young = time.time() - record.get("heartbeat", 0) < HEARTBEAT_SECONDS
    return RUNNING if live and young and record.get("status") == "running" else PENDING


def _receipts(stored: Stored, prefix: str) -> list[str]:
    return sorted(name for name in stored.receipts if name.startswith(prefix + ","))


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
    asked = store.asked()
    points = [entry["point"] for entry in asked]
    over = len(asked) >= result.sweep.search.optuna.trials
    wanted = set()
    for i, trial in enumerate(result.trials):
        untouched = np.isin(result.pieces[i], (PENDING, SKIPPED)).all()
        if not untouched or dict(trial.coordinates) in points:
            wanted.add(trial.subset)
        elif over:
            result.pieces[i] = SKIPPED
    result.subsets = {s: states for s, states in result.subsets.items() if s in wanted}
