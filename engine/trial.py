"""One trial: train what the store lacks, store each snapshot, survive being killed.

Knows the store but not Ray; `engine.training` runs it in a Tune actor or a worker group.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analyses.specimen import calls
from engine.grid import Cell, Trial, moment
from engine.job import (
    ELSEWHERE,
    Job,
    clock_of,
    naming_memory,
    training_points,
    use_threads,
)
from engine.store import checkpoint_path, place, snapshot_path
from trainables.datasets.data import Data
from trainables.denoiser import Denoiser, loss
from trainables.streams import stream
from trainables.train import Snapshot, TrainConfig, Training, steps_at, train

HEARTBEAT = 15.0
"""Seconds between signs of life in trial.json."""
CPU = torch.device("cpu")
Wrap = Callable[[torch.nn.Module], torch.nn.Module]


class TrialFailed(RuntimeError):
    """The training itself failed (it diverged, say)."""

    def __init__(self, at: str, reason: str) -> None:
        super().__init__(at, reason)
        self.reason = reason

    def __str__(self) -> str:
        return "Training failed at {}: {}".format(*self.args)


class Ledger:
    """What one trial writes: its record, its checkpoint, its snapshots."""

    def __init__(self, job: Job, trial: Trial, device: torch.device = CPU) -> None:
        self.job, self.trial, self.store = job, trial, job.store
        self.record = {
            "snapshots": {},
            "attempts": 0,
            "errors": [],
            **self.store.trial_record(trial),
        }
        self.seconds, self.checkpoint_step, self.kept_step = 0.0, 0, 0
        self.clock = clock_of(device)
        self.start()
        self.beat = self.saved = time.monotonic()

    def start(self) -> None:
        """Begin to count: what comes before a training's first step is not its cost."""
        self.started = self.clock()

    def elapsed(self) -> float:
        """Seconds trained so far, earlier runs included."""
        return self.seconds + self.clock() - self.started

    def state(self, until: int) -> dict[str, torch.Tensor] | None:
        """The furthest stored state of ours that is not beyond step `until`.

        One that is beyond is kept: a kimg after it needs no training from the start.
        """
        found = {int(h["step"]): (tensors, h) for tensors, h in self._checkpoints()}
        self.kept_step = max((step for step in found if step > until), default=0)
        self.checkpoint_step = max((step for step in found if step <= until), default=0)
        if not self.checkpoint_step:
            return None
        tensors, header = found[self.checkpoint_step]
        self.seconds = float(header["seconds"])
        return {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}

    def _checkpoints(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, str]]]:
        """What whole checkpoints of the same training hold."""
        for again in (False, True):
            try:
                found = self.store.read_tensors(checkpoint_path(self.trial, again=again))
            except ValueError as error:
                # It costs time, never numbers: training from the start gives the same.
                self.record["note"] = f"{error}; trained again without it"
                continue
            if found and found[1]["fingerprint"] == self.job.prints["snapshot"]:
                yield found

    def begin(self) -> None:
        """Count an attempt; one before it that neither finished nor failed was cut off."""
        if self.record.get("status") == "running":
            self.record["errors"].append("cut off: its process died or the run was interrupted")
        self.record["attempts"] += 1
        self.write("running")

    def fail(self, reason: str, said: str) -> None:
        """Note why the training cannot go on, and all that was said of it."""
        self.record["errors"].append(reason)
        self.record.pop("losses", None)
        self.write("failed", error=reason, traceback=said)

    def write(self, status: str, **more: Any) -> None:
        """Replace trial.json."""
        self.record = {k: v for k, v in self.record.items() if k not in ("error", "traceback")}
        self.record |= {"status": status, "fingerprint": self.job.prints["snapshot"]}
        self.record |= place() | more
        self.store.write_trial_record(self.trial, self.record)
        self.beat = time.monotonic()

    def on_step(self, training: Training) -> None:
        """Save and give signs of life by the clock; neither ever changes a number."""
        now = time.monotonic()
        if now - self.saved > self.job.sweep.resources.checkpoint_seconds:
            self.save(training)
        if now - self.beat > HEARTBEAT:
            self.write("running")

    def save(self, training: Training) -> None:
        """Write the full state, beside a stored one that is further."""
        if training.step > self.checkpoint_step:
            header = {
                "step": str(training.step),
                "seconds": repr(self.elapsed()),
                "fingerprint": self.job.prints["snapshot"],
            }
            path = checkpoint_path(self.trial, again=training.step < self.kept_step)
            self.store.write_tensors(path, _arrays(training.state()), header)
            self.checkpoint_step = training.step
            self.progressed()
        self.saved = time.monotonic()

    def progressed(self) -> None:
        """Processes that died before what has just been stored no longer count against it."""
        if self.record.pop("losses", 0):
            self.write(self.record["status"])

    def end(self) -> None:
        """The state on the way to an earlier kimg has served its purpose."""
        self.store.files.delete(checkpoint_path(self.trial, again=True))

    def snapshot(self, snapshot: Snapshot, numbers: dict[str, float], *, last: bool) -> None:
        """Store a snapshot; its numbers first, so that its presence implies them."""
        self.record["snapshots"][moment(snapshot.kimg)] = numbers
        self.write("done" if last else "running")
        tensors = {f"ema.{k}": v for k, v in snapshot.ema.items()}
        tensors |= {f"raw.{k}": v for k, v in snapshot.raw.items()}
        # Again in the header, but for what is not the same each time, in case the record is lost.
        same = {name: n for name, n in numbers.items() if name != "train_seconds"}
        header = {"kimg": str(snapshot.kimg), "fingerprint": self.job.prints["snapshot"]}
        header["numbers"] = json.dumps(same, sort_keys=True)
        self.store.write_tensors(
            snapshot_path(Cell(self.trial, snapshot.kimg)), _arrays(tensors), header
        )
        self.progressed()


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def train_trial(
    job: Job,
    data: Data,
    trial: Trial,
    kimg: Sequence[float],
    *,
    wrap: Wrap | None = None,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train to each listed kimg that has no snapshot; yield its metrics once it is stored.

    With several ranks all train and rank 0 alone writes. Nothing missing: nothing is yielded.

    Raises:
        TrialFailed: the training failed; the reason is in the trial's record. With several ranks
            it is not yet: whoever sees the end of all of them notes it.
    """
    # In a group a rank sees the loss of another as a RuntimeError: no fault of the training.
    elsewhere = ELSEWHERE if world == 1 else (*ELSEWHERE, RuntimeError)
    use_threads(job)
    device = torch.device(device)
    missing = [k for k in kimg if not job.store.has_snapshot(Cell(trial, k))]
    ledger = Ledger(job, trial, device)
    try:
        if missing:
            if rank == 0:
                ledger.begin()
            with naming_memory():
                yield from _train(job, data, trial, missing, ledger, wrap, rank, world, device)
    except elsewhere:
        raise
    except Exception as error:
        failed = TrialFailed(trial.address, f"{type(error).__name__}: {error}")
        if world == 1:
            ledger.fail(failed.reason, traceback.format_exc())
        raise failed from error


def _train(
    job: Job,
    data: Data,
    trial: Trial,
    missing: Sequence[float],
    ledger: Ledger,
    wrap: Wrap | None,
    rank: int,
    world: int,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    config = job.config(trial)
    state = ledger.state(steps_at(missing[0], config.batch))
    denoiser = job.denoiser(trial, device)
    images = torch.from_numpy(training_points(data, trial.subset)).to(device, job.dtype)
    labels = job.drawn_labels(data, trial, len(data.heldout))
    heldout = Heldout(data, config, job.dtype, device, labels, job.sweep.numerics.eval_batch)
    live: list[Training] = []

    def on_step(training: Training) -> None:
        live[:] = [training]
        if rank == 0:
            ledger.on_step(training)

    snapshots = train(
        denoiser,
        images,
        config,
        missing,
        seed=trial["seed"],
        draw=trial["draw"],
        state=state,
        on_step=on_step,
        wrap=wrap,
        rank=rank,
        world=world,
        width=trial["width"],
        labels=job.labels(data, trial),
    )
    probe = job.denoiser(trial, device)
    ledger.start()
    for snapshot in snapshots:
        numbers = {
            "step": snapshot.step,
            "images_seen": snapshot.images_seen,
            "stream_loss": snapshot.stream_loss,
            "train_seconds": ledger.elapsed(),
        }
        if rank == 0:
            numbers["heldout_stream_loss"] = heldout.loss(probe, snapshot.ema)
            last = snapshot.kimg == missing[-1]
            ledger.snapshot(snapshot, numbers, last=last)
            if live:
                ledger.save(live[0])
            if last:
                ledger.end()
        yield {"kimg": snapshot.kimg, **numbers}


class Heldout:
    """The training's own loss on held-out points at fixed noise: what a search may minimise.

    A denoiser that is told labels gets those of training points drawn at random.
    """

    def __init__(
        self,
        data: Data,
        config: TrainConfig,
        dtype: torch.dtype,
        device: torch.device,
        labels: torch.Tensor | None,
        eval_batch: int,
    ) -> None:
        points = torch.from_numpy(data.heldout.copy())  # the shared array is read-only
        generator = stream("probe", "heldout_stream_loss")
        z = torch.randn(len(points), generator=generator, dtype=torch.float64)
        eps = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        self.sigma = config.noise_levels(z).to(device, dtype)
        self.points, self.eps = points.to(device, dtype), eps.to(device, dtype)
        self.labels = None if labels is None else labels.to(device)
        self.blocks = calls(len(points), eval_batch)

    @torch.inference_mode()
    def loss(self, denoiser: Denoiser, weights: Mapping[str, torch.Tensor]) -> float:
        """Weighted denoising loss per pixel, mean over held-out points."""
        denoiser.load_state_dict({k: v.to(self.points.device) for k, v in weights.items()})
        each = []
        for rows in self.blocks:
            labels = None if self.labels is None else self.labels[rows]
            each.append(
                loss(denoiser, self.points[rows], self.sigma[rows], self.eps[rows], labels)
            )
        return float(torch.cat(each).double().mean() / self.points[0].numel())
