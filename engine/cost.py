"""What a sweep will cost: core-seconds, wall time, disk. Fitted on finished cells, else probed.

Where trials of the same network size have been trained, their own seconds count. Else a few steps
and evaluations are timed here and scaled by images and by denoiser evaluations.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch

from analyses.evaluations import Size
from analyses.registry import rows_of
from engine.cluster import cores
from engine.grid import Cell, Trial, moment
from engine.job import Job, use_threads
from engine.resolve import size_key
from engine.spec import SpecError
from engine.store import receipt_name
from engine.work import DONE, SKIPPED, Survey
from trainables.denoiser import loss

UNCERTAINTY = 1.5
"""Factor within which a prediction is expected."""
PROBE_SECONDS = 0.1
"""Time spent timing a step, and an evaluation, of each network size."""
PROBE_WORK = 2e10
"""Parameters times pixels of a network up to which it is timed; larger ones are scaled."""
SHARING = 1.2
"""A process beside others on the same cores is slower than the probe alone."""
ROW_SECONDS = 2.5e-6
"""Analyses beside the network's own evaluations, per evaluated row at d = 64."""
ROW_EXPONENT = 1.7
"""Growth of the same with d, between 64 and 784: float64 fits."""
ANALYSIS_SECONDS = 0.02
"""An analysis beside what is proportional to its evaluations."""
STARTUP_SECONDS = 12.0
"""Ray, the workers' imports, gathering and drawing."""


@dataclass
class Cost:
    """Seconds per kimg and per cell of one network size."""

    kimg_seconds: float
    analyses: dict[str, float]
    """Seconds per cell of each analysis."""

    @property
    def cell_seconds(self) -> float:
        """All analyses of a cell."""
        return sum(self.analyses.values())

    def times(self, factor: float) -> "Cost":
        """That of a network `factor` times as large."""
        each = {name: factor * seconds for name, seconds in self.analyses.items()}
        return Cost(factor * self.kimg_seconds, each)


@dataclass
class Estimate:
    """What is left to do, in core-seconds, and how long it will take on this machine."""

    train_seconds: float = 0.0
    analysis_seconds: float = 0.0
    longest: float = 0.0
    cores: int = 1
    disk_bytes: float = 0.0
    memory_bytes: float = 0.0
    measured: bool = False
    per_trial: dict[Trial, float] = field(default_factory=dict)
    """Training seconds of each trial that lacks some."""
    per_cell: dict[Trial, float] = field(default_factory=dict)
    """Analysis seconds of each of its cells."""
    analyses: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Denoiser evaluations and seconds that each analysis adds to a snapshot, largest network."""

    @property
    def core_seconds(self) -> float:
        """Training and analyses together."""
        return self.train_seconds + self.analysis_seconds

    @property
    def wall_seconds(self) -> float:
        """Makespan on this machine: bound by the work and by the longest trial."""
        if not self.core_seconds:
            return 0.0
        return max(self.core_seconds / self.cores, self.longest) + STARTUP_SECONDS

    def as_json(self) -> dict[str, Any]:
        """Numbers for `plan --json`."""
        return {
            "train_core_seconds": self.train_seconds,
            "analysis_core_seconds": self.analysis_seconds,
            "core_seconds": self.core_seconds,
            "wall_seconds": self.wall_seconds,
            "wall_seconds_range": [
                self.wall_seconds / UNCERTAINTY,
                self.wall_seconds * UNCERTAINTY,
            ],
            "cores": self.cores,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "analyses_per_snapshot": {
                name: {"evaluations": rows, "seconds": seconds}
                for name, (rows, seconds) in self.analyses.items()
            },
            "from_finished_cells": self.measured,
        }


def estimate(job: Job, survey: Survey) -> Estimate:
    """The cost of what the survey still lacks."""
    result = Estimate(cores=cores())
    costs = _stored(job, survey)
    result.measured = bool(costs)
    training = dict(survey.to_train())
    lacking = ~survey.measured() & (survey.pieces[:, :, :1] != SKIPPED)
    _fill(job, [t for i, t in enumerate(survey.trials) if lacking[i].any()], costs)
    for i, trial in enumerate(survey.trials):
        if not lacking[i].any():
            continue
        key = size_key(trial)
        cost = costs[key]
        missing = training.get(trial, [])
        stored = [k for k in job.sweep.kimg if k not in missing and missing and k < missing[0]]
        kimg = (missing[-1] - (stored[-1] if stored else 0)) if missing else 0
        each = np.array([cost.analyses.get(name, 0.0) for name in job.sweep.analyses])
        train, analysis = kimg * cost.kimg_seconds, float(lacking[i].sum(0) @ each)
        result.train_seconds += train
        result.analysis_seconds += analysis
        result.per_trial[trial], result.per_cell[trial] = train, cost.cell_seconds
        result.longest = max(result.longest, train + analysis / len(job.sweep.kimg))
        result.disk_bytes += _disk(job, key, len(missing))
    result.memory_bytes = _memory(job)
    if costs:
        largest = max(costs, key=lambda key: job.facts.sizes[key][0])
        rows = evaluations(job)
        result.analyses = {n: (rows[n], costs[largest].analyses.get(n, 0.0)) for n in rows}
    return result


def _stored(job: Job, survey: Survey) -> dict[str, Cost]:
    """Costs of network sizes whose trials have been trained and analysed here."""
    train: dict[str, list[float]] = {}
    cell: dict[str, list[dict[str, float]]] = {}
    groups = dict.fromkeys(facts.group for facts in job.facts.analyses.values())
    for i, trial in enumerate(survey.trials):
        finished = np.flatnonzero(survey.measured()[i].all(1) & (survey.pieces[i, :, 0] == DONE))
        if not len(finished):
            continue
        kimg = job.sweep.kimg[finished[-1]]
        record = job.store.trial_record(trial).get("snapshots", {}).get(moment(kimg))
        receipts = job.store.read_receipts(
            Cell(trial, kimg), [receipt_name(Cell(trial, kimg), group) for group in groups]
        )
        if record and receipts:
            key = size_key(trial)
            train.setdefault(key, []).append(record["train_seconds"] / kimg)
            cell.setdefault(key, []).append({n: r["seconds"] for n, r in receipts.items()})
    return {
        key: Cost(
            median(train[key]),
            {n: median(c.get(n, 0.0) for c in cell[key]) for n in job.sweep.analyses},
        )
        for key in train
    }


def _fill(job: Job, trials: Iterable[Trial], costs: dict[str, Cost]) -> None:
    """Add the costs of the network sizes that are not known yet, the smallest first.

    Up to PROBE_WORK a network is timed; beyond, the cost of the largest known one is scaled by
    parameters, to which the operations of one architecture are nearly proportional.
    """
    sizes = job.facts.sizes
    distinct = {size_key(trial): trial for trial in trials}
    for key in sorted(distinct.keys() - costs.keys(), key=lambda key: sizes[key][0]):
        smaller = [k for k in costs if sizes[k][0] <= sizes[key][0]]
        if smaller and sizes[key][0] * _pixels(job) > PROBE_WORK:
            base = max(smaller, key=lambda k: sizes[k][0])
            costs[key] = costs[base].times(sizes[key][0] / sizes[base][0])
        else:
            costs[key] = _probe(job, distinct[key])


def _pixels(job: Job) -> int:
    return job.facts.data.shape[1] * job.facts.data.shape[2]


def _probe(job: Job, trial: Trial) -> Cost:
    """Time training steps and evaluations of one network size on random images.

    Without the optimiser, a few percent: creating one imports a second's worth of torch.
    """
    use_threads(job)
    config, shape = job.config(trial), job.facts.data.shape
    denoiser = job.denoiser(trial, torch.device("cpu"))

    def told(batch: int) -> tuple[torch.Tensor, ...]:
        return () if config.labels == "none" else (torch.zeros(batch, dtype=torch.long),)

    def step(batch: int) -> None:
        x, eps = torch.randn(2, batch, *shape, dtype=job.dtype)
        sigma = torch.full((batch,), 0.5, dtype=job.dtype)
        loss(denoiser, x, sigma, eps, *told(batch)).mean().backward()

    @torch.inference_mode()
    def evaluate(batch: int) -> None:
        denoiser(torch.zeros(batch, *shape, dtype=job.dtype), 0.5, *told(batch))

    small = job.facts.sizes[size_key(trial)][0] * _pixels(job) < PROBE_WORK / 20
    few = min(8 if small else 1, config.batch)
    batch = int(np.clip(PROBE_SECONDS / _seconds(step, few, 0.0), few, config.batch))
    kimg = 1000 * _seconds(step, batch)
    row = _seconds(evaluate, batch) + ROW_SECONDS * (np.prod(shape) / 64) ** ROW_EXPONENT
    each = {
        name: SHARING * (row * rows + ANALYSIS_SECONDS) for name, rows in evaluations(job).items()
    }
    return Cost(SHARING * kimg, each)


def _seconds(call: Callable[[int], None], batch: int, at_least: float = PROBE_SECONDS) -> float:
    """Seconds per image of calls with `batch` images, the first call left out."""
    call(batch)
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < at_least:
        call(batch)
        calls += 1
    return (time.perf_counter() - start) / calls / batch


def evaluations(job: Job) -> dict[str, int]:
    """Denoiser evaluations that each analysis adds to those before it, per snapshot."""
    size = Size(
        int(np.prod(job.facts.data.shape)),
        job.facts.data.n_heldout,
        len(job.sweep.sigmas),
        job.sampler,
    )
    options = {n: a.options for n, a in job.facts.analyses.items() if a.group != "pairs"}
    pairs = dict.fromkeys((n for n in job.facts.analyses if n not in options), 0)
    return rows_of(size, options) | pairs


def _disk(job: Job, key: str, snapshots: int) -> float:
    parameters = job.facts.sizes[key][0]
    width = 8 if job.dtype == torch.float64 else 4
    raw = job.facts.data.n_heldout * len(job.sweep.sigmas) * 4 * 5
    return snapshots * (2 * parameters * width + raw + 64e3) + 4 * parameters * width


def check_memory(job: Job, origin: str) -> None:
    """Refuse what one process alone could not hold on this machine.

    Raises:
        SpecError: with the estimate, the machine's memory and what to lower.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = _memory(job)
    if needed > total:
        raise SpecError(
            f"{origin}: one process would need about {needed / 1e9:.0f} GB of memory, this"
            f" machine has {total / 1e9:.0f} GB; lower data.resolution, data.n_heldout, axes.width"
            " or the analyses' draws"
        )


def _memory(job: Job) -> float:
    """Rough peak of one process: data, weights with moments and gradients, one sigma's inputs."""
    data, d = job.facts.data, int(np.prod(job.facts.data.shape))
    parameters = max(size for size, _ in job.facts.sizes.values())
    draws = max((a.options.get("draws", 1) for a in job.facts.analyses.values()), default=1)
    inputs = 2 * 3 * draws * data.n_heldout * d * 8
    return 300e6 + 4 * d * data.n_pool + 6 * 4 * parameters + inputs + 4 * 8 * d * d
