"""A trial as a Tune trainable whose steps are Ray Train runs: one step, one snapshot.

With one worker the step is a Train run in local mode, in the trial's own warm process
(milliseconds where a worker group costs ten seconds). With more, one worker group trains the
whole trial and the steps wait for its snapshots. One loop serves both.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import ray
import ray.train
from ray import tune

from engine.cluster import trial_ask
from engine.files import Full
from engine.grid import Cell, Trial, from_json, moment
from engine.store import place

POLL = 0.2
"""Seconds between looks for the next snapshot of a worker group."""


class Trainable(tune.Trainable):
    """Trains one trial; the store is its only memory, so Tune's checkpoints are empty."""

    refs: tuple[Any, Any]
    """Job and data in the object store."""

    def setup(self, config: dict[str, Any]) -> None:
        """Read what the store holds; Tune calls this for the first trial of a process."""
        if not hasattr(self, "job"):
            self.job, self.data = ray.get(list(self.refs))
            store = self.job.store
            if store.record() is None:  # a node that joined late: it would train into the void
                raise OSError(f"{place()['host']} does not see the storage {store.folder}")
        self.trial: Trial = from_json(config["trial"])
        self.kimg: list[float] = list(config["kimg"])
        group = self.job.sweep.resources.workers > 1
        self.snapshots = self._by_group() if group else self._by_local_mode()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial in the same warm process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next snapshot; report it once it is stored."""
        from engine.trial import TrialFailed

        try:
            metrics = next(self.snapshots, None)
        except TrialFailed as error:
            # A failed training is a failed cell, not a dead actor: Tune would retry in vain.
            return {"done": True, "failed": str(error), "kimg": None}
        except Full as error:
            return {"done": True, "full": str(error), "kimg": None}  # it would be full again
        if metrics is None:
            return {"done": True, "kimg": None, **self._last_stored()}
        return {"done": metrics["kimg"] == self.kimg[-1], **metrics}

    def _last_stored(self) -> dict[str, Any]:
        snapshots = self.job.store.trial_record(self.trial).get("snapshots", {})
        latest = max(snapshots.values(), key=lambda numbers: numbers["step"], default={})
        return {
            name: latest[name] for name in ("heldout_stream_loss", "stream_loss") if name in latest
        }

    def _by_local_mode(self) -> Iterator[dict[str, Any]]:
        """One Ray Train run in local mode per snapshot, all on one live training."""
        from ray.train.torch import TorchTrainer

        state: dict[str, Any] = {}

        def loop() -> None:
            from ray.train.torch import get_device

            from engine.trial import train_trial

            if "snapshots" not in state:
                device = get_device() if self.job.sweep.resources.gpus_per_trial else "cpu"
                state["snapshots"] = train_trial(
                    self.job, self.data, self.trial, self.kimg, device=device
                )
            state["metrics"] = next(state["snapshots"], None)
            if state["metrics"] is not None:
                ray.train.report(state["metrics"])

        trainer = TorchTrainer(loop, scaling_config=ray.train.ScalingConfig(num_workers=0))
        while True:
            trainer.fit()
            if state["metrics"] is None:
                return
            yield state["metrics"]

    def _by_group(self) -> Iterator[dict[str, Any]]:
        """A worker group trains in a thread of this trial; its snapshots come from the store."""
        stored = self.job.store.has_snapshot
        missing = [kimg for kimg in self.kimg if not stored(Cell(self.trial, kimg))]
        if not missing:
            return
        outcome: dict[str, Any] = {}
        thread = threading.Thread(target=self._fit_group, args=(outcome,), daemon=True)
        thread.start()
        for kimg in missing:
            cell = Cell(self.trial, kimg)
            while not stored(cell) and thread.is_alive():
                time.sleep(POLL)
            if not stored(cell):
                break
            record = self.job.store.trial_record(self.trial)
            yield {"kimg": kimg, **record["snapshots"][moment(kimg)]}
        thread.join()
        if "error" in outcome:
            raise self._noted(outcome["error"])

    def _fit_group(self, outcome: dict[str, Any]) -> None:
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = self.job.sweep.resources
        share = dict(trial_ask(resources).bundle)
        gpus = share.get("GPU", 0)
        config = {
            "job": self.job,
            "data": self.refs[1],
            "trial": self.config["trial"],
            "kimg": self.kimg,
        }
        try:
            TorchTrainer(
                group_loop,
                train_loop_config=config,
                torch_config=TorchConfig(backend="nccl" if gpus >= 1 else "gloo"),
                scaling_config=ray.train.ScalingConfig(
                    num_workers=resources.workers,
                    use_gpu=gpus > 0,
                    resources_per_worker=share,
                    placement_strategy=resources.placement,
                ),
                run_config=ray.train.RunConfig(
                    name=f"group-{self.trial_id}",
                    storage_path=self.logdir,
                    # What can be tried again is: by Tune, which knows what it was.
                    failure_config=ray.train.FailureConfig(controller_failure_limit=3),
                ),
            ).fit()
        except Exception as error:
            outcome["error"] = error

    def _noted(self, error: Exception) -> Exception:
        """What a worker group failed of; if that is the training itself, its record says so.

        Noted here, once nobody else writes it: a rank that has failed knows nothing of the others.
        """
        from engine.trial import Ledger, TrialFailed

        reason = reason_of_group(error)
        if isinstance(reason, TrialFailed):
            Ledger(self.job, self.trial).fail(reason.reason, str(error))
        return reason

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has it."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: `setup` reads the store."""


def reason_of_group(error: Exception) -> Exception:
    """The error of a rank that says more than that the group is no more, else the group's own."""
    from engine.trial import TrialFailed

    causes = getattr(error, "worker_failures", {}).values()
    telling = (TrialFailed, Full, MemoryError, OSError)
    return next((c for kind in telling for c in causes if isinstance(c, kind)), error)


def group_loop(config: dict[str, Any]) -> None:
    """What each process of a worker group runs: its share of every batch; rank 0 writes."""
    from ray.train.torch import get_device, prepare_model

    from engine.trial import train_trial

    context = ray.train.get_context()
    snapshots = train_trial(
        config["job"],
        ray.get(config["data"]),
        from_json(config["trial"]),
        config["kimg"],
        wrap=lambda module: prepare_model(module, move_to_device=False),
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=get_device(),
    )
    for metrics in snapshots:
        ray.train.report({"kimg": metrics["kimg"]})
