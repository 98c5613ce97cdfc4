"""L19-L21: what makes copying stronger: copies of points, labels, noises per image."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analyses.verdicts.cells import NETWORK, options, setting
from analyses.verdicts.judging import (
    AGREES,
    POSITIVE,
    UNDECIDED,
    Law,
    Measured,
    Need,
    axis,
    combine,
    estimate,
    judge,
    measured,
    variables,
)
from analyses.verdicts.kernels import CORRELATION, by, trend

__all__ = ["LAWS", "with_plain"]

LABELS = ("none", "class", "random", "unique")
"""Labels of training points, in the order in which they are said to raise memorization."""
LABEL_AXES = ("training_labels", "backbone_labels", "backbone_classes")
BARE, EQUAL = "memorized_fraction_without_copies", "memorized_fraction_equal_points"


def with_plain(cube: xr.Dataset, others: Sequence[xr.Dataset]) -> xr.Dataset:
    """`cube`, with the memorized share of the same trainings without copies if another has them.

    All are `replicated`. Added are the share at the same n_train, and that at the same number of
    distinct points; cells that the other cube lacks are NaN.
    """
    copies = options(cube, "data").get("copies", 1)
    if copies < 2 or "memorized_fraction" not in cube:
        return cube
    for other in others:
        plain = options(other, "data").get("copies", 1) == 1 and "memorized_fraction" in other
        same = all(other.attrs.get(k) == cube.attrs.get(k) for k in ("dataset", "backbone"))
        if not plain or not same or not _alike(cube, other):
            continue
        share, like = other["memorized_fraction"], cube["memorized_fraction"]
        dims = {d: like[d] for d in ("width", "n_train", "seed", "draw", "kimg")}
        distinct = dims | {"n_train": like["n_train"] / copies}
        bare, equal = share.reindex(dims), share.reindex(distinct)
        if bare.notnull().any():
            equal = equal.assign_coords(n_train=like["n_train"])
            return cube.assign({BARE: bare, EQUAL: equal})
    return cube


def _alike(cube: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether options agree; one that only a later version knows is at its default."""
    for name in ("backbone", "training"):
        mine, theirs = options(cube, name), options(other, name)
        if any(mine[k] != theirs[k] for k in mine.keys() & theirs.keys()):
            return False
    return True


def copies(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L19: copies raise the share of samples that copy, seen once duplicates are removed."""
    k = options(cube, "data")["copies"]
    share, bare = cube["memorized_fraction"], cube[BARE]
    width = int(share["width"].max())
    raised = (share - bare).isel(kimg=-1, drop=True).sel(width=width, drop=True)
    equal = (share - cube[EQUAL]).isel(kimg=-1, drop=True).sel(width=width, drop=True)
    last = share.isel(kimg=-1, drop=True).sel(width=width, drop=True)
    found = estimate(raised.mean("n_train"))
    detail = [
        setting(cube),
        f"{k} copies of each point; the ratio to the next point, not the next distinct one, is 1 "
        "for every sample (both are at one distance), so that without removing duplicates the "
        "memorized share is 0 whatever is copied",
        f"width {width}, last kimg, duplicates removed: f_mem by {by(last, 'n_train')}",
        f"minus f_mem without copies at the same n_train, by {by(raised, 'n_train')}",
        f"minus f_mem without copies at as many distinct points, by {by(equal, 'n_train')}",
    ]
    seen = judge(estimate(last.max("n_train")), (0.05, np.inf))
    # A share that stays at its floor would repair nothing.
    verdict = combine([judge(found, POSITIVE), AGREES if seen == AGREES else UNDECIDED])
    quantity = f"f_mem with {k} copies minus without, same n_train, last kimg, width {width}"
    return measured(quantity, found, verdict, detail)


def labels(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L20: the memorized share rises from no labels over class and random to unique ones."""
    dim = _label_axis(cube)
    names = [str(x).lower() for x in cube[dim].values]
    order = sorted(range(len(names)), key=lambda i: LABELS.index(names[i]))
    ranked = cube["memorized_fraction"].isel({dim: order})
    ranked = ranked.assign_coords({dim: [LABELS.index(names[i]) for i in order]})
    words = " < ".join(names[i] for i in order)
    return _ordered(cube, ranked, dim, f"kinds of labels ({words})")


def noise_draws(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L21: the memorized share rises with the number of noises a training image is seen with."""
    dim = "training_noise_draws"
    found = _ordered(cube, cube["memorized_fraction"], dim, "noise draws per image")
    if "heldout_loss" in cube:
        last = cube["heldout_loss"].isel(kimg=-1, width=-1, n_train=-1, drop=True)
        for i, sigma in enumerate(cube["sigma"].values):
            found.detail.append(f"held-out loss at sigma {sigma:g}, {by(last.isel(sigma=i), dim)}")
    return found


def _ordered(cube: xr.Dataset, share: xr.DataArray, dim: str, what: str) -> Measured:
    """Trend of the memorized share at the last kimg along a further axis."""
    last = share.isel(kimg=-1, drop=True)
    along = trend(last, dim).mean(("width", "n_train"))
    detail = [setting(cube)]
    for w in last["width"].values:
        for n in last["n_train"].values:
            values = last.sel(width=w, n_train=n, drop=True)
            rho = estimate(trend(values, dim), CORRELATION)
            detail.append(f"width {w}, n_train {n}: Spearman {rho}; by {by(values, dim)}")
    found = estimate(along, CORRELATION)
    quantity = f"Spearman of f_mem at the last kimg with {what}"
    return measured(quantity, found, judge(found, POSITIVE), detail)


def _label_axis(cube: xr.Dataset) -> str:
    """The axis whose values are kinds of labels; empty if there is none."""
    for dim in LABEL_AXES:
        if cube.sizes.get(dim, 0) > 2 and {str(x).lower() for x in cube[dim].values} <= {*LABELS}:
            return dim
    return ""


F_MEM = variables("memorized_fraction")[0]
LAWS = (
    Law(
        "L19",
        "copies of training points hide from the nearest-neighbour ratio and raise copying",
        "shown by construction (T24)",
        "T24",
        "f_mem with duplicates removed is above that without copies, and above 5 %",
        (
            *NETWORK,
            F_MEM,
            Need(
                "a sweep of the same trainings without data.copies beside one with",
                lambda cube, phase: BARE in cube,
            ),
        ),
        copies,
    ),
    Law(
        "L20",
        "labels raise memorization: none < class < random < unique",
        "in this order",
        "arXiv:2310.02664",
        "Spearman of f_mem with the order above 0",
        (
            F_MEM,
            Need(
                f"an axis {' or '.join(LABEL_AXES)} with three of {', '.join(LABELS)}",
                lambda cube, phase: bool(_label_axis(cube)),
            ),
        ),
        labels,
    ),
    Law(
        "L21",
        "the more noises an image is seen with, the more it is memorized",
        "the number of noises per image matters",
        "arXiv:2502.00336",
        "Spearman of f_mem with the number above 0",
        (F_MEM, axis("training_noise_draws", 3)),
        noise_draws,
    ),
)
