"""How long known work takes on a machine: trials on their slots, analyses in what they leave."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from engine.spec import Resources

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
