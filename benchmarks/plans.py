"""Whether `diffphase plan` tells what `diffphase run` takes: predicted beside actual.

For each sweep, in a new folder, so that the plan knows only what it times itself: the plan, then
the run as a user starts it. Actual core-seconds are those that the engine stores of each training
and each analysis; actual wall seconds are those of the whole command. A prediction holds within
the factor `LIMIT`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.opened import stored
from engine.work import NOTED, survey

LIMIT = 1.5
SWEEPS = ("quickstart", "laws_mixture", "laws_copies")
QUICK = ("axes.width=[64]", "axes.n_train=[16, 32]", "kimg=[4, 8]")
"""What is reduced to see that it runs."""


def diffphase(*arguments):
    """Run the command line; its output."""
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def actual(folder):
    """Core-seconds that training, analyses of cells and oracles took, as stored."""
    sweep, record, store = stored(folder)
    noted = survey(sweep, store, record["prints"]).noted
    train = np.nanmax(noted[:, NOTED.index("train_seconds")], axis=1)
    receipts = (json.loads(p.read_text()) for p in Path(folder).glob("subsets/*/log/*.json"))
    oracles = sum(a.get("seconds", 0.0) for r in receipts for a in r["analyses"].values())
    return float(np.nansum(train) + np.nansum(noted[:, NOTED.index("analysis_seconds")]) + oracles)


def measured(sweep, reduced, storage):
    """Predicted and actual seconds of one sweep."""
    changes = [word for change in reduced for word in ("--set", change)]
    shared = [sweep, "--storage", storage, *changes]
    plan = json.loads(diffphase("plan", *shared, "--json"))["cost"]
    start = time.monotonic()
    diffphase("run", *shared)
    wall = time.monotonic() - start
    name = os.listdir(storage)[0]
    return {
        "core-seconds": (plan["core_seconds"], actual(f"{storage}/{name}")),
        "wall seconds": (plan["wall_seconds"], wall),
    }


def main():
    """Plan and run every sweep; print predicted beside actual."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small sweep: does it run?")
    parser.add_argument("--only", choices=SWEEPS)
    given = parser.parse_args()
    sweeps = (given.only,) if given.only else SWEEPS[:1] if given.quick else SWEEPS
    reduced = QUICK if given.quick else ()
    print(f"{os.cpu_count()} cores, load before the start {os.getloadavg()[0]:.1f}\n")
    print("| sweep | | predicted | actual | factor |", "|---|---|---|---|---|", sep="\n")
    worst = 1.0
    for sweep in sweeps:
        with tempfile.TemporaryDirectory() as storage:
            for what, (said, found) in measured(sweep, reduced, storage).items():
                factor = max(said / found, found / said)
                worst = max(worst, factor)
                print(
                    f"| {sweep} | {what} | {said:.0f} | {found:.0f} | {factor:.2f} |", flush=True
                )
    print(f"\nworst factor {worst:.2f}, limit {LIMIT}: {'kept' if worst <= LIMIT else 'MISSED'}")


if __name__ == "__main__":
    main()
