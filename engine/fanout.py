"""Remote analysis tasks, owned by the driver, bounded in flight, while training goes on.

A thread submits and collects: Tune calls its callbacks only when a trial reports, and polls a
waiting searcher once a second, while an analysis may take a tenth of one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from engine.grid import Cell, Subset
from engine.job import ELSEWHERE, Job

TASK_MEMORY = 500 * 2**20
"""Logical bytes a task reserves: analyses take no CPU of the trials', or they would starve."""
POLL = 0.05
"""Seconds between looks at the queue."""
Task = tuple[Cell | Subset, str, tuple[str, ...]]


def _analyse(
    job: Job, data: Any, at: Cell | Subset, group: str, names: Sequence[str]
) -> dict[str, Any]:
    from engine.analyse import analyse  # torch is imported by the workers that need it alone

    return analyse(job, data, at, group, names)


class Fanout:
    """Analyses of stored snapshots as remote tasks.

    Args:
        job, data: references to the run's job and data in the object store.
        groups: group of each analysis; one task measures one group's analyses at one place.
        limit: tasks in flight.
        on_receipt: called with every finished task's receipt, in this object's thread.
        gpus: share of a GPU that a task reserves.
    """

    def __init__(
        self,
        job: Any,
        data: Any,
        groups: Mapping[str, str],
        *,
        limit: int,
        on_receipt: Callable[[dict[str, Any]], None],
        gpus: float = 0,
    ) -> None:
        self.job, self.data, self.groups = job, data, groups
        self.limit, self.on_receipt = limit, on_receipt
        self.queue: deque[Task] = deque()
        self.flying: dict[ray.ObjectRef, Task] = {}
        self.error: BaseException | None = None
        self.closed = self.abandoned = False
        self.remote = ray.remote(_analyse).options(
            num_cpus=0,
            num_gpus=gpus,
            memory=TASK_MEMORY,
            max_retries=3,
            retry_exceptions=list(ELSEWHERE),
            scheduling_strategy="DEFAULT",
        )
        self.thread = threading.Thread(target=self._work, name="fanout", daemon=True)
        self.thread.start()

    def add(self, at: Cell | Subset, names: Sequence[str]) -> None:
        """Queue the named analyses of a cell or subset, one task per group."""
        for group in dict.fromkeys(self.groups[name] for name in names):
            members = tuple(name for name in names if self.groups[name] == group)
            self.queue.append((at, group, members))

    @property
    def backlog(self) -> int:
        """Tasks queued or in flight."""
        return len(self.queue) + len(self.flying)

    def drain(self) -> None:
        """Wait until nothing is left, then raise what the thread could not."""
        while self.backlog and self.error is None:
            time.sleep(POLL)
        if self.error is not None:
            raise self.error

    def close(self, grace: float = 0) -> None:
        """Submit nothing more; wait at most `grace` seconds for tasks in flight to write."""
        self.queue.clear()
        self.closed = True
        self.thread.join(timeout=grace)
        # A thread that outlived Ray would start it anew by its next call.
        self.abandoned = True
        self.thread.join()

    def _work(self) -> None:
        try:
            while not (self.closed and (self.abandoned or not self.flying)):
                self._step()
        except Exception as error:
            self.error = error  # raised again by drain: an exception in a thread is nobody's

    def _step(self) -> None:
        """Submit as many tasks as fit, then collect what is ready."""
        while self.queue and len(self.flying) < self.limit:
            task = self.queue.popleft()
            self.flying[self.remote.remote(self.job, self.data, *task)] = task
        if not self.flying:
            time.sleep(POLL)
            return
        ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=POLL)
        for ref in ready:
            self._collect(ref)

    def _collect(self, ref: ray.ObjectRef) -> None:
        at, group, names = self.flying[ref]
        try:
            receipt = ray.get(ref)
        except ray.exceptions.RayError as error:
            # The task was lost more often than it is retried: its pieces stay pending, and say so.
            cause = getattr(error, "cause", None) or error
            reason = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
            errors = dict.fromkeys(names, reason)
            receipt = {"at": at, "group": group, "seconds": 0.0, "errors": errors}
        self.on_receipt({**receipt, "names": names})
        del self.flying[ref]


def share(job: Job, data: Any) -> tuple[Any, Any]:
    """Job and data in the object store: once per node, read without copies."""
    return ray.put(job), ray.put(data)
