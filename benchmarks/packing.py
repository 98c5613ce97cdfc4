"""Files and gather time of a store before and after `diffphase pack`.

    python benchmarks/packing.py [--trials 500] [--kimg 10]

A synthetic finished sweep of one small piece and one receipt a cell; warm local disk.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.gather import build
from engine.grid import Cell, trials
from engine.index import INDEX
from engine.packing import pack_at
from engine.pieces import Piece, Variable
from engine.publish import stored
from engine.run import prepare, record_run
from engine.scan import RACY_SECONDS
from engine.spec import parse
from engine.work import survey


def main() -> None:
    """Make the sweep, gather, pack, gather."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--kimg", type=int, default=10)
    asked = parser.parse_args()
    os.fsync = lambda descriptor: None  # what is measured does not wait for the disk
    with tempfile.TemporaryDirectory() as storage:
        folder = make(storage, asked.trials, asked.kimg)
        print(f"{asked.trials} trials x {asked.kimg} kimg = {asked.trials * asked.kimg} cells")
        print(f"loose   {described(folder)}")
        start = time.perf_counter()
        pack_at(str(folder))
        seconds = time.perf_counter() - start
        print(f"packed  {described(folder)}")
        print(f"packing took {seconds:.2f} s")


def make(storage: str, n_trials: int, n_kimg: int) -> Path:
    """A store in which everything is done."""
    mapping = {
        "name": "packing",
        "data": {"name": "digits", "n_heldout": 32},
        "backbone": {"name": "mlp", "depth": 1},
        "axes": {"width": [64], "n_train": [8], "seed": list(range(n_trials))},
        "kimg": list(range(1, n_kimg + 1)),
        "sigmas": {"edm": 10},
        "analyses": ["generalization"],
        "training": {"batch": 128, "warmup_kimg": 1},
    }
    ready = prepare(parse(mapping, "packing"), "packing", storage, count_flops=True)
    record_run(ready, "benchmark")
    prints, sigmas = ready.prints["pieces"]["generalization"], len(ready.sweep.sigmas)
    names = ("train_loss", "heldout_loss")
    for trial in trials(ready.sweep):
        for kimg in ready.sweep.kimg:
            values = np.full(sigmas, kimg)
            piece = Piece({n: Variable(("sigma",), values, {}) for n in names}, {}, prints)
            cell, receipt = Cell(trial, kimg), {"seconds": 1.0, "fingerprint": prints}
            ready.store.write_piece(cell, "generalization", piece)
            ready.store.add_receipts(cell, "generalization", {"generalization": receipt})
        ready.store.write_trial_record(trial, {"status": "done", "snapshots": {}})
    for subset, missing in ready.survey().subsets.items():
        for name in missing:
            wanted = ready.prints["subset_pieces"][name]
            ready.store.write_piece(subset, name, Piece({}, {}, wanted))
    assert ready.survey().is_finished
    return Path(storage) / "packing"


def described(folder: Path) -> str:
    """Files, and seconds of a gather that reads everything and of one that knows the survey."""
    time.sleep(RACY_SECONDS)  # younger folders are never taken to be unchanged
    (folder / INDEX).unlink(missing_ok=True)
    first, again = gather_seconds(folder), gather_seconds(folder)
    return f"{files(folder):>8} files  gather {first:6.2f} s, again {again:6.2f} s"


def files(folder: Path) -> int:
    """How many files lie below a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


def gather_seconds(folder: Path) -> float:
    """Seconds from the store to the cube in memory."""
    start = time.perf_counter()
    sweep, record, store = stored(str(folder))
    build(store, sweep, record["facts"], survey(sweep, store, record["prints"]), {})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
