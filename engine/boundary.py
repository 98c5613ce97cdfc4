"""Asks for the trials that locate a boundary in n_train: where a share passes a level, per width.

A coarse grid first; then, one after the other, the trial that is expected to narrow the intervals
of N* most (`analyses.level_set`), until all are as narrow as asked for, the budget is spent, or
nothing is left to ask where they are wider. Further axes and kimg make groups with a boundary
each; seeds, draws and splits are replicates of one. A training gives every kimg: whether all of
them count or the last alone, a trial is asked for as a whole.

Trials that are under way count with the share that is expected of them, so that several can be
asked for at a time. What is asked for depends on what is stored alone: `search.json` lists it
before it starts, and shares are read from the pieces.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses.level_set import Fit, LevelSet
from engine.grid import Cell, Trial, trials
from engine.spec import STANDARD_AXES, Sweep, canonical
from engine.store import Store
from engine.work import DONE, FAILED, Survey, question

__all__ = ["METRICS", "WAIT", "Boundary", "BoundaryPlan", "coarse", "replay"]

METRICS = {"memorized_fraction": "memorization", "memorized_label_fraction": "novelty"}
"""Shares of samples that fall with n_train, and the analysis that measures each."""
WAIT = object()
"""Nothing to ask for before more has been measured."""
COARSE = 3
"""Values of an axis of numbers on the coarse grid."""
REPLICATES = ("seed", "draw", "split")


def coarse(sweep: Sweep) -> list[Trial]:
    """The trials that come first: few widths from end to end, few n_train from within.

    All values of an axis of text, and the first seed, draw and split.
    """
    kept = {axis: _thinned(axis, values) for axis, values in sweep.axes.items()}
    return [t for t in trials(sweep) if all(value in kept[axis] for axis, value in t.coordinates)]


def _thinned(axis: str, values: Sequence[Any]) -> list[Any]:
    size = min(COARSE, len(values))
    if axis in REPLICATES:
        return [values[0]]
    if axis == "n_train":
        return [values[int((i + 0.5) / size * len(values))] for i in range(size)]
    if any(isinstance(v, str | bool) for v in values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, size).round().astype(int)]


class Boundary:
    """What to ask for, given the shares that have been measured; knows no store.

    Args:
        slots: trials without a share at a time, once the coarse grid has been asked for.
    """

    def __init__(self, sweep: Sweep, slots: int) -> None:
        self.settings, self.slots = sweep.search.boundary, slots
        axes = sweep.axes
        self.times = list(sweep.kimg) if self.settings.kimg == "every" else [sweep.kimg[-1]]
        further = [a for a in axes if a not in STANDARD_AXES]
        keys = [further, ["width"], ["n_train"], REPLICATES]
        levels = [
            {point: i for i, point in enumerate(itertools.product(*(axes[a] for a in names)))}
            for names in keys
        ]
        self.place: dict[Trial, tuple[int, ...]] = {
            trial: tuple(
                level[tuple(trial[a] for a in names)]
                for names, level in zip(keys, levels, strict=True)
            )
            for trial in trials(sweep)
        }
        self.at = {place: trial for trial, place in self.place.items()}
        self.coarse = coarse(sweep)
        self.model = LevelSet(
            axes["n_train"], axes["width"], self.settings.level, sweep.sampler.samples
        )
        groups, *rest = map(len, levels)
        self.share = np.full((groups, len(self.times), *rest), np.nan)
        self.asked: dict[Trial, None] = {}
        self.told: set[Trial] = set()

    @property
    def pending(self) -> list[Trial]:
        """Trials that were asked for and whose share is not known yet."""
        return [trial for trial in self.asked if trial not in self.told]

    def tell(self, trial: Trial, shares: Sequence[float]) -> None:
        """The shares of a trial at the kimg that count; NaN where there will be none."""
        group, *rest = self.place[trial]
        self.share[(group, slice(None), *rest)] = shares
        self.asked[trial] = None
        self.told.add(trial)

    def fit(self, *, imagined: bool = False) -> Fit:
        """Posterior of the boundaries: group and kimg flattened, by width."""
        share = self.share
        if imagined and self.pending:
            share, fit = share.copy(), self.fit()
            for trial in self.pending:
                group, width, n, replicate = self.place[trial]
                for k in range(len(self.times)):
                    expected = fit.expected(group * len(self.times) + k, width, n)
                    share[group, k, width, n, replicate] = expected
        return self.model.fit(share.reshape(-1, *share.shape[2:]))

    def ask(self) -> Any:
        """The trial to start next, WAIT, or None when the search is over."""
        if len(self.asked) >= self.settings.budget:
            return None
        chosen = next((trial for trial in self.coarse if trial not in self.asked), None)
        if chosen is None:
            if len(self.pending) >= self.slots:
                return WAIT
            narrow = (self.fit().widths <= self.settings.target_width).all()
            # What is under way may widen an interval again.
            chosen = None if narrow else self._best()
        if chosen is None:
            return WAIT if self.pending else None
        self.asked[chosen] = None
        return chosen

    def _best(self) -> Trial | None:
        """The trial of most gain among those that were not asked for, where it is needed."""
        fit, target = self.fit(imagined=True), self.settings.target_width
        wide = fit.widths.reshape(*self.share.shape[:3]) > target
        best, most = None, -np.inf
        for group, width in np.argwhere(wide.any(axis=1)).tolist():
            rows = group * len(self.times) + np.flatnonzero(wide[group, :, width])
            gain = sum(fit.gain(int(row), width, target) for row in rows)
            for n in np.argsort(-gain, kind="stable").tolist():
                free = self._free(group, width, n)
                if free is not None:
                    if gain[n] > most:
                        best, most = free, gain[n]
                    break
        return best

    def _free(self, group: int, width: int, n: int) -> Trial | None:
        every = (self.at[group, width, n, r] for r in range(self.share.shape[-1]))
        return next((trial for trial in every if trial not in self.asked), None)


def replay(sweep: Sweep, shares: Mapping[Trial, Sequence[float]], slots: int = 2) -> Boundary:
    """What the search would have asked for, had it met a grid whose `shares` are known.

    Answers come in the order of asking, `slots` trials under way at a time; the coarse grid too.
    """
    search = Boundary(sweep, slots)
    while (trial := search.ask()) is not None or search.pending:
        if trial in (None, WAIT) or len(search.pending) >= slots:
            oldest = search.pending[0]
            search.tell(oldest, shares[oldest])
    return search


class BoundaryPlan:
    """Hands out what a `Boundary` asks for, and tells it what the store holds.

    Whatever has been begun, asked for or not, is told and counts in the budget; what of it is
    unfinished comes first.
    """

    def __init__(
        self, sweep: Sweep, store: Store, prints: Mapping[str, Any], todo: Survey
    ) -> None:
        self.sweep, self.store, self.slots = sweep, store, 1
        self.search = Boundary(sweep, self.slots)
        self.metric = sweep.search.boundary.metric
        self.analysis = METRICS[self.metric]
        self.print = prints["pieces"][self.analysis]
        self.live: dict[str, Trial] = {}
        missing = dict(todo.to_train())
        begun = [trial for trial, yes in zip(todo.trials, todo.begun, strict=True) if yes]
        self.queue = [(trial, missing[trial]) for trial in begun if trial in missing]
        self.entries = {canonical(entry["point"]): entry for entry in store.search()["asked"]}
        for trial in begun:
            self._note(trial)
        self._tell_failed(todo)

    def next(self, trial_id: str) -> Any:
        """The next trial with its missing training times, WAIT, or None."""
        self._read()
        self.search.slots = self.slots
        if self.queue:
            chosen = self.queue.pop(0)
        else:
            trial = self.search.ask()
            if trial is None:
                self._write(over=question(self.sweep))
            if trial is None or trial is WAIT:
                return trial
            self._note(trial)
            self._write()
            chosen = trial, list(self.sweep.kimg)
        self.live[trial_id] = chosen[0]
        return chosen

    def done(self, trial_id: str, result: dict | None, error: bool) -> None:
        """A training that failed has no share."""
        trial = self.live.pop(trial_id, None)
        if trial is not None and (error or not result or result.get("failed")):
            self._read()
            self._lose([trial])

    def give_up(self) -> None:
        """Nothing is under way: what has no share by now gets none in this run."""
        self._read()
        self._lose(self.search.pending)

    def _lose(self, lost: Sequence[Trial]) -> None:
        for trial in lost:
            if trial not in self.search.told:
                self.search.tell(trial, [np.nan if s is None else s for s in self._shares(trial)])

    def _tell_failed(self, todo: Survey) -> None:
        """Cells whose training or analysis has failed keep no one waiting."""
        column = 1 + list(self.sweep.analyses).index(self.analysis)
        for trial in self.search.pending:
            cells = todo.pieces[todo.trials.index(trial)]
            times = [self.sweep.kimg.index(time) for time in self.search.times]
            failed = (cells[times][:, [0, column]] == FAILED).any(axis=1)
            if failed.any() and (failed | (cells[times, column] == DONE)).all():
                self._lose([trial])

    def _read(self) -> None:
        for trial in self.search.pending:
            shares = self._shares(trial)
            if None not in shares:
                self.search.tell(trial, shares)
                self.entries[canonical(dict(trial.coordinates))]["value"] = shares[-1]

    def _shares(self, trial: Trial) -> list[float | None]:
        """The stored share at each kimg that counts; None where there is no valid piece."""
        shares: list[float | None] = []
        for time in self.search.times:
            piece = self.store.read_piece(Cell(trial, time), self.analysis)
            valid = piece is not None and piece.fingerprint == self.print
            shares.append(float(piece.variables[self.metric].values) if valid else None)
        return shares

    def _note(self, trial: Trial) -> None:
        self.search.asked[trial] = None
        point = dict(trial.coordinates)
        self.entries.setdefault(canonical(point), {"point": point, "value": None})

    def _write(self, over: str | None = None) -> None:
        self.store.write_asked(list(self.entries.values()), over)
