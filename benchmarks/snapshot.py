"""What all analyses together cost on one digits snapshot: MLP 256, 1000 samples, 10 noise levels.

One thread, in the processor seconds that a run stores. A small snapshot of the same network first
fills the process with what every later one finds there: the imports, and what depends on the
training points alone. The second snapshot is the one that counts, then the comparison of its two
splits. Evaluations are those that the analyses declare, each with its derivatives counted as what
they cost; that none is made twice is a test (`tests/laws/test_analyses.py`).
"""

import argparse
import tempfile

from engine.analyse import analyse
from engine.cost import evaluations
from engine.grid import Cell
from engine.job import Job
from engine.resolve import load
from engine.run import prepare
from engine.spec import parse
from engine.store import receipt_name
from engine.trial import train_trial

TARGET = 20.0
"""Seconds for the whole set, asked of one core."""
ALONE = (
    "linearity mixing linear_fit weight_modes gaussian generalization jacobian lid outputs"
    " memorization novelty points samples quality spectrum flows posterior trajectories"
    " teleportation"
).split()
PAIRS = ("twin",)


def sweep(samples: int, kimg: int) -> dict:
    """Two trials, split a and b, with every analysis at its defaults."""
    return {
        "name": "analyses",
        "data": {"name": "digits", "n_heldout": 512},
        "backbone": {"name": "mlp", "depth": 3},
        "axes": {"width": [256], "n_train": [256], "split": ["a", "b"]},
        "kimg": [kimg / 2, kimg],
        "sigmas": {"edm": 10},
        "training": {"batch": 512, "lr": 4e-3, "warmup_kimg": 10},
        "analyses": {name: {} for name in (*ALONE, *PAIRS)},
        "sampler": {"samples": samples, "steps": 18},
    }


def measure(samples: int, kimg: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of each analysis at the second snapshot, and the evaluations that it declares."""
    with tempfile.TemporaryDirectory() as storage:
        ready = prepare(parse(sweep(samples, kimg), "analyses"), "analyses", storage)
        job = Job(ready.sweep, ready.facts, ready.prints, ready.store)
        data = ready.data or load(ready.sweep, ready.origin)
        trials = ready.survey().trials
        for trial in trials:
            list(train_trial(job, data, trial, ready.sweep.kimg))
        first, last = (Cell(trials[0], k) for k in ready.sweep.kimg)
        for at in (first, Cell(trials[1], last.kimg), last):
            receipt = analyse(job, data, at, "snapshot", ALONE)
            if receipt["errors"]:
                raise RuntimeError(f"{at}: {receipt['errors']}")
        analyse(job, data, last, "pairs", PAIRS)
        names = [receipt_name(last, group) for group in ("snapshot", "pairs")]
        stored = job.store.read_receipts(last, names)
        return {n: stored[n]["seconds"] for n in (*ALONE, *PAIRS)}, evaluations(job)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    quick = parser.parse_args().quick
    seconds, rows = measure(64 if quick else 1000, 1 if quick else 64)
    print("| analysis | evaluations it adds | seconds |\n|---|---:|---:|")
    for name, each in seconds.items():
        print(f"| {name} | {rows[name]:,} | {each:.2f} |")
    total = sum(seconds.values())
    print(f"| all | {sum(rows.values()):,} | {total:.2f} |")
    met = "met" if total < TARGET else "missed"
    print(f"\n{total:.1f} s on one core; target under {TARGET:g} s: {met}.")


if __name__ == "__main__":
    main()
