"""Seconds and memory of `gather` and `status` on a large synthetic store.

10^4 trials x 10 kimg, one piece of 20 metrics x 10 sigmas a cell, with what a run leaves beside
them: a record per trial, a snapshot and a receipt per cell. Written through the engine's own store
(without waiting for the disk, which is not what is measured), then read by the real commands, each
in a process of its own whose wall clock includes its imports.

- cold: nothing but the pieces; again: nothing has changed; 1 % changed: of the trials.
- the numbers of `--real` carry the names of real metrics, so that `derived` and `phase` have to
  work on them too; their seconds stand apart.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.grid import Cell, moment, subsets, trials
from engine.opened import stored
from engine.pieces import Piece, Variable
from engine.scan import RACY_SECONDS
from engine.spec import parse
from engine.store import Store, snapshot_path

SIGMAS = [0.02, 0.05, 0.1, 0.2, 0.47, 1.0, 2.0, 5.0, 10.0, 20.0]
METRICS = [f"metric_{i:02}" for i in range(20)]
REAL = {
    name: ("sigma",)
    for name in ("train_loss", "heldout_loss", "heldout_loss_gaussian", "generalization_gap")
} | {
    name: ("sigma", "inputs")
    for name in ("linearity_cosine_centred", "affine_r2", "weight_distance", "denoiser_nmse")
}
REAL |= {f"{name}_se": dims for name, dims in REAL.items()} | {
    name: () for name in ("memorized_fraction", "memorization_auc", "generalization_score")
}
LIMITS = {"cold": 60.0, "1 % changed": 5.0, "status": 3.0}
MEMORY_GB = 2.0
ANALYSIS = "generalization"


def sweep_of(count):
    """A sweep of `count` trials (a multiple of 10) x 10 kimg."""
    widths, sizes = (10, 10) if count >= 1000 else (5, 2)
    return parse(
        {
            "name": "synthetic",
            "data": {"name": "digits", "n_heldout": 32},
            "backbone": {"name": "mlp", "depth": 1},
            "axes": {
                "width": [64 + 8 * i for i in range(widths)],
                "n_train": [8 * (i + 1) for i in range(sizes)],
                "seed": list(range(count // (widths * sizes))),
            },
            "kimg": [2**i for i in range(10)],
            "sigmas": SIGMAS,
            "analyses": [ANALYSIS],
        },
        "synthetic",
    )


def piece_of(generator, fingerprint, real):
    """A piece of random numbers."""
    dims = REAL if real else dict.fromkeys(METRICS, ("sigma",))
    sizes = {"sigma": len(SIGMAS), "inputs": 2}
    variables = {
        name: Variable(
            own,
            generator.random([sizes[d] for d in own]),
            {"long_name": f"random numbers called {name}", "units": "1"},
        )
        for name, own in dims.items()
    }
    return Piece(variables, {"inputs": ["train", "heldout"]} if real else {}, fingerprint)


def write_trial(store, trial, sweep, prints, generator, real):
    """A finished trial, as the engine stores one."""
    noted = {}
    for kimg in sweep.kimg:
        cell = Cell(trial, kimg)
        store.write_piece(cell, ANALYSIS, piece_of(generator, prints["pieces"][ANALYSIS], real))
        receipt = {"seconds": 1.0, "fingerprint": prints["pieces"][ANALYSIS]}
        store.add_receipts(cell, ANALYSIS, {ANALYSIS: receipt})
        store.write_tensors(snapshot_path(cell), {"ema.weight": np.zeros(1)}, {"kimg": str(kimg)})
        noted[moment(kimg)] = {"stream_loss": 0.5, "train_seconds": kimg, "step": int(kimg)}
    store.write_trial_record(trial, {"status": "done", "snapshots": noted})


def build(storage, count, real):
    """The synthetic store; returns the sweep's folder."""
    from engine.run import prepare, record_run  # torch, which the commands measured do without

    ready = prepare(sweep_of(count), "synthetic", storage)
    record_run(ready, "benchmark")
    generator = np.random.default_rng(0)
    for trial in trials(ready.sweep):
        write_trial(ready.store, trial, ready.sweep, ready.prints, generator, real)
    for subset in subsets(ready.sweep):
        print_ = ready.prints["subset_pieces"][ANALYSIS]
        values = Variable((), np.array(0.5), {"long_name": "a number", "units": "1"})
        ready.store.write_piece(subset, ANALYSIS, Piece({"of_subset": values}, {}, print_))
    # Younger folders than a few seconds are never taken to be unchanged.
    time.sleep(RACY_SECONDS)
    return ready.store.folder


def change(path, real):
    """New numbers in 1 % of the trials."""
    sweep, record, store = stored(path)
    generator = np.random.default_rng(1)
    every = trials(sweep)
    for trial in every[:: max(1, min(100, len(every) // 2))]:
        write_trial(store, trial, sweep, record["prints"], generator, real)


def remove(path, *names):
    """Forget what is derived."""
    for name in names:
        subprocess.run(["rm", "-rf", f"{path}/{name}"], check=True)


def measured(*arguments):
    """A command's wall seconds, peak memory in GB, and what it printed."""
    command = [sys.executable, __file__, "--part", *arguments]
    os.sync()  # what the one before has written shall not be counted here
    start = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"seconds": time.monotonic() - start, **json.loads(done.stdout.splitlines()[-1])}


def part(name, path):
    """One command in this process: its peak memory, and seconds by part."""
    from engine import cli

    parts = timed() if name == "gather" else {}
    getattr(cli, name)(path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"memory": used.ru_maxrss * 1024 / 1e9, "cpu": cpu, "parts": parts}))


def timed():
    """Seconds within the parts of a gather, filled as they are called."""
    import analyses.derived
    import analyses.phase
    from engine import export, publish

    seconds = {}

    def wrap(module, name):
        function = getattr(module, name)

        def call(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

        setattr(module, name, call)

    for module, name in (
        (publish, "survey"),
        (publish, "scattered"),
        (analyses.derived, "derived"),
        (analyses.phase, "phase"),
        (export, "write"),
    ):
        wrap(module, name)
    return seconds


def main():
    """Build the store, measure every command on it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--real", action="store_true", help="real names: derived and phase work")
    parser.add_argument("--quick", action="store_true", help="few trials: does it run at all?")
    parser.add_argument("--storage", type=Path, help="build there, or reuse what is there")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part(*given.part)
        return
    os.fsync = lambda descriptor: None  # in this process alone, which only builds
    count = 100 if given.quick else given.trials
    with tempfile.TemporaryDirectory() as scratch:
        storage = str(given.storage or scratch)
        start = time.monotonic()
        there = Store(storage, "synthetic").record() is not None
        path = f"{storage}/synthetic" if there else build(storage, count, given.real)
        before = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {before:.1f}, store {time.monotonic() - start:.0f} s")
        print(table(rows(path, given.real)))


def rows(path, real):
    """Every measurement in its order."""
    remove(path, "results.zarr", "results.nc", "cube.json", "index.ipc")
    found = {"status, nothing gathered": measured("status", path)}
    remove(path, "index.ipc")
    found["cold"] = measured("gather", path)
    found["again"] = measured("gather", path)
    change(path, real)
    found["1 % changed"] = measured("gather", path)
    found["status"] = measured("status", path)
    return found


def table(found):
    """The rows as Markdown, with the limits that they have to keep."""
    lines = [
        "| | seconds | limit | CPU seconds | peak GB | of which |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        parts = ", ".join(f"{part} {s:.1f}" for part, s in row["parts"].items())
        limit = LIMITS.get(name, "")
        used = f"{row['cpu']:.1f} | {row['memory']:.2f}"
        lines.append(f"| {name} | {row['seconds']:.1f} | {limit} | {used} | {parts} |")
    slow = [n for n, limit in LIMITS.items() if found[n]["seconds"] > limit]
    large = [n for n, row in found.items() if row["memory"] > MEMORY_GB]
    verdict = "all limits kept" if not slow + large else f"MISSED: {', '.join(slow + large)}"
    return "\n".join([*lines, "", f"memory limit {MEMORY_GB} GB; {verdict}"])


if __name__ == "__main__":
    main()
