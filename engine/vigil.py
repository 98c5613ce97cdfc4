"""Which trials give no sign of life: neither a heartbeat nor a snapshot within their deadline."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.grid import Trial
from engine.store import Store

PATIENCE = 600.0
"""Seconds that anything may take before it counts as stuck, however short it should be."""
SLACK = 20.0
"""Beyond that: so many times its predicted seconds."""


def deadline(predicted: float | None) -> float:
    """Seconds after which what should take `predicted` counts as stuck.

    Never, if nothing is predicted: no work fails for lasting alone.
    """
    return float("inf") if predicted is None else max(PATIENCE, SLACK * predicted)


@dataclass
class Life:
    """The last sign of life of a trial, by its record's stamp and by this process' clock."""

    trial: Trial
    stamp: float | None
    since: float
    look: float
    """When to read the record next."""


class Vigil:
    """Watches the records of live trials; clocks of other hosts are never compared with ours."""

    def __init__(
        self,
        store: Store,
        allowed: Callable[[Trial], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.allowed, self.clock = store, allowed, clock
        self.lives: dict[str, Life] = {}

    def begin(self, key: str, trial: Trial) -> None:
        """A trial starts to live (again)."""
        now = self.clock()
        self.lives[key] = Life(trial, None, now, now)

    def end(self, key: str) -> None:
        """It has ended, well or badly."""
        self.lives.pop(key, None)

    def stuck(self) -> dict[str, float]:
        """Keys of trials past their deadline, with the seconds of silence."""
        now, found = self.clock(), {}
        for key, life in self.lives.items():
            if now < life.look:
                continue
            allowed = self.allowed(life.trial)
            life.look = now + allowed / 10
            stamp = self.store.trial_record(life.trial).get("heartbeat")
            if stamp != life.stamp:
                life.stamp, life.since = stamp, now
            elif now - life.since > allowed:
                found[key] = now - life.since
        return found
