"""How much of the machine a run spends on training and analysis, beside the same work in a loop.

`diffphase run` is started as a user starts it. The processor seconds are those that the engine
stores: of each training with its last snapshot, of each analysis in its receipt. The first
training step is placed at the first stamp of the first trial.json (written just before it, and
caught by watching the store), the last one at the last stamp of a trial.json (written just after
it). Of an analysis that ended outside this window only the part inside counts.

The plain loop calls the same two functions on the same sweep without Ray, in one process and in
one process per core; its clock starts when all its processes have their imports and data. What a
worker of the engine imports in its first trial or task counts as that one's seconds; the loop's
seconds for the same work do not have it, so the target is also judged with those.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engine.analyse import analyse
from engine.cluster import cores
from engine.grid import Cell, moment
from engine.job import Job
from engine.run import prepare
from engine.spec import as_mapping, load, parse
from engine.store import Store
from engine.trial import train_trial
from engine.work import DONE

TARGET = 0.8
LEAST_SECONDS = 5.0
"""Shorter trials would measure start-up, not the engine."""
QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
FULL = ["axes.width=[256]", "axes.n_train=[16, 32, 64, 128]", "axes.draw=[0, 1]"]
QUICK = ["axes.width=[64]", "axes.n_train=[16, 32]", "axes.draw=[0]", "kimg=[8, 16, 32]"]


@dataclass
class Way:
    """One way of doing the whole work."""

    name: str
    wall: float
    """Seconds from the first training step to the last piece."""
    cpu: float
    """Processor seconds of training and analysis code."""
    processes: int

    @property
    def share(self):
        """Of the processes' cores, the part that the code kept busy."""
        return self.cpu / (self.wall * self.processes)


# What a finished store tells ------------------------------------------------------------------


def trainings(store):
    """Per trial: processor seconds of its training, and when its record was last written."""
    found = []
    for path in store.files.listing("trials"):
        if path.endswith("/trial.json"):
            record = store.files.read_json(path)
            seconds = max(s["train_seconds"] for s in record["snapshots"].values())
            found.append((seconds, record["heartbeat"]))
    return found


def receipts(store):
    """Per analysis task: its processor seconds, and when it ended."""
    found = []
    for path in [*store.files.listing("trials"), *store.files.listing("subsets")]:
        if "/log/" in path:
            receipt = store.files.read_json(path)
            errors = [a["error"] for a in receipt["analyses"].values() if "error" in a]
            if errors:
                raise RuntimeError(f"{path}: {errors[0]}")
            seconds = sum(a["seconds"] for a in receipt["analyses"].values())
            found.append((seconds, receipt["time"]))
    return found


def within(tasks, start, end):
    """Processor seconds of tasks inside a window, as if each had had its core to itself.

    >>> within([(2.0, 5.0), (2.0, 11.0)], 4.0, 10.0)
    2.0
    """
    spans = [(max(stop - seconds, start), min(stop, end)) for seconds, stop in tasks]
    return sum(max(0.0, b - a) for a, b in spans)


# Ways of doing the work -----------------------------------------------------------------------


def by_engine(sweep, folder):
    """`diffphase run`: shares up to the last step and the last piece, and seconds in all."""
    path = Path(folder) / "efficiency.yaml"
    path.write_text(json.dumps(as_mapping(sweep)))  # JSON is YAML
    store = Store(f"{folder}/engine", sweep.name)
    command = [sys.executable, "-m", "engine", "run", str(path), "--storage", store.storage]
    begin = time.monotonic()
    running = subprocess.Popen(command, stdout=sys.stderr)
    try:
        start = first_stamp(store, running)
    finally:
        status = running.wait()
    whole = time.monotonic() - begin
    if status:
        raise RuntimeError(f"diffphase run ended with status {status}")
    trained, analysed = trainings(store), receipts(store)
    steps_end = max(stamp for _, stamp in trained)
    last = max(steps_end, *(stop for _, stop in analysed))
    train_cpu = sum(seconds for seconds, _ in trained)
    training, everything = (
        Way(name, end - start, train_cpu + within(analysed, start, end), cores())
        for name, end in (("engine, to the last step", steps_end), ("engine", last))
    )
    return training, everything, whole


def first_stamp(store, running):
    """When the first trial wrote its first record."""
    while running.poll() is None:
        for path in store.files.listing("trials"):
            if path.endswith("/trial.json"):
                record = store.files.read_json(path)
                if record["snapshots"]:
                    raise RuntimeError("the first record was missed: is a snapshot that short?")
                return record["heartbeat"]
        time.sleep(0.02)
    raise RuntimeError("the run ended before a trial began")


def by_loop(sweep, folder, processes):
    """The same work in `processes` plain loops that share out the trials."""
    storage = f"{folder}/loop-{processes}"
    context = multiprocessing.get_context("spawn")
    arguments = (as_mapping(sweep), storage, context.Barrier(processes))
    count = len(prepare(sweep, "efficiency", storage).survey().trials)
    with context.Pool(processes, initializer=enter, initargs=arguments) as pool:
        spans = pool.map(whole_trial, range(count), chunksize=1)
    store = Store(storage, sweep.name)
    cpu = sum(seconds for seconds, _ in trainings(store) + receipts(store))
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    name = f"plain loop, {processes} process" + ("es" if processes > 1 else "")
    return Way(name, wall, cpu, processes)


def enter(mapping, storage, ready_all):
    """What a process of the loop holds: the job, its data, what is to be done."""
    global job, data, todo
    ready = prepare(parse(mapping, "efficiency"), "efficiency", storage)
    job = Job(ready.sweep, ready.facts, ready.prints, ready.store)
    data, todo = ready.data, ready.survey()
    ready_all.wait()


def whole_trial(i):
    """Train one trial, then analyse its snapshots; when that began and ended."""
    start, trial = time.time(), todo.trials[i]
    list(train_trial(job, data, trial, job.sweep.kimg))
    if trial.subset not in [t.subset for t in todo.trials[:i]]:
        measure(trial.subset, list(job.prints["subset_pieces"]))
    for kimg in job.sweep.kimg:
        measure(Cell(trial, kimg), list(job.sweep.analyses))
    return start, time.time()


def measure(at, names):
    """Analyse one place, group by group, as the engine's tasks do."""
    group_of = {name: job.facts.analyses[name].group for name in names}
    for group in dict.fromkeys(group_of.values()):
        analyse(job, data, at, group, [name for name in names if group_of[name] == group])


# What was found -------------------------------------------------------------------------------


def table(ways):
    """The ways as Markdown; those of the engine come first."""
    lines = [
        "| | wall, s | training and analysis, CPU s | CPU / (wall x cores used) |",
        "|---|---|---|---|",
    ]
    lines += [f"| {w.name} | {w.wall:.1f} | {w.cpu:.1f} | {w.share:.2f} |" for w in ways]
    return "\n".join(lines)


def summary(training, everything, alone, spread, whole, shortest):
    """The target with what was found, and the engine beside the loops."""
    strict = training.share * alone.cpu / everything.cpu
    word = "met" if min(strict, training.share) >= TARGET else "MISSED"
    lines = [
        f"shortest trial: {shortest:.1f} s of training",
        f"from first to last step, target at least {TARGET}: {training.share:.2f},"
        f" or {strict:.2f} with the one loop's CPU seconds for the same work: {word}",
        f"whole command, with Ray's start, gathering and drawing: {whole:.1f} s",
        f"one plain loop / {cores()} cores: {alone.wall / cores():.1f} s,"
        f" the engine takes {everything.wall * cores() / alone.wall:.2f} times that",
        f"plain loops, one per core: {spread.wall:.1f} s,"
        f" the engine takes {everything.wall / spread.wall:.2f} times that",
    ]
    if shortest < LEAST_SECONDS:
        lines.insert(1, f"NOT a measurement: trials of at least {LEAST_SECONDS:g} s are asked for")
    return "\n".join(lines)


def check(sweep, store):
    """RuntimeError unless every cell of the grid was computed."""
    cells = prepare(sweep, "efficiency", store).survey().cells()
    if not (cells == DONE).all():
        raise RuntimeError(f"{int((cells != DONE).sum())} cells are missing in {store}")


def main():
    """Run the sweep in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short trials: does it run at all?")
    given = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # seconds of one thread
    sweep = load(QUICKSTART, ["name=efficiency", *(QUICK if given.quick else FULL)])
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        training, everything, whole = by_engine(sweep, folder)
        alone, spread = by_loop(sweep, folder, 1), by_loop(sweep, folder, cores())
        for name in ("engine", "loop-1", f"loop-{cores()}"):
            check(sweep, f"{folder}/{name}")
        shortest = min(s for s, _ in trainings(Store(f"{folder}/loop-1", sweep.name)))
    trials = len(sweep.axes["n_train"]) * len(sweep.axes["draw"])
    print(f"{trials} trials, kimg to {moment(sweep.kimg[-1])[5:]}, {cores()} cores, ", end="")
    print(f"load before the start {before:.1f}\n")
    print(table([training, everything, alone, spread]))
    print("\n" + summary(training, everything, alone, spread, whole, shortest))


if __name__ == "__main__":
    main()
