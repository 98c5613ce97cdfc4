"""L16 and L17: which samples, and which training points, are copied and when."""

from collections import Counter

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from analyses.verdicts.cells import NETWORK, setting
from analyses.verdicts.judging import (
    POSITIVE,
    Law,
    Measured,
    axis,
    combine,
    estimate,
    judge,
    measured,
    variables,
)
from analyses.verdicts.kernels import by, judged_width, sides

__all__ = ["LAWS", "separation"]

BETTER = (0.6, np.inf)
PASSED = 0.5
"""Share of copies from which the boundary lies behind."""


def spurious(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L16: the share of spurious samples has an interior maximum over kimg near tau_mem.

    Judged where the boundary is passed, half of the samples being copies at the last snapshot:
    elsewhere a maximum at the end says only that training went no further.
    """
    width = judged_width(phase)
    share = cube["spurious_fraction"].sel(width=width, drop=True)
    low, high = (phase[f"tau_mem_{x}"].sel(width=width, drop=True) for x in ("low", "high"))
    inside = ((low > 0) & np.isfinite(high)).any(("seed", "draw"))
    copies = cube["memorized_fraction"].isel(kimg=-1, drop=True).sel(width=width, drop=True)
    detail, peaks, verdicts = [setting(cube)], {}, []
    for n in share["n_train"].values[inside.values]:
        own, weaker = sides(-share.sel(n_train=n), "kimg")
        passed = float(copies.sel(n_train=n).mean()) >= PASSED
        if passed:
            peaks[int(n)] = own[weaker]
            verdicts += [judge(own[side], POSITIVE) for side in ("fall", "rise")]
        at = ", ".join(
            f"({a:g}, {b:g}] of {count}"
            for (a, b), count in sorted(
                Counter(
                    zip(*(x.sel(n_train=n).values.ravel() for x in (low, high)), strict=True)
                ).items()
            )
        )
        detail.append(
            f"width {width}, n_train {n}: maximum at {own['at']} kimg, above the first snapshot "
            f"by {own['fall']}, above the last by {own['rise']}; tau_mem in {at} kimg"
            + ("" if passed else "; not judged: fewer than half of the last samples are copies")
        )
    if not peaks:
        detail.append(f"width {width}: nowhere are half of the last samples copies")
        peaks[0] = estimate(xr.DataArray([[np.nan]], dims=("seed", "draw")))
    worst = min(peaks, key=lambda n: np.nan_to_num(peaks[n].low, nan=-np.inf))
    quantity = (
        f"height of the maximum of spurious_fraction over kimg above the ends, width {width}, "
        f"n_train {worst} (the least)"
    )
    return measured(quantity, peaks[worst], combine(verdicts), detail)


def sparse(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L17: points with few near ones are copied first: an AUC, at the middle n_train."""
    width = judged_width(phase) if "tau_mem_low" in phase else int(cube["width"].max())
    auc = _first_hits(cube.sel(width=width, drop=True))
    known = auc.notnull().any(("seed", "draw"))
    detail = [setting(cube), f"width {width}: AUC by {by(auc, 'n_train')}"]
    detail.append(
        "the AUC says how well a low coverage tells the points that have been copied from the "
        "others, at the kimg at which the share of points copied is nearest to one half"
    )
    middle = np.flatnonzero(known.values)
    at = int(middle[(len(middle) - 1) // 2]) if len(middle) else 0
    found = estimate(auc.isel(n_train=at, drop=True))
    quantity = f"AUC of low coverage for being copied first, width {width}, n_train "
    return measured(f"{quantity}{int(auc['n_train'][at])}", found, judge(found, BETTER), detail)


def _first_hits(cube: xr.Dataset) -> xr.DataArray:
    """`separation` per (n_train, seed, draw), at the kimg with half of the points copied."""
    dims = ("n_train", "seed", "draw", "kimg", "point")
    hits = cube["point_hits"].transpose(*dims).values.astype(float)
    dense = cube["point_coverage"].broadcast_like(cube["point_hits"]).transpose(*dims)
    hit = np.where(np.isnan(hits), np.nan, hits > 0)
    count = (~np.isnan(hit)).sum(axis=-1)
    share = np.nansum(hit, axis=-1) / np.where(count > 0, count, np.nan)
    index = np.abs(np.where(np.isnan(share), np.inf, share) - 0.5).argmin(axis=-1)
    taken = [
        np.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :]
        for a in (hit, dense.values.astype(float))
    ]
    out = np.full(index.shape, np.nan)
    for at in np.ndindex(out.shape):
        out[at] = separation(-taken[1][at], taken[0][at])
    return xr.DataArray(out, {"n_train": cube["n_train"]}, dims[:3])


def separation(score: Float[np.ndarray, " n"], hit: Float[np.ndarray, " n"]) -> float:
    """P(score of a hit > score of a miss) + half that of ties: the area under the ROC curve.

    NaN below three of either kind; items that are NaN in either are left out.

    >>> separation(np.array([1.0, 2, 3, 4, 5, 6]), np.array([0.0, 0, 0, 1, 1, 1]))
    1.0
    """
    known = ~np.isnan(score) & ~np.isnan(hit)
    score, hit = score[known], hit[known] > 0
    hits, misses = int(hit.sum()), int((~hit).sum())
    if min(hits, misses) < 3:
        return float("nan")
    return float((rankdata(score)[hit].sum() - hits * (hits + 1) / 2) / (hits * misses))


LAWS = (
    Law(
        "L16",
        "samples that copy nothing but one another peak where memorization sets in",
        "a peak at the boundary",
        "arXiv:2505.21777",
        "an interior maximum over kimg at every n_train where half of the samples end as copies",
        (
            *NETWORK,
            axis("kimg", 3),
            *variables("spurious_fraction", "memorized_fraction", "tau_mem_low"),
        ),
        spurious,
    ),
    Law(
        "L17",
        "points with few near ones are memorized first",
        "sparse first",
        "arXiv:2606.14390",
        "AUC above .6 at the middle n_train",
        (*NETWORK, *variables("point_hits", "point_coverage")),
        sparse,
    ),
)
