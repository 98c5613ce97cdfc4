"""Tune drives the grid: one Tuner, one Tune trial per trial that is not finished."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from engine.boundary import WAIT, BoundaryPlan
from engine.cluster import Room
from engine.fanout import Fanout
from engine.grid import Cell, Trial, from_json, to_json, trials
from engine.job import Job
from engine.training import Trainable
from engine.vigil import Vigil

BACKLOG_PER_SLOT = 4
"""With more analyses waiting than this per slot no new trial starts until half are done."""
MANY = 100_000
"""Trials at a time beyond any cluster's."""
IDLE_POLLS = 3
"""Times that a waiting plan finds nothing under way before it gives up; Tune asks each second."""


class Feed(Searcher):
    """Hands Tune as many trials of a plan as find room, unless too many analyses are waiting.

    Args:
        limit: how many trials may be live now; it may change while the sweep runs.
    """

    def __init__(
        self,
        plan: "AnyPlan",
        fanout: Fanout,
        stop: Callable[[], bool],
        limit: Callable[[], int],
    ) -> None:
        super().__init__()
        self.plan, self.fanout, self.stop, self.limit = plan, fanout, stop, limit
        self.live: set[str] = set()
        self.held = False
        self.idle = 0

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        """Nothing to set: the plan knows metric and mode."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None to be asked again later, FINISHED when there is none."""
        if self.stop() or self.fanout.error is not None:
            return Searcher.FINISHED
        full = BACKLOG_PER_SLOT * self.limit()
        self.held = self.fanout.backlog > (full / 2 if self.held else full)
        if self.held or len(self.live) >= self.limit():
            return None
        self.plan.slots = self.limit()
        chosen = self.plan.next(trial_id)
        if chosen is WAIT:
            self._wait()
            return None
        if chosen is None:
            return Searcher.FINISHED
        self.live.add(trial_id)
        trial, kimg = chosen
        self.idle = 0
        return {"trial": to_json(trial), "kimg": list(kimg)}

    def _wait(self) -> None:
        """What a plan waits for will not come when nothing is under way: a task was lost."""
        self.idle = 0 if self.plan.live or self.fanout.backlog else self.idle + 1
        if self.idle > IDLE_POLLS:
            self.plan.give_up()

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Pass the outcome on to the plan."""
        self.live.discard(trial_id)
        self.plan.done(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only source of resumption."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its searcher into a folder that is never read


class Plan:
    """Which trials, in which order: the whole list."""

    slots = 1
    """How many trials may be live now."""

    def __init__(self, work: Sequence[tuple[Trial, list[float]]]) -> None:
        self.work = list(work)

    def next(self, trial_id: str) -> tuple[Trial, list[float]] | None:
        """The next trial with its missing training times."""
        return self.work.pop(0) if self.work else None

    def done(self, trial_id: str, result: dict | None, error: bool) -> None:
        """A grid learns nothing from outcomes."""


class OptunaPlan(Plan):
    """Optuna picks among the values on the axes; what was asked before is told to it again."""

    def __init__(self, job: Job) -> None:
        from ray.tune.search.optuna import OptunaSearch

        self.job, self.settings = job, job.sweep.search.optuna
        self.asked = job.store.asked()
        space = {axis: tune.choice(list(values)) for axis, values in job.sweep.axes.items()}
        told = [entry for entry in self.asked if entry["value"] is not None]
        self.metric = OBJECTIVES[self.settings.objective]
        self.inner = OptunaSearch(
            space,
            metric=self.metric,
            mode=self.settings.mode,
            seed=0,
            points_to_evaluate=[entry["point"] for entry in told] or None,
            evaluated_rewards=[entry["value"] for entry in told] or None,
        )
        self.live: dict[str, Trial] = {}
        self.known = {trial.coordinates: trial for trial in trials(job.sweep)}

    def next(self, trial_id: str) -> tuple[Trial, list[float]] | None:
        """The point that Optuna asks for; a trial that is stored returns at once."""
        if len(self.asked) + len(self.live) >= self.settings.trials:
            return None
        point = self.inner.suggest(trial_id)
        trial = self.known[tuple((axis, point[axis]) for axis in self.job.sweep.axes)]
        self.live[trial_id] = trial
        return trial, list(self.job.sweep.kimg)

    def done(self, trial_id: str, result: dict | None, error: bool) -> None:
        """Tell Optuna, and note the point so that the next run goes on from here."""
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        value = None if error or not result else result.get(self.metric)
        self.inner.on_trial_complete(
            trial_id, result if value is not None else None, error=value is None
        )
        self.asked.append({"point": dict(trial.coordinates), "value": value})
        self.job.store.write_asked(self.asked)


AnyPlan = Plan | BoundaryPlan

OBJECTIVES = {"heldout_loss": "heldout_stream_loss", "stream_loss": "stream_loss"}
"""Objective in a sweep file -> number that training reports with each snapshot."""


class Patience(FIFOScheduler):
    """Tune's own order, without the trials that were given up: only a scheduler may end those."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up: list[Any] = []

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Asked in every round, before anything starts."""
        while self.given_up:
            tune_controller.stop_trial(self.given_up.pop())
        return super().choose_trial_to_run(tune_controller)


class Watch(tune.Callback):
    """Turns Tune's results into analyses and progress; holds no state that Tune could save."""

    def __init__(
        self,
        fanout: Fanout,
        on_snapshot: Callable[[Trial, dict], None],
        on_lost: Callable[[Trial, str], bool],
        analyses: list[str],
        vigil: Vigil,
        patience: Patience,
    ) -> None:
        self.fanout, self.on_snapshot, self.on_lost = fanout, on_snapshot, on_lost
        self.analyses, self.vigil, self.patience = analyses, vigil, patience
        self.live: dict[str, Any] = {}
        self.killed: dict[str, str] = {}

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A snapshot is stored: queue its analyses."""
        point = from_json(trial.config["trial"])
        if result.get("kimg") is not None:
            self.fanout.add(Cell(point, result["kimg"]), self.analyses)
        self.on_snapshot(point, result)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial has its process: watch it."""
        self.live[trial.trial_id] = trial
        self.vigil.begin(trial.trial_id, from_json(trial.config["trial"]))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """It needs no watching any more."""
        self.vigil.end(trial.trial_id)
        self.live.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Its process failed; Tune puts it at the back of the queue, we may give it up."""
        self.vigil.end(trial.trial_id)
        self.live.pop(trial.trial_id, None)
        with open(trial.error_file) as file:
            said = file.read().rpartition("\nFailure # ")[2]
        said = self.killed.pop(trial.trial_id, said)
        if self.on_lost(from_json(trial.config["trial"]), said):
            self.patience.given_up.append(trial)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Kill what is stuck: Tune then retries it like any other whose process died."""
        for key, seconds in self.vigil.stuck().items():
            self.killed[key] = f"stuck: no sign of life for {seconds:.0f} s, past its deadline"
            self.vigil.end(key)
            ray.kill(self.live[key].temporary_state.ray_actor)

    def __getstate__(self) -> dict:
        return {}


def tune_trials(
    job: Job,
    refs: tuple[Any, Any],
    plan: "AnyPlan",
    fanout: Fanout,
    on_snapshot: Callable[[Trial, dict], None],
    on_lost: Callable[[Trial, str], bool],
    vigil: Vigil,
    stop: Callable[[], bool],
    room: Room,
) -> None:
    """Train what is planned; `on_lost` hears of processes that died, and may give the trial up."""
    resources = job.sweep.resources
    asked = dict(room.ask.bundle)
    if resources.workers > 1:
        asked = {"memory": 1}  # its workers hold the CPUs: both doing so would deadlock
    auto = resources.concurrency == "auto"
    limit = room.wanted if auto else lambda: resources.concurrency
    trainable, patience = tune.with_resources(with_refs(*refs), asked), Patience()
    watch = Watch(fanout, on_snapshot, on_lost, job.facts.alone, vigil, patience)
    # It misses the result files of Tune's own loggers; the store has the results.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="diffphase-tune-") as scratch:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Feed(plan, fanout, stop, limit),
                scheduler=patience,
                num_samples=-1,
                max_concurrent_trials=MANY,  # the feed counts: this cannot follow the cluster
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[watch],
                failure_config=tune.FailureConfig(max_failures=-1),  # it knows no progress
            ),
        ).fit()


def with_refs(job: Any, data: Any) -> type[Trainable]:
    """The trainable bound to job and data in the object store."""

    class Bound(Trainable):
        refs = job, data

    return Bound


def longest_first(
    work: Sequence[tuple[Trial, list[float]]], seconds: Callable[[Trial], float]
) -> list[tuple[Trial, list[float]]]:
    """Work in the order that ends earliest: the longest trainings first."""
    return sorted(work, key=lambda item: -seconds(item[0]))
