r"""Where the criteria of memorization disagree, and how far they order the trials alike.

Two criteria need not have comparable levels to agree on *which* trial memorizes first. Their onset
times are compared by rank over all trials: Spearman's correlation and Kendall's :math:`\tau_b`.
An onset is known to a snapshot, and trials between the same two are ties; those in which a
criterion never says memorizing (right-censored) are ties at the end, later than all others. Trials
in which either criterion was not measured are left out.

Intervals come from leaving out seeds and draws in turn (see `variance`), because trials of one
draw share their data; a percentile bootstrap of so few levels would be too short. They are on the
scale of Fisher's z = artanh and NaN with a single replicate.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from analyses.trials import group_dims, labelled
from analyses.variance import crossed_interval, present

__all__ = ["disagreement", "kendall", "map_of_shares", "spearman"]

SURE = 1 - 1e-9
"""Correlation beyond which Fisher's z is not taken."""
Correlation = Callable[[np.ndarray], np.ndarray]


def disagreement(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """The map of shares and the rank correlations; empty without criteria.

    `found` holds `criterion_says` and `kimg_star_high`.
    """
    if "kimg_star_high" not in found:
        return xr.Dataset()
    return map_of_shares(found).merge(correlations(cube, found), compat="no_conflicts")


def map_of_shares(found: xr.Dataset) -> xr.Dataset:
    """`criterion_disagreement` over (*across, kimg): share of the criteria that say memorizing.

    0 and 1 where all that were measured agree, NaN where none was.
    """
    says = found["criterion_says"]
    known = (says >= 0).sum("criterion")
    share = (says == 1).sum("criterion") / known.where(known > 0)
    text = "share of the criteria with a number here that say memorizing"
    share.attrs = {"long_name": text, "units": "1"}
    return xr.Dataset({"criterion_disagreement": share})


def correlations(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """`criterion_rank_correlation`, `criterion_kendall` and `criterion_n_cells`.

    Over (criterion, criterion_other, *split and further axes), with `_low` and `_high`.
    """
    group = group_dims(cube)
    onset = found["kimg_star_high"]
    own = [d for d in onset.dims if d not in ("criterion", *group)]
    ordered = onset.transpose(*group, "criterion", *own)
    shape, count = ordered.shape[: len(group)], ordered.sizes["criterion"]
    times = ordered.values.reshape(*shape, count, -1)
    places = np.indices([ordered.sizes[d] for d in own])
    ids = [
        places[own.index(d)].ravel() if d in own else np.zeros(times.shape[-1], int)
        for d in ("seed", "draw")
    ]
    kinds: dict[str, tuple[Correlation, str]] = {
        "criterion_rank_correlation": (spearman, "Spearman's correlation"),
        "criterion_kendall": (kendall, "Kendall's tau_b"),
    }
    dims = ("criterion", "criterion_other", *group)
    variables = {}
    for name, (kind, text) in kinds.items():
        ends = [np.empty((count, count, *shape)) for _ in range(3)]
        for at in np.ndindex(shape):
            for table, values in zip(ends, _with_interval(kind, times[at], *ids), strict=True):
                table[(slice(None), slice(None), *at)] = values
        what = f"{text} of the onset times by two criteria over trials, never = last"
        for end, table in zip(("", "_low", "_high"), ends, strict=True):
            label = f"{what}, {end[1:]} end of 95 % interval" if end else what
            variables[f"{name}{end}"] = (table, label, "1")
    known = ~np.isnan(times)
    both = np.einsum("...io,...jo->ij...", known.astype(np.int64), known.astype(np.int64))
    text = "trials with an onset time (or none to the last snapshot) by both criteria"
    variables["criterion_n_cells"] = (both, text, "1")
    other = found["criterion"].values
    coords = {
        "criterion": found["criterion"],
        "criterion_other": xr.DataArray(other, dims="criterion_other"),
    }
    return labelled(cube, dims, coords, **variables)


def spearman(times: Float[np.ndarray, "c o"]) -> Float[np.ndarray, "c c"]:
    """Spearman's correlation of every two rows, each over the columns known in both.

    inf is a tie at the end. NaN below three columns, or where a row is constant.

    >>> spearman(np.array([[1.0, 2.0, np.inf], [5.0, 7.0, 6.0]])).round(6).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    table = _tables(times)
    count = table.sum(axis=(2, 3))[..., None]
    # Mid-ranks among the columns known in both, so they differ from pair to pair.
    sizes = table.sum(axis=3), table.sum(axis=2)
    u, v = (np.cumsum(m, axis=2) - m / 2 - count / 2 for m in sizes)
    square = ((m * r**2).sum(axis=2) for m, r in zip(sizes, (u, v), strict=True))
    scale = np.sqrt(np.prod(list(square), axis=0))
    together = np.einsum("ijab,ija,ijb->ij", table, u, v)
    return together / np.where((scale > 0) & (count[..., 0] > 2), scale, np.nan)


def kendall(times: Float[np.ndarray, "c o"]) -> Float[np.ndarray, "c c"]:
    r"""Kendall's :math:`\tau_b` of every two rows over the pairs of columns known in both.

    inf is a tie at the end. NaN where a row has no two different times.

    >>> kendall(np.array([[1.0, 2.0, np.inf], [5.0, 7.0, 6.0]])).round(6).tolist()
    [[1.0, 0.333333], [0.333333, 1.0]]
    """
    table = _tables(times)
    below = np.zeros_like(table)
    below[..., 1:, :] = np.cumsum(table, axis=2)[..., :-1, :]
    left = np.zeros_like(table)
    left[..., 1:] = np.cumsum(below, axis=3)[..., :-1]
    right = below.sum(axis=3, keepdims=True) - left - below
    balance = (table * (left - right)).sum(axis=(2, 3))
    count = table.sum(axis=(2, 3))
    untied = [(count**2 - (table.sum(axis=k) ** 2).sum(axis=2)) / 2 for k in (3, 2)]
    scale = np.sqrt(untied[0] * untied[1])
    return balance / np.where(scale > 0, scale, np.nan)


def _tables(times: Float[np.ndarray, "c o"]) -> Float[np.ndarray, "c c k k"]:
    """How often each two of the k different times occur together in two rows."""
    levels = np.unique(times[~np.isnan(times)])
    at = (times[..., None] == levels).astype(float)
    # A column that one of the rows lacks has no place in the table of the two.
    return np.einsum("ioa,job->ijab", at, at, optimize=True)


def _with_interval(
    kind: Correlation,
    times: Float[np.ndarray, "c o"],
    seed: np.ndarray,
    draw: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(estimate, low, high), each "c c"."""
    estimate = kind(times)
    without, levels = [], []
    for ids in (seed, draw):
        names = np.unique(ids)
        several = len(names) > 1
        left = [kind(times[:, ids != v]) if several else np.nan * estimate for v in names]
        without.append(_fisher(np.stack(left)).reshape(len(names), -1))
        known = ~np.isnan(times)
        shown: Bool[np.ndarray, "b o"] = (known[:, None] & known).reshape(-1, len(ids))
        levels.append(present(ids, shown))
    low, high = crossed_interval(_fisher(estimate).ravel(), *without, *levels)
    return estimate, *(np.tanh(end).reshape(estimate.shape) for end in (low, high))


def _fisher(r: np.ndarray) -> np.ndarray:
    """artanh, finite at perfect correlation."""
    return np.arctanh(np.clip(r, -SURE, SURE))
