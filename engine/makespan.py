"""How long known work takes on a machine: trials on their slots, analyses in what they leave."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.spec import Resources
from engine.work import PENDING, Survey

STARTUP_SECONDS = 28.0
"""Ray, the workers' imports, gathering and drawing, on 2 cores (benchmarks/plans.py)."""
EFFICIENCY = 0.86
"""Share of the cores' time that is training and analysis meanwhile (benchmarks/efficiency.py)."""


@dataclass(frozen=True)
class Machine:
    """What a run may use: one machine, or the sum over a cluster's."""

    cores: int
    gpus: float = 0.0
    gpu: str = ""
    """Their kind (`engine.gpus`), where the plan is for trials on them."""


def slots_on(machine: Machine, resources: Resources) -> int:
    """Trials at a time: as asked, or as many as fit, at least one."""
    fits = machine.cores / resources.cpus_per_trial
    if resources.gpus_per_trial:
        fits = min(fits, machine.gpus / resources.gpus_per_trial)
    asked = fits if resources.concurrency == "auto" else min(resources.concurrency, fits)
    return max(1, int(asked))


def chances(survey: Survey) -> np.ndarray:
    """float64 (trial): how likely a run trains each trial, should it lack something.

    A search asks for so many of those that it has not begun; which, nobody knows before.
    """
    if survey.begun is None:
        return np.ones(len(survey.trials))
    open_ = (survey.pieces[:, :, 0] == PENDING).any(1) & ~survey.begun
    return np.where(open_, min(1.0, survey.left / max(1, open_.sum())), survey.begun)


def spread_out(seconds: Iterable[float], count: int) -> list[float]:
    """`count` of the values that stand for all: evenly spaced in their order.

    >>> spread_out([4, 1, 3, 2], 2)
    [2, 4]
    """
    ordered = sorted(seconds)
    return [ordered[int((k + 0.5) * len(ordered) / count)] for k in range(count)]


def scheduled(trials: Sequence[float], likely: Sequence[float]) -> list[float]:
    """Seconds of as many trainings as a run is likely to make, of trials that it may make."""
    sure = [seconds for seconds, chance in zip(trials, likely, strict=True) if chance == 1]
    rest = [seconds for seconds, chance in zip(trials, likely, strict=True) if chance < 1]
    return sure + spread_out(rest, round(sum(chance for chance in likely if chance < 1)))


def list_schedule(seconds: Iterable[float], slots: int) -> float:
    """When the last of some jobs ends, the longest started first, each on the first free slot.

    At most 4/3 - 1/(3 slots) of the best schedule (Graham 1969).

    >>> list_schedule([3, 3, 2, 2, 2], 2)
    7
    """
    free = [0] * slots
    for job in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def makespan(
    trials: Iterable[float], analyses: float, tail: float, slots: int, cores: int, busy: int = 1
) -> float:
    """Seconds until everything is done.

    Trials are started longest first. Analyses run beside them on every core that is left, and
    share cores with them where none is: the whole can end neither before the trials do nor before
    all cores have done all work. The last snapshot's analyses come after it.

    Args:
        trials: core-seconds of each training.
        analyses: core-seconds of all analyses.
        tail: core-seconds of the analyses of one cell.
        slots: trials at a time.
        busy: cores that one trial keeps busy.
    """
    trials = list(trials)
    longest = list_schedule((seconds / busy for seconds in trials), slots)
    return max(longest, (sum(trials) + analyses) / cores) + min(tail, analyses)
