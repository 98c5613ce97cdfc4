"""The driver of a run: snapshots to analyses, missing trials to Tune, receipts to the display."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from traceback import format_exc
from typing import Any

from engine.board import Board
from engine.boundary import BoundaryPlan
from engine.cluster import Room, analysis_ask, trial_ask
from engine.cost import check_disk, estimate
from engine.fanout import Fanout, reason_of, share
from engine.files import Full
from engine.grid import Cell, Subset, Trial
from engine.job import Job
from engine.moments import MANY, pool_moments
from engine.pricing import reference_seconds
from engine.progress import Display
from engine.store import receipt_name
from engine.tuning import OptunaPlan, Plan, longest_first, tune_trials
from engine.vigil import Vigil, deadline
from engine.work import Survey
from trainables.datasets.data import Data

GRACE = 10.0
"""Seconds that tasks in flight get to write when the run is interrupted."""
RETRIES = 3
"""Times that a trial whose process died is tried again without anything new in the store."""


class Driver:
    """Runs what a survey lacks, on the Ray cluster that is up."""

    def __init__(self, job: Job, data: Data, todo: Survey, max_failures: int | None) -> None:
        self.job, self.data, self.todo, self.max_failures = job, data, todo, max_failures
        self.board, self.board_failed = Board(job, data), False
        self.failures = 0
        self.full: Full | None = None
        self.fanout: Fanout | None = None
        # Snapshots come from Tune's thread, receipts from the fan-out's.
        self.lock = threading.Lock()
        # Pairs come when both cells are stored, after everything else.
        names = job.facts.alone
        # What each unfinished cell still waits for, so that the board shows it once it is whole.
        self.waiting: dict[Cell | Subset, set[str]] = defaultdict(lambda: set(names))

    def work(self, resurvey: Callable[[], Survey]) -> None:
        """Everything that is missing; failures are counted, kept in the store, and shown."""
        resources, training = self.job.sweep.resources, self.todo.to_train()
        room = Room(analysis_ask(resources))
        # Before anything starts: no node may be able to hold a trial.
        self.trial_room = Room(trial_ask(resources)) if training else None
        self.cost = estimate(self.job, self.todo)
        check_disk(self.job, self.cost, self.job.sweep.name)
        if self.data.dim > MANY:  # once, before every process that analyses asks for them
            pool_moments(self.data)
        refs = share(self.job, self.data)
        with self._display(training) as self.display:
            self.fanout = fanout = Fanout(
                *refs,
                {name: facts.group for name, facts in self.job.facts.analyses.items()},
                room=room,
                on_receipt=self.on_receipt,
                deadline=self._deadline,
                stop=self.stop,
            )
            try:
                self._submit_stored(fanout)
                if training:
                    self._train(refs, training, fanout)
                if self.full is not None:
                    raise self.full
                fanout.drain()
                # Left: the oracles of what a search asked for, snapshots whose trial died before
                # reporting them; and then, all else being stored, pairs of cells.
                for _ in range(2):
                    after = resurvey()
                    for at, missing in [*after.to_reference(), *after.to_analyse()]:
                        fanout.add(at, missing)
                    fanout.drain()
            finally:
                fanout.close(GRACE)
        self._finish_board(resurvey())

    def _display(self, training: list) -> Display:
        left = sum(len(kimg) for _, kimg in training)
        trials, missing = self.todo.most(), self.todo.missing()
        if training:  # a search trains a part of them
            left, missing = (count * trials // len(training) for count in (left, missing))
        display = Display(trials=trials, snapshots=left, analyses=missing)
        display.expect(self.cost.core_seconds)
        return display

    def _submit_stored(self, fanout: Fanout) -> None:
        """Start the display's log of unfinished trials; queue oracles and stored snapshots."""
        complete = self.todo.measured()
        for i, trial in enumerate(self.todo.trials):
            if not complete[i].all():
                stored = [
                    k for k, row in zip(self.job.sweep.kimg, complete[i], strict=True) if row.all()
                ]
                with self._board_errors():
                    self.board.begin(trial, stored)
        for at, missing in [*self.todo.to_reference(), *self.todo.to_analyse()]:
            self.waiting[at] = set(missing) & set(self.job.facts.alone)
            fanout.add(at, missing)

    def _train(self, refs: tuple, training: list, fanout: Fanout) -> None:
        search, job = self.job.sweep.search, self.job
        if search is None:
            plan = Plan(longest_first(training, lambda trial: self.cost.per_trial.get(trial, 0.0)))
        elif search.optuna:
            plan = OptunaPlan(job)
        else:
            plan = BoundaryPlan(job.sweep, job.store, job.prints, self.todo)
        vigil = Vigil(job.store, lambda trial: deadline(self._per_snapshot(trial) or None))
        calls = self.on_snapshot, self.on_lost
        tune_trials(self.job, refs, plan, fanout, *calls, vigil, self.stop, self.trial_room)

    def stop(self) -> bool:
        """Whether so much has failed that nothing new should start, trials or analyses."""
        failed = self.max_failures is not None and self.failures >= self.max_failures
        broken = self.fanout is not None and self.fanout.error is not None
        return failed or broken or self.full is not None

    def on_snapshot(self, trial: Trial, result: dict[str, Any]) -> None:
        """A trial reported: a snapshot, its end, or its failure."""
        with self.lock:
            if result.get("full"):
                self.full = Full(result["full"])
            if result.get("failed"):
                record = self.job.store.trial_record(trial)
                reason = f"training {trial.address}: {record.get('error')}"
                self._failed(reason, record.get("traceback", ""))
            if result.get("kimg") is not None:
                self.display.advance("snapshots", seconds=self._per_snapshot(trial))
            if result.get("done"):
                self.display.advance("trials")

    def on_lost(self, trial: Trial, said: str) -> bool:
        """A trial's process failed: note why. True: too often without progress, it has failed."""
        store, reason = self.job.store, reason_of(said)
        record = store.trial_record(trial)
        losses = record.get("losses", 0) + 1
        record |= {"errors": [*record.get("errors", []), reason], "losses": losses}
        record["status"] = "pending"
        if failed := losses > RETRIES:
            del record["losses"]
            record |= {"status": "failed", "error": reason, "traceback": said}
            record |= {"fingerprint": self.job.prints["snapshot"]}
        store.write_trial_record(trial, record)
        with self.lock:
            if failed:
                self._failed(f"training {trial.address}: {reason}", said)
            else:
                self.display.note(f"training {trial.address} is tried again: {reason}")
        return failed

    def on_receipt(self, receipt: dict[str, Any]) -> None:
        """A task ended: count its pieces, show its errors, log the cell once it is whole."""
        at, names = receipt["at"], receipt["names"]
        if receipt.get("lost"):
            self._note_lost(receipt)
        with self.lock:
            seconds = self._predicted(at, names) or 0.0
            self.display.advance("analyses", len(names), seconds=seconds)
            for name, error in receipt["errors"].items():
                place = at if isinstance(at, Cell) else at.address
                self._failed(f"{name} at {place}: {error}", self._traceback(receipt, name))
            # A comparison of two cells comes after the cell was whole: nothing waits for it.
            if isinstance(at, Cell) and not set(names).isdisjoint(self.job.facts.alone):
                left = self.waiting[at]
                left -= set(names) - set(receipt["errors"])
                if not left:
                    del self.waiting[at]
                    self._log(at)

    def _predicted(self, at: Cell | Subset, names: Sequence[str]) -> float | None:
        """Seconds of a task; None if nothing is known of it."""
        if isinstance(at, Cell):
            return self.cost.of_cell(at.trial, names)
        # Finished ones may have been of few points: what they teach only lengthens.
        return max(1.0, self.cost.oracle_factor) * reference_seconds(self.job, at, names)

    def _deadline(self, at: Cell | Subset, names: Sequence[str]) -> float:
        """Seconds that a task may take, what its machine has to compute before it included."""
        predicted = self._predicted(at, names)
        return deadline(None if predicted is None else predicted + self.cost.first_seconds)

    def _per_snapshot(self, trial: Trial) -> float:
        return self.cost.per_trial.get(trial, 0.0) / len(self.job.sweep.kimg)

    def _note_lost(self, receipt: dict[str, Any]) -> None:
        """What a task could not store itself: why it failed."""
        at, job = receipt["at"], self.job
        receipts = {
            name: {"seconds": 0.0, "fingerprint": job.piece_print(at, name), "error": error}
            for name, error in receipt["errors"].items()
        }
        job.store.add_receipts(at, receipt["group"], receipts, receipt["lost"][:-1])

    def _log(self, cell: Cell) -> None:
        with self._board_errors():
            if cell.trial not in self.board.left:
                self.board.begin(cell.trial, [])
            self.board.add(cell)

    @contextmanager
    def _board_errors(self) -> Iterator[None]:
        """TensorBoard is for looking: what goes wrong there is said, once, and costs no result.

        A full disk is everybody's.
        """
        try:
            with self.job.store.files.noticing_full():
                yield
        except Full:
            raise
        except Exception as error:
            if not self.board_failed:
                self.display.note(f"TensorBoard is not complete: {error}\n{format_exc()}")
            self.board_failed = True

    def _traceback(self, receipt: dict[str, Any], name: str) -> str:
        stored = self.job.store.read_receipts(
            receipt["at"], [receipt_name(receipt["at"], receipt["group"])]
        )
        return stored.get(name, {}).get("traceback", "")

    def _failed(self, message: str, detail: str = "") -> None:
        self.failures += 1
        self.display.fail(message, detail)

    def _finish_board(self, after: Survey) -> None:
        """Runs of finished trials whose log was lost are written again from the store."""
        with self._board_errors():
            self.board.close()
        complete = after.measured().all(axis=(1, 2))
        for trial in (t for t, whole in zip(after.trials, complete, strict=True) if whole):
            if not self.board.has(trial):
                with self._board_errors():
                    self.board.begin(trial, self.job.sweep.kimg)
        with self._board_errors():
            self.board.close()
