"""One small sweep under one store: started, disturbed, started again, compared."""

import copy
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import xarray as xr

from tests.engine.helpers import TINY, compute, contents, prepared, stored_cube
from tests.faults.processes import below, gone, send

NAME = "faults"
SWEEP = {
    **TINY,
    "name": NAME,
    "kimg": [1, 20, 40, 60],
    "training": {**TINY["training"], "batch": 32},
    "analyses": {
        "gaussian": {"draws": 4},
        "generalization": {},
        "memorization": {},
        "samples": {},
    },
    "resources": {"checkpoint_seconds": 0.2},
}
"""Long enough to be disturbed, short enough to be repeated."""
ROOT = Path(__file__).parents[2]
LIMIT = 300.0
"""Seconds after which something that has to happen has not; for a busy machine."""
TRUTH = ("kimg*.safetensors", "*.arrow")


class Missed(Exception):
    """The run was over before the moment came."""


class Lost(AssertionError):
    """A fault was not survived."""


def require(holds: bool, message: str) -> None:
    """Lost, with the message, unless it holds."""
    if not holds:
        raise Lost(message)


def stored(folder: Path) -> dict[str, bytes]:
    """Every snapshot and piece."""
    return {k: v for pattern in TRUTH for k, v in contents(folder, pattern).items()}


class Undisturbed:
    """The same sweep without faults, computed in this process: its cube and its files."""

    def __init__(self, folder: Path) -> None:
        from engine.publish import publish
        from engine.run import record_run

        ready = prepared(SWEEP, folder)
        record_run(ready, "undisturbed")
        compute(ready)
        facts = ready.facts.model_dump(mode="json")
        publish(ready.sweep, facts, ready.prints, ready.store, ready.survey(), figures=False)
        self.folder = folder / NAME
        self.cube, self.files = stored_cube(self.folder), stored(self.folder)
        self.disk = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


class Scene:
    """A store, the command that fills it, and what is done to both."""

    def __init__(self, folder: Path, seed: object, truth: Undisturbed) -> None:
        self.rng, self.truth = random.Random(str(seed)), truth
        self.base, self.storage = folder, folder / "store"
        self.folder = self.storage / NAME
        self.storage.mkdir(parents=True)
        self.path = folder / f"{NAME}.yaml"
        self.write(SWEEP)
        self.more: list[str] = []
        self.module = ["-m", "engine"]
        self.environment: dict[str, str] = {}
        self.nodes = self.disk = None
        self.process: subprocess.Popen | None = None
        self.logs: dict[int, Path] = {}
        """Where each process prints."""
        self.starts, self.moment = 0, ""
        self.left: dict[int, int] = {}
        """Processes of an ended command, as `below` gives them: they have to end by themselves."""

    # The command ---------------------------------------------------------------------------------

    def write(self, mapping: dict) -> None:
        """The sweep file."""
        self.path.write_text(json.dumps(copy.deepcopy(mapping)))

    def start(self) -> subprocess.Popen:
        """The command, in a session of its own."""
        self.starts += 1
        path = self.base / f"start-{self.starts}.log"
        command = [sys.executable, *self.module, "run", str(self.path)]
        command += ["--storage", str(self.storage), "--no-figures", *self.more]
        with open(path, "w") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "COLUMNS": "200",
                    "PYTHONPATH": str(ROOT),
                    **self.environment,
                },
            )
        self.logs[process.pid] = path
        return process

    def said(self, process: subprocess.Popen | None = None) -> str:
        """What a process has printed, by default the command's own."""
        return self.logs[(process or self.process).pid].read_text()

    @property
    def runs(self) -> bool:
        """Whether the command is running."""
        return self.process is not None and self.process.poll() is None

    def ended(self) -> int:
        """Exit status of the running command, once it has ended."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Lost(f"the run has not ended after {LIMIT:.0f} s:\n{self.said()}") from None

    def alone(self) -> tuple[int, str]:
        """Run the command beside what runs: exit status and what it printed."""
        process = self.start()
        status = process.wait(LIMIT)
        return status, self.said(process)

    def finish(self) -> None:
        """To the end: the running command, or the same one again."""
        if not self.runs:
            self.process = self.start()
        status = self.ended()
        require(status == 0, f"exit status {status}:\n{self.said()}")

    def stop(self) -> None:
        """End the running command in order."""
        if self.runs:
            self.process.terminate()
            status = self.ended()
            require(status in (0, 130), f"SIGTERM: exit status {status}:\n{self.said()}")

    def close(self) -> None:
        """Leave no process behind."""
        if self.runs:
            everything = below(self.process.pid)
            send([self.process.pid, *everything])
            self.process.wait()
            gone(everything)

    # Moments -------------------------------------------------------------------------------------

    def results(self) -> list[Path]:
        """Snapshots and pieces so far."""
        found = [p for pattern in TRUTH for p in self.folder.rglob(pattern)]
        return sorted(p for p in found if ".tmp-" not in p.name)

    def wait(self, *, within: tuple[float, float]) -> None:
        """Let the command run until a seeded number of results is stored.

        Raises:
            Missed: it ended before.
        """
        total = len(self.truth.files)
        wanted = round(total * self.rng.uniform(*within))
        self.moment = f"{wanted} of {total} results stored"
        if not self.runs:
            self.process = self.start()
        end = time.monotonic() + LIMIT
        while len(self.results()) < wanted:
            if self.process.poll() is not None:
                status = self.process.returncode
                require(status == 0, f"exit status {status}:\n{self.said()}")
                raise Missed(self.moment)
            require(time.monotonic() < end, f"not reached: {self.moment}:\n{self.said()}")
            time.sleep(0.01)

    # What has to hold ----------------------------------------------------------------------------

    def compare(self) -> None:
        """Cube and files equal those of the undisturbed sweep."""
        try:
            xr.testing.assert_identical(stored_cube(self.folder), self.truth.cube)
        except AssertionError as error:
            raise Lost(f"the cube differs: {error}") from error
        files = stored(self.folder)
        require(files.keys() == self.truth.files.keys(), "other files than undisturbed")
        differ = [name for name in files if files[name] != self.truth.files[name]]
        require(not differ, f"other bytes than undisturbed: {differ}")
