"""How many trials the boundary search needs for what a full grid knows.

    python benchmarks/boundary.py results/dense/boundary_digits   # a finished grid, replayed
    python benchmarks/boundary.py --analytic 40                   # known surfaces, with coverage

A replay answers the search from the grid. Both are read by the same estimators: the 95 % interval
of log2 N* of `analyses.level_set`, whose largest width on the whole grid, times 1.1, is the target
of the search; and the bracket of the `phase` group (`analyses.onset`: largest n_train above the
level, next one measured) on the mean over replicates.
"""

import argparse

import numpy as np
import xarray as xr
from scipy.special import expit

from analyses import onset
from engine.boundary import Boundary, replay
from engine.grid import cube_dim, trials
from engine.publish import stored
from engine.spec import as_mapping, parse

SLACK = 1.1
"""Target of the search, in units of the largest interval on the whole grid."""
ANALYTIC = {
    "name": "analytic",
    "data": {"name": "digits"},
    "backbone": {"name": "mlp"},
    "axes": {
        "width": [96, 128, 160, 192, 256],
        "n_train": [4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256],
        "seed": [0, 1],
    },
    "kimg": [1],
    "sigmas": [1],
    "analyses": ["memorization"],
}


def searching(mapping, level, target):
    """The sweep of a mapping with a boundary search."""
    boundary = {"level": level, "target_width": target, "budget": 10**6}
    return parse({**mapping, "search": {"boundary": boundary}}, mapping["name"])


def compared(mapping, shares, level, slots, target=None):
    """The search over the whole grid, and over what it would have asked for."""
    full = Boundary(searching(mapping, level, 1.0), slots)
    for trial, share in shares.items():
        full.tell(trial, share)
    target = target or SLACK * float(full.fit().widths.max())
    return full, replay(searching(mapping, level, target), shares, slots), target


def brackets(search, level):
    """Octaves between the n_train around the level, per width; inf where one is missing."""
    share = search.share[0, 0]
    known = ~np.isnan(share)
    mean = np.where(known, share, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)
    low, high, _ = onset.last_above(mean, 2**search.model.x, level)
    return np.log2(high / np.where(low > 0, low, np.nan))


def of_cube(path, metric):
    """Mapping of a finished sweep, and the share of each trial at the last kimg."""
    sweep, _, store = stored(path)
    cube = xr.open_zarr(f"{store.folder}/results.zarr")[metric].isel(kimg=-1).load()
    found = {
        trial: [float(cube.sel({cube_dim(a): v for a, v in trial.coordinates}))]
        for trial in trials(sweep)
    }
    missing = sum(np.isnan(share[0]) for share in found.values())
    if missing:
        raise SystemExit(f"{path}: {missing} of {len(found)} trials have no {metric}")
    return {k: v for k, v in as_mapping(sweep).items() if k != "search"}, found


def drawn(seed):
    """A known surface: (log2 N* per width, share of each trial)."""
    rng = np.random.default_rng(seed)
    blur, rho, offset = rng.uniform(0.2, 0.5), rng.choice([0.003, 0.03]), rng.uniform(-0.4, 0.4)
    sweep, shares = searching(ANALYTIC, 0.5, 1.0), {}
    threshold = {
        w: 3.6 + offset + 1.9 * np.log2(w / 96) + rng.normal(0, 0.15) for w in sweep.axes["width"]
    }
    for trial in trials(sweep):
        away = threshold[trial["width"]] - np.log2(trial["n_train"])
        f = np.clip(expit(away / blur), 1e-6, 1 - 1e-6)
        p = rng.beta(f * (1 / rho - 1), (1 - f) * (1 / rho - 1))
        shares[trial] = [rng.binomial(512, p) / 512]
    return np.array(list(threshold.values())), shares


def replay_cube(arguments):
    """Table of one finished grid."""
    mapping, shares = of_cube(arguments.path, arguments.metric)
    full, found, target = compared(
        mapping, shares, arguments.level, arguments.slots, arguments.target
    )
    one = "trials | N*, {} | octaves | bracket"
    print(f"| width | {one.format('full grid')} | {one.format('search')} |")
    print("|---" * 9 + "|")
    columns = []
    for search in (full, found):
        low, high = search.fit().ends
        count = np.bincount([search.place[t][1] for t in search.asked])
        columns.append((low[0], high[0], count, brackets(search, arguments.level)))
    for w, width in enumerate(mapping["axes"]["width"]):
        cells = [
            f"{count[w]} | {2 ** low[w]:.1f} to {2 ** high[w]:.1f} | {high[w] - low[w]:.2f}"
            f" | {bracket[w]:.2f}"
            for low, high, count, bracket in columns
        ]
        print(f"| {width} | {' | '.join(cells)} |")
    print(
        f"\ntarget {target:.3f} octaves: {len(found.asked)} of {len(shares)} trials,"
        f" ratio {len(found.asked) / len(shares):.2f}; largest width {full.fit().widths.max():.3f}"
        f" (full) and {found.fit().widths.max():.3f} (search)"
    )


def replay_analytic(arguments):
    """Trials and coverage over many known surfaces."""
    ratios, hits = [], np.zeros(2, int)
    for seed in range(arguments.analytic):
        truth, shares = drawn(seed)
        full, found, _ = compared(ANALYTIC, shares, 0.5, arguments.slots, arguments.target)
        ratios.append(len(found.asked) / len(shares))
        for i, search in enumerate((full, found)):
            low, high = search.fit().ends
            hits[i] += int(((low[0] <= truth) & (truth <= high[0])).sum())
    total = arguments.analytic * len(ANALYTIC["axes"]["width"])
    print(
        f"{arguments.analytic} surfaces of {len(shares)} trials: ratio median"
        f" {np.median(ratios):.2f}, {np.min(ratios):.2f} to {np.max(ratios):.2f};"
        f" 95 % intervals that hold N*: {hits[0]} of {total} (full), {hits[1]} of {total} (search)"
    )


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", help="folder of a finished sweep without a search")
    parser.add_argument("--analytic", type=int, help="known surfaces to draw instead")
    parser.add_argument("--metric", default="memorized_fraction")
    parser.add_argument("--level", type=float, default=0.5)
    parser.add_argument("--target", type=float, help="octaves; default: as the whole grid")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.analytic:
        replay_analytic(arguments)
    elif arguments.path:
        replay_cube(arguments)
    else:
        parser.error("wanted a folder or --analytic")


if __name__ == "__main__":
    main()
