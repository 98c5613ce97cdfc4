"""Processor seconds and memory of every analysis of one snapshot at d = 784, 3,072 and 12,288.

The denoiser is the Wiener filter of the pool with a bounded part beside it, so that what is
measured is the analyses and not a network. On smooth random fields, and on patches of photographs.
Each row in a process of its own: its peak memory is that of all analyses together. That the fit
along leading directions agrees with the fit of all is a test (`tests/analyses/test_weight.py`).
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))  # for the pictures of `tests.standin`
LIMIT_GB = 20.0
SIDES = {784: (1, 28), 3072: (3, 32), 12288: (3, 64)}
SIGMAS = (0.1, 0.5, 5.0)
ANALYSES = {
    "linearity": {},
    "linear_fit": {"draws": 4},
    "weight_modes": {"draws": 4},
    "gaussian": {"draws": 4},
    "generalization": {},
    "mixing": {},
    "jacobian": {},
    "lid": {},
    "outputs": {},
    "memorization": {},
    "novelty": {},
    "points": {},
    "quality": {},
    "spectrum": {},
    "flows": {},
    "posterior": {},
    "trajectories": {"draws": 4},
    "teleportation": {},
}


def data_of(kind, d, n_train, n_heldout):
    """Training points, held-out points and the pool's moments, as the engine gets them."""
    from engine.analyse import flattened
    from engine.moments import pool_moments
    from trainables.datasets.data import load

    channels, side = SIDES[d]
    if kind == "patches":
        options = {"resolution": side, "channels": channels, "stride": max(4, side // 4)}
        data = load("patches", n_heldout=n_heldout, **options)
    else:
        data = load("files", n_heldout=n_heldout, path=fields(d, 4 * n_train), layout="nchw")
    start = time.process_time()
    pool = pool_moments(data)
    spent = time.process_time() - start
    train = flattened(data.subset(n_train))
    return train, flattened(data.heldout), pool, data.shape, spent


def fields(d, n):
    """A file of smooth random fields."""
    import numpy as np

    from tests.standin import pictures
    from trainables.datasets import cache

    channels, side = SIDES[d]
    path = cache.folder() / f"fields-{d}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [pictures(256, side, side, seed=i) for i in range(-(-n // 256))]
    np.save(path, np.concatenate(made)[:n].transpose(0, 3, 1, 2)[:, :channels])
    return path


def part(kind, d, quick):
    """Seconds of each analysis, in this process."""
    from analyses.oracles import GaussianDenoiser
    from analyses.registry import measure_all
    from analyses.sampler import Sampler
    from analyses.specimen import Specimen, Subset
    from engine.analyse import Meter
    from trainables.streams import stream

    n_train, n_heldout = (32, 16) if quick else (1000, 256)
    train, heldout, pool, shape, moments_seconds = data_of(kind, d, n_train, n_heldout)
    sampler = Sampler(samples=16 if quick else 128, steps=10)
    subset = Subset(train, heldout, pool, SIGMAS, tuple(shape), stream, sampler)
    oracle = GaussianDenoiser(pool)

    def denoise(y, sigma):
        return oracle(y, sigma) + 0.02 * sigma / (1 + sigma) * torch.tanh(3 * y).roll(1, 1)

    meter = Meter(time.process_time)
    measure_all(Specimen.of(subset, denoise, 64), ANALYSES, meter)
    if meter.errors:
        raise RuntimeError({name: e["error"] for name, e in meter.errors.items()})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    found = {"moments": moments_seconds, **meter.seconds}
    print(json.dumps({"seconds": found, "memory": memory, "pool": pool.rank}))


def main():
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few points: does it run at all?")
    parser.add_argument("--dims", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part(given.part[0], int(given.part[1]), given.quick)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DIFFPHASE_CACHE": folder}  # nothing is there, or stays
        for d, kind in itertools.product(given.dims, ("fields", "patches")):
            command = [sys.executable, __file__, "--part", kind, str(d)]
            command += ["--quick"] * given.quick
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            rows[kind, d] = json.loads(done.stdout.splitlines()[-1])
            print(kind, d, f"{rows[kind, d]['memory']:.1f} GB", flush=True)
    names = ["moments", *ANALYSES]
    print("\n| |", " | ".join(f"{kind} {d}" for kind, d in rows), "|")
    print("|---|" + "---|" * len(rows))
    for name in names:
        print(f"| {name} |", " | ".join(f"{r['seconds'][name]:.1f}" for r in rows.values()), "|")
    print(
        "| all, s |", " | ".join(f"{sum(r['seconds'].values()):.0f}" for r in rows.values()), "|"
    )
    print("| peak GB |", " | ".join(f"{r['memory']:.1f}" for r in rows.values()), "|")
    worst = max(r["memory"] for r in rows.values())
    print(f"\nlimit {LIMIT_GB:.0f} GB: {'kept' if worst <= LIMIT_GB else 'MISSED'}")


if __name__ == "__main__":
    main()
