"""Remote analysis tasks, owned by the driver, bounded in flight, while training goes on.

A thread submits and collects: Tune calls its callbacks only when a trial reports, and polls a
waiting searcher once a second, while an analysis may take a tenth of one.

A task whose place failed (a lost worker or node, no memory, an OSError) is tried again after a
growing pause; one that outlives its deadline is cancelled and tried once more. Then it has failed.
"""

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from engine.cluster import Room
from engine.files import Full
from engine.grid import Cell, Subset
from engine.job import ELSEWHERE, TO_LOWER, Job

TASK_MEMORY = 500 * 2**20
"""Logical bytes a task reserves: analyses take no CPU of the trials', or they would starve."""
POLL = 0.05
"""Seconds between looks at the queue."""
RETRIES = 5
"""Times that a task whose place failed is tried again."""
PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds before the first retry, doubled for each further one, and their bound."""

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Stuck(RuntimeError):
    """A task outlived its deadline."""


@dataclass(eq=False)
class Task:
    """Analyses of one group at one place, and how it went so far."""

    at: Cell | Subset
    group: str
    names: tuple[str, ...]
    errors: list[str] = field(default_factory=list)
    ready: float = 0.0
    """When it may be tried (again)."""
    due: float = float("inf")
    """When it counts as stuck; never while it only waits for a worker."""
    node: str = ""
    """Where it has a place now; "" leaves that to Ray."""


def pause(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: doubling, bounded, never twice the same.

    >>> all(1 <= pause(1) < 3 for _ in range(100)) and pause(50) < 90
    True
    """
    return min(PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.5)


def _analyse(job: Job, data: Any, task: Task, last: bool) -> Iterator[dict[str, Any] | None]:
    """Say that the task has begun, then what it gave."""
    yield None
    from engine.analyse import analyse  # torch is imported by the workers that need it alone

    yield analyse(job, data, task.at, task.group, task.names, lost=task.errors, last=last)


class Fanout:
    """Analyses of stored snapshots as remote tasks.

    Args:
        job, data: references to the run's job and data in the object store.
        groups: group of each analysis; one task measures one group's analyses at one place.
        room: where tasks find a place; what has none waits in the queue.
        on_receipt: called with every finished task's receipt, in this object's thread; that of a
            lost task has the errors of its attempts as `lost`: it could store nothing itself.
        deadline: seconds that the named analyses may take at a place.
        stop: whether nothing new should start.
    """

    def __init__(
        self,
        job: Any,
        data: Any,
        groups: Mapping[str, str],
        *,
        room: Room,
        on_receipt: Callable[[dict[str, Any]], None],
        deadline: Callable[[Cell | Subset, Sequence[str]], float],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self.data, self.groups = job, data, groups
        self.room, self.on_receipt, self.deadline = room, on_receipt, deadline
        self.stop = stop
        self.queue: deque[Task] = deque()
        self.later: list[Task] = []
        self.flying: dict[ray.ObjectRefGenerator, Task] = {}
        self.lock = threading.Lock()
        """Held while a task is on its way from one list to another, so that none is overlooked."""
        self.error: BaseException | None = None
        self.closed = self.abandoned = False
        asked = room.ask.bundle
        self.remote = ray.remote(_analyse)
        self.options = {
            "num_cpus": 0,
            "num_gpus": asked.get("GPU", 0),
            "resources": {n: amount for n, amount in asked.items() if n not in ("CPU", "GPU")},
            "memory": TASK_MEMORY,
            "num_returns": "streaming",
            "max_retries": 0,  # Ray's own come at once
        }
        self.thread = threading.Thread(target=self._work, name="fanout", daemon=True)
        self.thread.start()

    def add(self, at: Cell | Subset, names: Sequence[str]) -> None:
        """Queue the named analyses of a cell or subset, one task per group."""
        for group in dict.fromkeys(self.groups[name] for name in names):
            members = tuple(name for name in names if self.groups[name] == group)
            self.queue.append(Task(at, group, members))

    @property
    def backlog(self) -> int:
        """Tasks queued, to be tried again, or in flight."""
        with self.lock:
            return len(self.queue) + len(self.later) + len(self.flying)

    def drain(self) -> None:
        """Wait until nothing is left, then raise what the thread could not."""
        while self.backlog and self.error is None:
            time.sleep(POLL)
        if self.error is not None:
            raise self.error

    def close(self, grace: float = 0) -> None:
        """Submit nothing more; wait at most `grace` seconds for tasks in flight to write."""
        with self.lock:
            self.queue.clear()
            self.later.clear()
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
        """Submit as many tasks as fit, then collect what is ready and give up what is stuck."""
        now = time.monotonic()
        with self.lock:
            if self.stop():
                self.queue.clear()
                self.later.clear()
            self.queue.extend(task for task in self.later if task.ready <= now)
            self.later = [task for task in self.later if task.ready > now]
            while self.queue and (node := self.room.take()) is not None:
                task = self.queue.popleft()
                task.due, task.node = float("inf"), node
                last = len(task.errors) == RETRIES
                near = self.room.near(node)
                remote = self.remote.options(**self.options, scheduling_strategy=near)
                self.flying[remote.remote(self.job, self.data, task, last)] = task
        if not self.flying:
            time.sleep(POLL)
            return
        ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=POLL)
        for result in ready:
            self._collect(result)
        for result, task in list(self.flying.items()):
            if task.due < now:
                ray.cancel(result, force=True)
                self._failed(result, Stuck("past its deadline, cancelled"))

    def _collect(self, result: ray.ObjectRefGenerator) -> None:
        task = self.flying[result]
        try:
            receipt = ray.get(next(result))
        except (ray.exceptions.RayError, StopIteration) as error:
            self._failed(result, getattr(error, "cause", None) or error)
            return
        if receipt is None:
            stuck = sum(error.startswith("Stuck") for error in task.errors)
            allowed = self.deadline(task.at, task.names)
            task.due = time.monotonic() + allowed * 2**stuck  # the prediction may be to blame
        else:
            self.on_receipt({**receipt, "names": task.names})
            self._land(result)

    def _failed(self, result: ray.ObjectRefGenerator, error: BaseException) -> None:
        """Try a task again where that may help; else it has failed, with the reason."""
        if isinstance(error, Full):
            raise error  # ends the run: neither waiting nor another place helps
        task = self.flying[result]
        task.errors.append(reason_of(f"{type(error).__name__}: {error}"))
        again = 1 if isinstance(error, Stuck) else RETRIES
        lost = isinstance(error, (*ELSEWHERE, ray.exceptions.RayError, Stuck))
        if self.closed:
            pass  # the run ends: what is not stored stays pending
        elif lost and len(task.errors) <= again:
            task.ready = time.monotonic() + pause(len(task.errors))
            self.later.append(task)
        else:
            errors = dict.fromkeys(task.names, task.errors[-1])
            receipt = {"at": task.at, "group": task.group, "seconds": 0.0, "errors": errors}
            self.on_receipt({**receipt, "names": task.names, "lost": task.errors})
        self._land(result)

    def _land(self, result: ray.ObjectRefGenerator) -> None:
        """The end of a flight, last of all: an empty backlog means that everything was seen."""
        self.room.leave(self.flying[result].node)
        del self.flying[result]


def reason_of(said: str) -> str:
    """One line of what Ray says about a lost process; what to lower if memory ran out.

    >>> reason_of("Worker exit detail: End of file. Some common causes include: memory")
    'Worker exit detail: End of file.'
    """
    # Ray lists the causes that it cannot tell apart: naming one of them would be a guess.
    said = ANSI.sub("", said).partition(" Some common causes include")[0].strip()
    memory = re.search(r"node running low on memory[^\n]*", said)
    if memory:
        return f"OutOfMemory: Ray ended the process, the {memory[0]}; {TO_LOWER}"
    return said.splitlines()[-1] if said else "ended without a word"


def share(job: Job, data: Any) -> tuple[Any, Any]:
    """Job and data in the object store: once per node, read without copies."""
    return ray.put(job), ray.put(data)
