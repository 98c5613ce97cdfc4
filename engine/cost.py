"""What a sweep will cost: core-seconds, wall time, disk, memory.

Seconds per kimg and per cell come, for each size of network, from the finished trials of that
size; else, where at least two sizes have finished, from a line through them (log seconds on log
parameters); else from steps and evaluations timed here, scaled by images and by evaluations, and
by what such a probe misses at a finished size if there is one. Oracles are priced by their
operations (`engine.pricing`). All are processor seconds, so that others on the machine do not
count. `engine.makespan` turns them into hours.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch

from engine.cluster import cores
from engine.gpus import COPIES, MEMORY, kept_bytes, sustained
from engine.grid import Cell, Subset, Trial, trials
from engine.job import Job, memory_here, use_threads
from engine.makespan import (
    EFFICIENCY,
    STARTUP_SECONDS,
    Machine,
    chances,
    makespan,
    scheduled,
    slots_on,
)
from engine.pricing import (
    ANALYSIS_SECONDS,
    compared_seconds,
    evaluations,
    first_seconds,
    oracle_factor,
    reference_seconds,
    row_seconds,
    shares,
)
from engine.resolve import size_key
from engine.spec import SpecError
from engine.store import receipt_name
from engine.work import DONE, NOTED, PENDING, SKIPPED, Survey
from trainables.denoiser import loss

UNCERTAINTY = 1.5
"""Factor within which a prediction from a probe is expected."""
GUESS = 2.0
"""The same from FLOPs alone."""
CERTAINTY = 1.1
"""The same at best, however equal finished trials were."""
MOST = 50
"""Finished trials of a size that are looked at."""
PROBE_SECONDS = 0.1
"""Time spent timing a step, and an evaluation, of each network size."""
PROBE_WORK = 2e10
"""Parameters times pixels of a network up to which it is timed; larger ones are scaled."""
SHARING = 1.2
"""A process beside others on the same cores is slower than the probe alone."""


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

    def times(self, training: float, analyses: float) -> "Cost":
        """The same, its parts multiplied."""
        each = {name: seconds * analyses for name, seconds in self.analyses.items()}
        return Cost(self.kimg_seconds * training, each)


@dataclass
class Estimate:
    """What is left to do, in core-seconds, and how long it takes on a machine."""

    machine: Machine
    train_seconds: float = 0.0
    analysis_seconds: float = 0.0
    disk_bytes: float = 0.0
    memory_bytes: float = 0.0
    source: str = ""
    """What the seconds come from."""
    factor: float = UNCERTAINTY
    """The range: from the estimate by this factor to the estimate times it."""
    slots: int = 1
    """Trials at a time."""
    busy: float = 1
    """Cores that a trial keeps busy, or GPUs."""
    on_gpus: bool = False
    """Whether seconds are those of GPUs."""
    threads: int = 1
    """Cores that compute oracles, which have no use for it, while a GPU is held for them."""
    per_trial: dict[Trial, float] = field(default_factory=dict)
    """Training seconds of each trial that lacks some."""
    likely: dict[Trial, float] = field(default_factory=dict)
    """How likely each of them is made: a search makes a part of them."""
    per_cell: dict[Trial, dict[str, float]] = field(default_factory=dict)
    """Seconds of each analysis at each of its cells."""
    shares: dict[str, float] = field(default_factory=dict)
    """The part of a cell's evaluations that each analysis asks for if it runs alone."""
    first_seconds: float = 0.0
    """What a machine computes before its first analysis."""
    oracle_seconds: float = 0.0
    """The part of the analyses that the oracles of the training sets are."""
    longest_oracle: float = 0.0
    """The most that those of one training set take, in one task."""
    oracle_factor: float = 1.0
    """By how much finished ones cost more than they are priced."""
    analyses: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Denoiser evaluations and seconds that each analysis adds to a snapshot: of the largest
    network, with the most training points."""

    @property
    def core_seconds(self) -> float:
        """Training and analyses together."""
        return self.train_seconds + self.analysis_seconds

    @property
    def wall_seconds(self) -> float:
        """From the start of the command to its end."""
        if not self.core_seconds:
            return 0.0
        tail = max((sum(each.values()) for each in self.per_cell.values()), default=0.0)
        units = self.machine.gpus if self.on_gpus else self.machine.cores
        trials = scheduled([*self.per_trial.values()], [*self.likely.values()])
        work = makespan(trials, self.analysis_seconds, tail, self.slots, units, self.busy)
        work = self.first_seconds + max(work, self.longest_oracle)
        return work / EFFICIENCY + STARTUP_SECONDS

    def of_cell(self, trial: Trial, names: Sequence[str]) -> float | None:
        """Seconds of the named analyses at a cell; None if nothing is known of them.

        Those that run without the others evaluate themselves what all share.
        """
        each = self.per_cell.get(trial, {})
        alone = max((self.shares.get(name, 0.0) for name in names), default=0.0)
        return max(sum(each.get(n, 0.0) for n in names), alone * sum(each.values())) or None

    @property
    def wall_range(self) -> tuple[float, float]:
        """Within which the wall time is expected."""
        return self.wall_seconds / self.factor, self.wall_seconds * self.factor

    @property
    def processes(self) -> int:
        """Processes that hold data and a network at a time: trials, and analyses beside them."""
        return self.slots + (self.machine.cores if self.analysis_seconds else 0)

    def as_json(self) -> dict[str, Any]:
        """Numbers for `plan --json`."""
        return {
            "train_core_seconds": self.train_seconds,
            "analysis_core_seconds": self.analysis_seconds,
            "oracle_core_seconds": self.oracle_seconds,
            "core_seconds": self.core_seconds,
            "wall_seconds": self.wall_seconds,
            "wall_seconds_range": list(self.wall_range),
            "cores": self.machine.cores,
            "gpus": self.machine.gpus,
            "gpu": self.machine.gpu,
            "gpu_hours": self.core_seconds / 3600 if self.on_gpus else None,
            "slots": self.slots,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "processes": self.processes,
            "analyses_per_snapshot": {
                name: {"evaluations": rows, "seconds": seconds}
                for name, (rows, seconds) in self.analyses.items()
            },
            "source": self.source,
        }


def estimate(job: Job, survey: Survey, machine: Machine | None = None) -> Estimate:
    """The cost of what the survey still lacks, on a machine (default: this one)."""
    machine = machine or Machine(cores())
    resources = job.sweep.resources
    result = Estimate(machine, slots=slots_on(machine, resources))
    result.on_gpus = bool(machine.gpu and resources.gpus_per_trial)
    threads = job.sweep.numerics.threads
    result.threads = threads if result.on_gpus else 1
    share = resources.gpus_per_trial if result.on_gpus else threads
    result.busy = share * resources.workers
    lacking = ~survey.measured() & (survey.pieces[:, :, :1] != SKIPPED)
    wanted = [trial for trial, lacks in zip(survey.trials, lacking, strict=True) if lacks.any()]
    if result.on_gpus:
        costs = {key: _on_gpu(job, t, machine.gpu) for key, t in _examples(wanted).items()}
        result.source, result.factor = f"FLOPs and the sustained speed of {machine.gpu}", GUESS
    else:
        costs, result.source, result.factor = _costs(job, survey, wanted)
    training, likely = dict(survey.to_train()), chances(survey)
    for i, trial in enumerate(survey.trials):
        if not lacking[i].any():
            continue
        key = size_key(trial)
        missing = training.get(trial, [])
        stored = [k for k in job.sweep.kimg if k not in missing and missing and k < missing[0]]
        kimg = (missing[-1] - (stored[-1] if stored else 0)) if missing else 0
        result.per_trial[trial] = kimg * costs[key].kimg_seconds
        result.per_cell[trial] = cell = _of_cell(job, trial, costs[key], result)
        each = np.array([cell.get(name, 0.0) for name in job.sweep.analyses])
        result.likely[trial] = part = float(likely[i])
        result.train_seconds += part * result.per_trial[trial]
        result.analysis_seconds += part * float(lacking[i].sum(0) @ each)
        result.disk_bytes += part * _disk(job, key, len(missing))
    _add_oracles(job, survey, result, likely)
    result.memory_bytes = _memory(job)
    if result.per_cell:
        size = lambda trial: (job.facts.sizes[size_key(trial)][0], trial["n_train"])  # noqa: E731
        largest, rows = result.per_cell[max(result.per_cell, key=size)], evaluations(job)
        result.analyses = {n: (rows[n], largest.get(n, 0.0)) for n in rows}
    return result


def _of_cell(job: Job, trial: Trial, cost: Cost, result: Estimate) -> dict[str, float]:
    """Seconds of each analysis at a cell: no less than the oracles that it evaluates."""
    oracles = compared_seconds(job, trial["n_train"])
    return {n: max(s, oracles.get(n, 0.0) / result.threads) for n, s in cost.analyses.items()}


def _add_oracles(job: Job, survey: Survey, result: Estimate, likely: np.ndarray) -> None:
    """What the training sets lack of their own; a search comes to a part of them."""
    every = [n for n, analysis in job.facts.analyses.items() if analysis.has_reference]
    begun: dict[Subset, float] = {}
    for trial, chance in zip(survey.trials, likely, strict=True):
        begun[trial.subset] = min(1.0, begun.get(trial.subset, 0.0) + float(chance))
    factor = result.oracle_factor = oracle_factor(job, survey)
    result.shares = shares(job)
    for subset, chance in begun.items():
        states = survey.subsets.get(subset, dict.fromkeys(every, PENDING))
        names = [name for name, state in states.items() if state == PENDING]
        if names and chance:
            seconds = factor * reference_seconds(job, subset, names) / result.threads
            result.oracle_seconds += chance * seconds
            result.longest_oracle = max(result.longest_oracle, seconds)
    result.analysis_seconds += result.oracle_seconds
    result.first_seconds = first_seconds(job) if result.analysis_seconds else 0.0


def _costs(
    job: Job, survey: Survey, wanted: Sequence[Trial]
) -> tuple[dict[str, Cost], str, float]:
    """Cost of each network size that is wanted, its source, and the factor of its range."""
    examples = _examples(wanted)
    finished = _stored(job, survey)
    known = {key: _middle(costs) for key, costs in finished.items()}
    new = [key for key in examples if key not in known]
    if not new:
        return known, "finished cells", spread(finished.values())
    if len(known) > 1:
        sizes = {key: job.facts.sizes[key][0] for key in [*known, *new]}
        return known | extrapolated(known, sizes), "finished cells of other sizes", UNCERTAINTY
    probed = _probed(job, {key: examples[key] for key in new})
    if not known:
        return probed, "steps timed here", UNCERTAINTY
    (key,) = known
    trial = next(trial for trial in survey.trials if size_key(trial) == key)
    missed = _ratio(known[key], _probe(job, trial))
    scaled = {new: cost.times(*missed) for new, cost in probed.items()}
    return known | scaled, "steps timed here, corrected by finished cells", UNCERTAINTY


def _examples(wanted: Sequence[Trial]) -> dict[str, Trial]:
    """A trial of each network size."""
    return {size_key(trial): trial for trial in wanted}


def _on_gpu(job: Job, trial: Trial, gpu: str) -> Cost:
    """Cost of a network size in seconds of a named GPU: three passes an image, one an evaluation.

    A fourth pass where what a block keeps is computed again. Analyses beside the evaluations run
    on the CPU, while they hold the GPU.
    """
    flops, config = job.facts.sizes[size_key(trial)][1], job.config(trial)
    passes = 4 if config.checkpointing else 3
    kimg = 1000 * passes * flops / sustained(gpu, half=config.autocast != "none")
    row = flops / sustained(gpu, half=False) + row_seconds(job)
    each = {name: row * rows + ANALYSIS_SECONDS for name, rows in evaluations(job).items()}
    return Cost(kimg, each)


def _probed(job: Job, examples: Mapping[str, Trial]) -> dict[str, Cost]:
    """Costs of network sizes by their examples, each timed, the smallest first.

    Beyond PROBE_WORK the cost of the largest one that was timed is scaled by parameters, to which
    the operations of one architecture are nearly proportional.
    """
    sizes, costs, timed = job.facts.sizes, {}, ""
    for key in sorted(examples, key=lambda key: sizes[key][0]):
        if timed and sizes[key][0] * _pixels(job) > PROBE_WORK:
            factor = sizes[key][0] / sizes[timed][0]
            costs[key] = costs[timed].times(factor, factor)
        else:
            costs[key], timed = _probe(job, examples[key]), key
    return costs


def _pixels(job: Job) -> int:
    return job.facts.data.shape[1] * job.facts.data.shape[2]


def _ratio(found: Cost, probed: Cost) -> tuple[float, float]:
    """By how much training and analyses of a finished size cost more than the probe says."""
    pairs = (found.kimg_seconds, probed.kimg_seconds), (found.cell_seconds, probed.cell_seconds)
    return tuple(a / b if a > 0 and b > 0 else 1.0 for a, b in pairs)


def extrapolated(known: Mapping[str, Cost], sizes: Mapping[str, float]) -> dict[str, Cost]:
    """Costs of the sizes that are not known, from a line in log seconds over log parameters.

    Seconds grow with parameters at most in proportion, and never fall: a slope outside [0, 1] is
    the noise of sizes that lie close together.
    """
    x = np.log([sizes[key] for key in known])

    def at(size: float, seconds: Sequence[float]) -> float:
        y = np.log(np.maximum(seconds, 1e-9))
        slope = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else 0.0
        return float(np.exp(y.mean() + np.clip(slope, 0, 1) * (np.log(size) - x.mean())))

    names = next(iter(known.values())).analyses
    return {
        key: Cost(
            at(size, [cost.kimg_seconds for cost in known.values()]),
            {n: at(size, [cost.analyses[n] for cost in known.values()]) for n in names},
        )
        for key, size in sizes.items()
        if key not in known
    }


def spread(finished: Iterable[Sequence[Cost]]) -> float:
    """Factor that holds 19 of 20 trials of one size: from the scatter of their log seconds."""
    logs = [np.log([c.kimg_seconds for c in costs if c.kimg_seconds > 0]) for costs in finished]
    residuals = np.concatenate([x - x.mean() for x in logs if len(x) > 1] or [np.empty(0)])
    freedom = sum(max(0, len(x) - 1) for x in logs)
    if not freedom:
        return UNCERTAINTY
    return float(np.clip(np.exp(2 * np.sqrt((residuals**2).sum() / freedom)), CERTAINTY, 3.0))


def _stored(job: Job, survey: Survey) -> dict[str, list[Cost]]:
    """Costs of each trained and analysed trial, by network size, at its last finished kimg."""
    found: dict[str, list[Cost]] = {}
    groups = dict.fromkeys(facts.group for facts in job.facts.analyses.values())
    complete = survey.measured().all(2) & (survey.pieces[:, :, 0] == DONE)
    for i in np.flatnonzero(complete.any(1)):
        trial, j = survey.trials[i], np.flatnonzero(complete[i])[-1]
        seen = found.setdefault(size_key(trial), [])
        seconds = survey.noted[i, NOTED.index("train_seconds"), j]
        if len(seen) >= MOST or not np.isfinite(seconds):
            continue
        cell = Cell(trial, job.sweep.kimg[j])
        receipts = job.store.read_receipts(cell, [receipt_name(cell, group) for group in groups])
        if receipts:
            each = {n: receipts.get(n, {}).get("seconds", 0.0) for n in job.sweep.analyses}
            seen.append(Cost(seconds / cell.kimg, each))
    return {key: costs for key, costs in found.items() if costs}


def _middle(costs: Sequence[Cost]) -> Cost:
    """Medians over trials."""
    names = costs[0].analyses
    each = {n: median(cost.analyses[n] for cost in costs) for n in names}
    return Cost(median(cost.kimg_seconds for cost in costs), each)


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
    row = _seconds(evaluate, batch) + row_seconds(job)
    each = {
        name: SHARING * (row * rows + ANALYSIS_SECONDS) for name, rows in evaluations(job).items()
    }
    return Cost(SHARING * kimg, each)


def _seconds(call: Callable[[int], None], batch: int, at_least: float = PROBE_SECONDS) -> float:
    """Processor seconds per image of calls with `batch` images, the first call left out."""
    call(batch)
    calls, start = 0, time.process_time()
    while calls == 0 or time.process_time() - start < at_least:
        call(batch)
        calls += 1
    return (time.process_time() - start) / calls / batch


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
    total, needed = memory_here(), _memory(job)
    if needed > total:
        raise SpecError(
            f"{origin}: one process would need about {needed / 1e9:.0f} GB of memory, this"
            f" machine has {total / 1e9:.0f} GB; lower data.resolution, data.n_heldout, axes.width"
            " or the analyses' draws"
        )


def warnings(job: Job, cost: Estimate) -> list[str]:
    """What of the estimate this machine cannot give: memory for all processes, disk."""
    said, total = [], memory_here()
    if cost.processes * cost.memory_bytes > total and not cost.on_gpus:  # that is elsewhere
        said.append(
            f"{cost.processes} processes of about {cost.memory_bytes / 1e9:.1f} GB each may not"
            f" fit {total / 1e9:.0f} GB of memory: lower resources.concurrency"
        )
    wanted = job.sweep.resources.gpus_per_trial
    if wanted > cost.machine.gpus:
        said.append(
            f"a trial wants {wanted:g} GPUs, planned are {cost.machine.gpus:g} (see --gpus): times"
            " are those of a CPU"
        )
    if cost.on_gpus:
        said += _too_much_for(job, cost.machine.gpu)
    free = job.store.files.free()
    if free is not None and cost.disk_bytes > free:
        said.append(
            f"about {_size(cost.disk_bytes)} will be written to {job.store.folder}, where"
            f" {_size(free)} are free"
        )
    return said


def _too_much_for(job: Job, gpu: str) -> list[str]:
    """Whether the training of the largest network may not fit a GPU of this kind."""
    needed, image = _gpu_memory(job)
    room = [gb for gb in MEMORY[gpu] if gb * min(1.0, job.sweep.resources.gpus_per_trial) < needed]
    if not room:
        return []
    return [
        f"a training keeps up to {needed:.0f} GB on its GPU ({image:.2f} GB an image), {gpu}s have"
        f" {' or '.join(map(str, MEMORY[gpu]))}: training.checkpointing keeps less, and workers"
        " (resources.workers) share each batch"
    ]


def _gpu_memory(job: Job) -> tuple[float, float]:
    """GB that a worker of the largest network's training holds, and that an image adds to it."""
    weights = {trial: job.facts.sizes[size_key(trial)][0] for trial in trials(job.sweep)}
    trial = max(weights, key=lambda t: weights[t] * job.config(t).batch)
    config, denoiser = job.config(trial), job.denoiser(trial, torch.device("meta")).train()
    few = 2
    given = [torch.zeros(few, *job.facts.data.shape, dtype=job.dtype), torch.ones(few)]
    if config.labels != "none":
        given.append(torch.zeros(few, dtype=torch.long))
    given = (tensor.to("meta") for tensor in given)
    image = kept_bytes(denoiser, *given, checkpointing=config.checkpointing) / few / 1e9
    own = COPIES * weights[trial] * job.dtype.itemsize / 1e9
    return own + image * config.batch / job.sweep.resources.workers, image


def _size(count: float) -> str:
    """Bytes for people.

    >>> _size(2.5e6), _size(3e10)
    ('2.5 MB', '30.0 GB')
    """
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def check_disk(job: Job, cost: Estimate, origin: str) -> None:
    """Refuse what would surely fill the disk: twice as much as is free.

    Raises:
        SpecError: with the estimate and what is free.
    """
    free = job.store.files.free()
    if free is not None and cost.disk_bytes > 2 * free:
        raise SpecError(
            f"{origin}: about {_size(cost.disk_bytes)} would be written to"
            f" {job.store.folder}, where {_size(free)} are free; free some, or choose"
            " another --storage"
        )


def check_hours(cost: Estimate, hours: float, origin: str) -> None:
    """Refuse a run that is estimated to take longer than it may.

    Raises:
        SpecError: with both times and how to come down.
    """
    found, low, high = (s / 3600 for s in (cost.wall_seconds, *cost.wall_range))
    if found > hours:
        raise SpecError(
            f"{origin}: the run would take about {found:.2g} hours ({low:.2g} to {high:.2g}) on"
            f" {cost.machine.cores} cores, --max-hours allows {hours:g}; drop values from"
            " the axes, shorten kimg, drop analyses, or use more cores (--address)"
        )


def _memory(job: Job) -> float:
    """Rough peak of one process: data, weights with moments and gradients, one sigma's inputs."""
    data, d = job.facts.data, int(np.prod(job.facts.data.shape))
    parameters = max(size for size, _ in job.facts.sizes.values())
    draws = max((a.options.get("draws", 1) for a in job.facts.analyses.values()), default=1)
    inputs = 2 * 3 * draws * data.n_heldout * d * 8
    return 300e6 + 4 * d * data.n_pool + 6 * 4 * parameters + inputs + 4 * 8 * d * d
