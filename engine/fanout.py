"""Remote analysis tasks, owned by the driver, bounded in flight.

`pump` never blocks and never raises: it submits what fits, collects what is ready and keeps any
error for `drain`. It is called from every place where Tune lets the driver think.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray

from engine.grid import Cell, Subset
from engine.job import Job

TASK_MEMORY = 500 * 2**20
"""Logical bytes a task reserves: analyses take no CPU of the trials', or they would starve."""


def _analyse(
    job: Job, data: Any, at: Cell | Subset, group: str, names: Sequence[str]
) -> dict[str, Any]:
    from engine.analyse import analyse  # torch is imported by the workers that need it alone

    return analyse(job, data, at, group, names)


class Fanout:
    """Analyses of stored snapshots as remote tasks, while training goes on.

    Args:
        job, data: references to the run's job and data in the object store.
        limit: tasks in flight.
        on_receipt: called with every finished task's receipt.
    """

    def __init__(
        self,
        job: Any,
        data: Any,
        sweep_groups: dict[str, str],
        limit: int,
        on_receipt: Callable[[dict[str, Any]], None],
        gpus: float = 0,
    ) -> None:
        self.job, self.data, self.groups = job, data, sweep_groups
        self.limit, self.on_receipt = limit, on_receipt
        self.queue: deque[tuple[Cell | Subset, str, tuple[str, ...]]] = deque()
        self.flying: dict[ray.ObjectRef, tuple[Cell | Subset, str, tuple[str, ...]]] = {}
        self.error: BaseException | None = None
        self.remote = ray.remote(_analyse).options(
            num_cpus=0,
            num_gpus=gpus,
            memory=TASK_MEMORY,
            max_retries=3,
            retry_exceptions=[OSError, MemoryError],
            scheduling_strategy="DEFAULT",
        )

    def add(self, at: Cell | Subset, names: Sequence[str]) -> None:
        """Queue the named analyses of a cell or subset, one task per group."""
        for group in dict.fromkeys(self.groups[name] for name in names):
            members = tuple(name for name in names if self.groups[name] == group)
            self.queue.append((at, group, members))

    @property
    def backlog(self) -> int:
        """Tasks queued or in flight."""
        return len(self.queue) + len(self.flying)

    def pump(self, wait: float = 0) -> None:
        """Collect finished tasks, submit as many as fit; wait at most `wait` seconds for one."""
        try:
            if self.flying:
                ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=wait)
                if ready:  # one wakes the driver, the others that are ready come along
                    ready, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
                for ref in ready:
                    self._collect(ref)
            while self.queue and len(self.flying) < self.limit:
                task = self.queue.popleft()
                self.flying[self.remote.remote(self.job, self.data, *task)] = task
        except Exception as error:
            # Raised again by drain: an exception inside a Tune callback would end the sweep.
            self.error = self.error or error
            time.sleep(wait)

    def _collect(self, ref: ray.ObjectRef) -> None:
        at, group, names = self.flying.pop(ref)
        try:
            receipt = ray.get(ref)
        except Exception as error:
            # The task was lost more often than it is retried: its pieces stay pending, and say so.
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            receipt = {
                "at": at,
                "group": group,
                "seconds": 0.0,
                "lost": reason,
                "errors": {name: reason for name in names},
            }
        self.on_receipt({**receipt, "names": names})

    def drain(self) -> None:
        """Work until nothing is left, then raise what `pump` had to keep."""
        while self.backlog and self.error is None:
            self.pump(wait=1.0)
        if self.error is not None:
            raise self.error


def share(job: Job, data: Any) -> tuple[Any, Any]:
    """Job and data in the object store: once per node, read without copies."""
    return ray.put(job), ray.put(data)
