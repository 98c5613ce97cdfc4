"""What analyses cost beside the network: their fits, the oracles, eigenbases.

Per evaluated row a fit costs some products with its directions, and D_M of N training points
4 N d operations: nothing at d = 64, more than most networks at d = 12,288. An eigenbasis of the
points takes some d^3 operations, min(N, d)^2 d where they are few.
"""

from collections.abc import Iterable

import numpy as np

from analyses.affine import MOST as MOST_DIRECTIONS
from analyses.evaluations import Size
from analyses.labels import INPUTS
from analyses.registry import lookup, rows_of
from engine.grid import Subset
from engine.job import Job
from engine.moments import MANY
from engine.store import receipt_name
from engine.work import DONE, Survey

ROW_SECONDS = 2.5e-6
"""Analyses beside the network's own evaluations, per evaluated row at d = 64."""
ROW_EXPONENT = 1.7
"""Growth of the same with d, between 64 and 784: float64 fits."""
ANALYSIS_SECONDS = 0.02
"""An analysis beside what is proportional to its evaluations."""
OPERATIONS = 2e10
"""A second of one core in float64: D_M reaches 19 G at d = 64 and 40 to 47 G from 784 on, on one
core of an AMD EPYC; others are slower."""
LOOKED_AT = 50
"""Finished training sets from which the price is corrected."""
OF_EIGH, OF_SVD = 12, 25
"""Operations of an eigenbasis in units of d^3, and of n^2 d for n <= d points: as measured."""

NULLS = ("memorization", "novelty", "points", "quality")
"""Analyses whose reference draws no samples of D_M: it looks for the training points nearest to
held-out images and to samples of D_G. Others are taken to evaluate D_M where they evaluate D."""
COMPARED = {
    "gaussian": INPUTS,
    "posterior": ("samples",),
    "flows": ("samples",),
    "trajectories": ("trajectories",),
}
"""Analyses that evaluate D_M beside a snapshot's D, and at which of their rows, of one draw."""


def size_of(job: Job) -> Size:
    """What numbers of evaluations depend on."""
    data = job.facts.data
    return Size(int(np.prod(data.shape)), data.n_heldout, len(job.sweep.sigmas), job.sampler)


def evaluations(job: Job) -> dict[str, int]:
    """Denoiser evaluations that each analysis adds to those before it, per snapshot."""
    options = {n: job.facts.analyses[n].options for n in job.facts.alone}
    pairs = dict.fromkeys((n for n in job.facts.analyses if n not in options), 0)
    return rows_of(size_of(job), options) | pairs


def row_seconds(job: Job) -> float:
    """Analyses beside an evaluation; in proportion to d where fits go along few directions."""
    d = size_of(job).dim
    return (
        ROW_SECONDS * (min(d, MOST_DIRECTIONS) / 64) ** ROW_EXPONENT * max(1, d / MOST_DIRECTIONS)
    )


def basis_seconds(n: int, d: int) -> float:
    """The eigenbasis of n points of d pixels (`analyses.moments`)."""
    return (OF_SVD * n * n * d if n <= d else 2 * n * d * d + OF_EIGH * d**3) / OPERATIONS


def first_seconds(job: Job) -> float:
    """What the first process of a machine computes before any analysis: the pool's eigenbasis."""
    d = size_of(job).dim
    return basis_seconds(job.facts.data.n_pool, d) if d > MANY else 0.0


def shares(job: Job) -> dict[str, float]:
    """The part of a snapshot's evaluations that each analysis asks for if it runs alone."""
    size, added = size_of(job), evaluations(job)
    whole = max(1, sum(added.values()))
    options = {n: job.facts.analyses[n].options for n in job.facts.alone}
    return {n: sum(lookup(n).rows(size, **given).values()) / whole for n, given in options.items()}


def reference_seconds(job: Job, subset: Subset, names: Iterable[str]) -> float:
    """What the named analyses cost at a training subset alone: its oracles."""
    size, n = size_of(job), subset["n_train"]
    given = {name: job.facts.analyses[name].options for name in names}
    rows = sum(rows_of(size, {k: v for k, v in given.items() if k not in NULLS}).values())
    rows += sum(size.inputs + size.sampler.samples + n for name in given if name in NULLS)
    each = 4 * n * size.dim / OPERATIONS + row_seconds(job)
    return rows * each + len(given) * ANALYSIS_SECONDS + basis_seconds(n, size.dim)


def oracle_factor(job: Job, survey: Survey) -> float:
    """By how much finished oracles cost more than they are priced; 1 if there are none."""
    groups = dict.fromkeys(facts.group for facts in job.facts.analyses.values())
    found, priced, seen = 0.0, 0.0, 0
    for subset, states in survey.subsets.items():
        names = [name for name, state in states.items() if state == DONE]
        if names and seen < LOOKED_AT:
            receipts = job.store.read_receipts(subset, [receipt_name(subset, g) for g in groups])
            found += sum(receipts.get(name, {}).get("seconds", 0.0) for name in names)
            priced += reference_seconds(job, subset, names)
            seen += 1
    return found / priced if found else 1.0


def compared_seconds(job: Job, n: int) -> dict[str, float]:
    """What each analysis of a snapshot costs in oracles of its n training points.

    Nothing where pixels are few: one process then keeps for all cells what they share.
    """
    size, found = size_of(job), {}
    if size.dim <= MOST_DIRECTIONS:
        return found
    for name in COMPARED.keys() & job.facts.analyses.keys():
        options = job.facts.analyses[name].options
        rows = lookup(name).rows(size, **options | ({"draws": 1} if "draws" in options else {}))
        there = sum(rows.get(key, 0) for key in COMPARED[name])
        found[name] = there * 4 * n * size.dim / OPERATIONS
    first = job.facts.alone[0]
    found[first] = found.get(first, 0.0) + basis_seconds(n, size.dim)
    return found
