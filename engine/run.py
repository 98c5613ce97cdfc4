"""`diffphase run`: check, compute what is missing, publish. Ray starts only if work is left."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from engine.explain import explain, lines, remembered
from engine.grid import Cell
from engine.publish import publish, versions
from engine.resolve import Facts, changed, fingerprints, identity, load, resolve
from engine.spec import SpecError, Sweep, as_mapping, canonical
from engine.store import Store
from engine.work import FAILED, PENDING, Survey, survey

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came: stop submitting, end in order."""


@dataclass
class Prepared:
    """A sweep that has been checked against the registries, the data and its store."""

    sweep: Sweep
    origin: str
    facts: Facts
    prints: dict[str, Any]
    store: Store
    data: Any
    """The data where they had to be read to check the sweep, else None."""

    def survey(self, *, retry_failed: bool = False) -> Survey:
        """The grid compared with the store."""
        return survey(self.sweep, self.store, self.prints, retry_failed=retry_failed)

    def explain(self, found: Survey) -> list[dict[str, Any]]:
        """Why each cell and piece of a survey is cached, missing, stale or failed."""
        facts = self.facts.model_dump(mode="json")
        return explain(found, facts, self.prints, self.store.record())


def prepare(sweep: Sweep, origin: str, storage: str, *, count_flops: bool = True) -> Prepared:
    """Check everything that can be wrong before anything starts.

    Raises:
        SpecError: bad input, or training settings that differ from those under stored trials.
    """
    store = Store(storage, sweep.name)
    store.files.check()
    record = store.record()
    known = _known_facts(record)
    facts, data = resolve(sweep, origin, known, count_flops=count_flops)
    if record:
        otherwise = changed(record["identity"], _plain(identity(sweep, facts)))
        if otherwise and store.files.listing("trials"):
            raise SpecError(
                f"{origin}: the trials stored in {store.folder} were trained otherwise:\n  "
                + "\n  ".join(otherwise)
                + "\nset it back, or give the sweep a new name"
            )
    return Prepared(sweep, origin, facts, fingerprints(sweep, facts), store, data)


def _known_facts(record: dict | None) -> Facts | None:
    """The stored facts, unless they were written by a version that knew others."""
    try:
        return Facts.model_validate(record["facts"]) if record else None
    except ValidationError:
        return None  # they are found anew


def _plain(value: Any) -> Any:
    return json.loads(canonical(value))


def record_run(prepared: Prepared, command: str) -> None:
    """Write sweep.json: the resolved sweep, what it stands on, and one line of history."""
    store = prepared.store
    before = store.record() or {}
    history = before.get("history", [])
    store.write_record(
        {
            "sweep": as_mapping(prepared.sweep),
            "facts": prepared.facts.model_dump(mode="json"),
            "identity": _plain(identity(prepared.sweep, prepared.facts)),
            "prints": prepared.prints,
            "ingredients": remembered(before),
            "versions": versions(),
            "commit": _commit(),
            "history": [*history, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {command}"],
        }
    )


def _commit() -> str:
    """The git commit of the code, recorded but not part of identity; empty outside a checkout."""
    import subprocess

    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def run(
    prepared: Prepared,
    *,
    address: str | None = None,
    retry_failed: bool = False,
    max_failures: int | None = None,
    max_hours: float | None = None,
    figures: bool = True,
    command: str = "diffphase run",
) -> int:
    """Compute everything missing, then gather and draw. Returns the exit status."""
    with Interrupts() as interrupts:

        def begin(todo: Survey) -> None:
            """Once the machines are known: the last refusal, then the first record."""
            interrupts.arm()  # Ray has put a handler of its own in place
            if address is not None and max_hours is not None:
                _check_hours(prepared, todo, max_hours, address)
            record_run(prepared, command)

        try:
            prepared.store.files.check(make=True)
            with prepared.store.files.lock():
                prepared.store.files.sweep_temporaries()
                todo = prepared.survey(retry_failed=retry_failed)
                for line in lines(r for r in prepared.explain(todo) if r["state"] == "stale"):
                    print(f"{line}; recomputed")
                if not todo.is_finished:
                    if address is None and max_hours is not None:
                        _check_hours(prepared, todo, max_hours)
                    _compute(prepared, todo, address, max_failures, begin)
                elif prepared.store.record() is None or _changed(prepared):
                    record_run(prepared, command)
                after = todo if todo.is_finished and not retry_failed else prepared.survey()
                _publish(prepared, after, figures=figures)
                return _outcome(after)
        except (KeyboardInterrupt, SystemExit):  # the latter from Ray's handler, while it starts
            print("interrupted: the same command goes on from here", file=sys.stderr)
            return 130


def _publish(prepared: Prepared, after: Survey, *, figures: bool) -> None:
    facts = prepared.facts.model_dump(mode="json")
    publish(prepared.sweep, facts, prepared.prints, prepared.store, after, figures=figures)


def _changed(prepared: Prepared) -> bool:
    return prepared.store.record()["sweep"] != as_mapping(prepared.sweep)


def _outcome(after: Survey) -> int:
    """Exit status: 1 with failed or unfinished cells, which are listed or counted."""
    failed = np.argwhere(after.cells() == FAILED)
    for i, j in failed[:20]:
        cell = Cell(after.trials[i], after.sweep.kimg[j])
        print(f"failed {cell}: {after.errors.get((i, j), 'unknown reason')}", file=sys.stderr)
    if len(failed) > 20:
        print(f"... and {len(failed) - 20} more failed cells", file=sys.stderr)
    pending = int((after.cells() == PENDING).sum())
    if pending:
        print(f"{pending} cells are still pending: run the same command again", file=sys.stderr)
    return 1 if len(failed) or pending else 0


def _compute(
    prepared: Prepared,
    todo: Survey,
    address: str | None,
    max_failures: int | None,
    begin: Callable[[Survey], None],
) -> None:
    """Train and analyse what is missing on a Ray cluster, after `begin` has let it."""
    from engine.cluster import check_storage, cluster, configure
    from engine.cost import check_memory

    configure(address)
    from engine.driver import Driver
    from engine.job import Job

    data = prepared.data or load(prepared.sweep, prepared.origin)
    job = Job(prepared.sweep, prepared.facts, prepared.prints, prepared.store)
    if address is None:
        check_memory(job, prepared.origin)
    with cluster(address, data.nbytes, groups=prepared.sweep.resources.workers > 1):
        if address is not None:
            check_storage(prepared.store.files)
        begin(todo)
        Driver(job, data, todo, max_failures).work(lambda: prepared.survey())


def _check_hours(
    prepared: Prepared, todo: Survey, max_hours: float, address: str | None = None
) -> None:
    """Refuse what is estimated to take longer than it may."""
    from engine.cluster import machine
    from engine.cost import check_hours, estimate
    from engine.job import Job

    job = Job(prepared.sweep, prepared.facts, prepared.prints, prepared.store)
    check_hours(estimate(job, todo, machine(address)), max_hours, prepared.origin)


class Interrupts:
    """SIGINT and SIGTERM raise once, so that writes end; a second one ends the process at once."""

    def __enter__(self) -> "Interrupts":
        self.seen = False
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        self.arm()
        return self

    def arm(self) -> None:
        """Take the signals, or take them back."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.seen:
            os._exit(130)
        self.seen = True
        raise Interrupted

    def __exit__(self, *error: object) -> None:
        for number, old in self.before.items():
            signal.signal(number, old)
