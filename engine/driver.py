"""The driver of a run: snapshots to analyses, missing trials to Tune, receipts to the display."""

import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from engine.board import Board
from engine.cluster import cores
from engine.cost import Estimate, estimate
from engine.fanout import Fanout, share
from engine.grid import Cell, Trial
from engine.job import Job
from engine.progress import Display
from engine.tuning import OptunaPlan, Plan, longest_first, tune_trials
from engine.work import DONE, Survey
from trainables.datasets.data import Data


class Driver:
    """Runs what a survey lacks, on the Ray cluster that is up."""

    def __init__(self, job: Job, data: Data, todo: Survey, max_failures: int | None) -> None:
        self.job, self.data, self.todo, self.max_failures = job, data, todo, max_failures
        self.board = Board(job, data)
        self.failures = 0
        names = job.sweep.analyses
        # What each unfinished cell still waits for, so that the board shows it once it is whole.
        self.waiting: dict[Cell, set[str]] = defaultdict(lambda: set(names))
        self.trained: dict[Trial, int] = {}

    def work(self, resurvey: Callable[[], Survey]) -> None:
        """Everything that is missing; failures are counted, kept in the store, and shown."""
        predicted = estimate(self.job, self.todo)
        groups = {name: facts.group for name, facts in self.job.facts.analyses.items()}
        refs = share(self.job, self.data)
        training = self.todo.to_train()
        with self._display(training, predicted) as self.display:
            fanout = Fanout(
                *refs,
                groups,
                limit=cores(),
                on_receipt=self.on_receipt,
                gpus=self.job.sweep.resources.gpus_per_analysis,
            )
            self._submit_stored(fanout)
            if training:
                self._train(refs, training, predicted, fanout)
            fanout.drain()
            # A snapshot whose trial died before reporting it is in the store all the same.
            for cell, missing in resurvey().to_analyse():
                fanout.add(cell, missing)
            fanout.drain()
        self._finish_board(resurvey())

    def _display(self, training: list, predicted: Estimate) -> Display:
        left = sum(len(kimg) for _, kimg in training)
        stored = self.todo.to_analyse()
        tasks = self.job.sweep.analyses
        pieces = left * len(tasks) + sum(len(names) for _, names in stored)
        pieces += sum(len(names) for _, names in self.todo.to_reference())
        display = Display(trials=len(training), snapshots=left, analyses=pieces)
        display.expect(predicted.core_seconds)
        self.cost = predicted
        return display

    def _submit_stored(self, fanout: Fanout) -> None:
        """Start the display's log of unfinished trials; queue oracles and stored snapshots."""
        complete = self.todo.pieces[:, :, 1:] == DONE
        for i, trial in enumerate(self.todo.trials):
            if not complete[i].all():
                stored = [
                    k for k, row in zip(self.job.sweep.kimg, complete[i], strict=True) if row.all()
                ]
                self.board.begin(trial, stored)
        for subset, missing in self.todo.to_reference():
            fanout.add(subset, missing)
        for cell, missing in self.todo.to_analyse():
            self.waiting[cell] = set(missing)
            fanout.add(cell, missing)
        fanout.pump()

    def _train(self, refs: tuple, training: list, predicted: Estimate, fanout: Fanout) -> None:
        if self.job.sweep.search:
            plan = OptunaPlan(self.job)
        else:
            plan = Plan(longest_first(training, lambda trial: predicted.per_trial.get(trial, 0.0)))
        for error in tune_trials(self.job, refs, plan, fanout, self.on_snapshot, self.stop):
            self._failed(error)

    def stop(self) -> bool:
        """Whether so much has failed that nothing new should start."""
        return self.max_failures is not None and self.failures >= self.max_failures

    def on_snapshot(self, trial: Trial, result: dict[str, Any]) -> None:
        """A trial reported: a snapshot, its end, or its failure."""
        if result.get("failed"):
            record = self.job.store.trial_record(trial)
            self._failed(
                f"training {trial.address}: {record.get('error')}", record.get("traceback", "")
            )
        if result.get("kimg") is not None:
            share_of = self.cost.per_trial.get(trial, 0.0) / len(self.job.sweep.kimg)
            self.display.advance("snapshots", seconds=share_of)
        if result.get("done"):
            self.display.advance("trials")

    def on_receipt(self, receipt: dict[str, Any]) -> None:
        """A task ended: count its pieces, show its errors, log the cell once it is whole."""
        at, names = receipt["at"], receipt["names"]
        self.display.advance("analyses", len(names), seconds=receipt["seconds"] * len(names))
        for name, error in receipt["errors"].items():
            self._failed(
                f"{name} at {getattr(at, 'address', at)}: {error}", self._traceback(receipt, name)
            )
        if isinstance(at, Cell):
            left = self.waiting[at]
            left -= set(names) - set(receipt["errors"])
            if not left:
                del self.waiting[at]
                self._log(at)

    def _log(self, cell: Cell) -> None:
        """TensorBoard is for looking: what goes wrong there is said and costs no result."""
        try:
            if cell.trial not in self.board.left:
                self.board.begin(cell.trial, [])
            self.board.add(cell)
        except Exception as error:
            self.display.note(f"TensorBoard: {cell}: {error}\n{traceback.format_exc()}")

    def _traceback(self, receipt: dict[str, Any], name: str) -> str:
        from engine.store import receipt_name

        stored = self.job.store.read_receipts(
            receipt["at"], [receipt_name(receipt["at"], receipt["group"])]
        )
        return stored.get(name, {}).get("traceback", "")

    def _failed(self, message: str, detail: str = "") -> None:
        self.failures += 1
        self.display.fail(message, detail)

    def _finish_board(self, after: Survey) -> None:
        """Runs of finished trials whose log was lost are written again from the store."""
        self.board.close()
        complete = (after.pieces[:, :, 1:] == DONE).all(axis=(1, 2))
        for trial in (t for t, whole in zip(after.trials, complete, strict=True) if whole):
            if not self.board.has(trial):
                self.board.begin(trial, self.job.sweep.kimg)
        self.board.close()
