"""L6 and L22: in which order the directions of the data are learned."""

import numpy as np
import xarray as xr

from analyses.spectrum import emergence, emergence_exponent
from analyses.trials import kimg
from analyses.verdicts.cells import NETWORK, setting
from analyses.verdicts.judging import (
    Law,
    Measured,
    axis,
    estimate,
    judge,
    measured,
    variables,
)
from analyses.verdicts.kernels import by

__all__ = ["LAWS"]

INVERSE = (0.8, 1.2)
FLATTER = (-np.inf, 0.8)
"""What is asked of convolutions: a smaller exponent than an MLP's."""
TWICE = (0.5, 2.0)
FLOOR = 1e-6
"""Modes below this share of the largest eigenvalue are constant pixels or beyond the rank."""


def order(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L6: alpha of tau* ~ lam^-alpha from the variance of samples along the principal axes."""
    convolutional = cube.attrs.get("backbone") == "unet"
    region = FLATTER if convolutional else INVERSE
    dims = ("width", "n_train", "seed", "draw", "kimg", "mode")
    variance = cube["sample_variance"].transpose(*dims)
    lam = cube["train_eigenvalues"].broadcast_like(variance).transpose(*dims).isel(kimg=-1)
    shape = variance.shape[:4]
    alpha, modes = np.full(shape, np.nan), np.zeros(shape, int)
    for at in np.ndindex(shape):
        alpha[at], modes[at] = _alpha(kimg(cube), variance.values[at], lam.values[at])
    coords = {d: variance[d] for d in dims[:2]}
    found = xr.DataArray(alpha, coords, dims[:4])
    detail = [setting(cube)]
    for i, w in enumerate(found["width"].values):
        for j, n in enumerate(found["n_train"].values):
            detail.append(
                f"width {w}, n_train {n}: alpha {estimate(found.isel(width=i, n_train=j))}, from "
                f"{modes[i, j].min()} to {modes[i, j].max()} modes whose emergence lies between "
                "two snapshots"
            )
    detail.append("v_k(0) is that of the first snapshot, v_k(inf) the training variance lam_k")
    whole = estimate(found.isel(width=-1, n_train=-1))
    w, n = (int(found[d][-1]) for d in dims[:2])
    quantity = f"alpha of tau* ~ lam^-alpha, {cube.attrs.get('backbone')}, width {w}, n_train {n}"
    return measured(quantity, whole, judge(whole, region), detail)


def _alpha(time: np.ndarray, variance: np.ndarray, lam: np.ndarray) -> tuple[float, int]:
    """Exponent of one training, and the modes that it rests on."""
    first = np.flatnonzero(~np.isnan(variance).all(axis=1))
    used = lam > FLOOR * np.nanmax(np.where(np.isnan(lam), 0, lam), initial=0)
    used &= ~np.isnan(variance).all(axis=0)
    if len(first) < 2 or used.sum() < 2:
        return float("nan"), 0
    low, high = emergence(time[first], variance[first][:, used], lam[used])
    inside = (low > 0) & np.isfinite(high)
    return emergence_exponent(lam[used], low, high), int(inside.sum())


def subspaces(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L22: points in subspace k at which its share of variance passes 1/2, over d_k."""
    share = cube["subspace_variance"].isel(kimg=-1, width=-1, drop=True)
    points = share["n_train"].values / share.sizes["subspace"]
    sizes = cube["subspace_dim"]
    # The same in every cell that is measured.
    sizes = sizes.max([d for d in sizes.dims if d != "subspace"]).values.astype(float)
    curve = share.transpose("seed", "draw", "subspace", "n_train").values.astype(float)
    above = curve > 0.5
    # Between the last n_train at or below one half and the next, in the middle of their logs.
    last = np.where(~above & ~np.isnan(curve), np.arange(len(points)), -1).max(axis=-1)
    inside = (last >= 0) & (last < len(points) - 1)
    dims = ("seed", "draw", "subspace")
    low, high = (
        xr.DataArray(
            np.log(np.where(inside, points[np.minimum(at, len(points) - 1)] / sizes, np.nan)),
            {"subspace": np.arange(len(sizes))},
            dims,
        )
        for at in (last, last + 1)
    )
    values = (low + high) / 2
    found = estimate(values.mean("subspace"))
    # Replicates that jump between the same two n_train say nothing of where between them.
    found = found._replace(
        low=min(found.low, float(low.mean())), high=max(found.high, float(high.mean()))
    )
    detail = [
        setting(cube),
        f"dimensions {', '.join(f'{d:g}' for d in sizes)}; log of N_k / d_k at the jump, by "
        f"{by(values, 'subspace')}",
    ]
    ratio_of = found._replace(
        **{k: float(np.exp(getattr(found, k))) for k in ("value", "low", "high")}
    )
    quantity = "N_k / d_k at which a subspace has half of its variance, geometric mean"
    return measured(quantity, ratio_of, judge(ratio_of, TWICE), detail)


LAWS = (
    Law(
        "L6",
        "a direction of variance lam emerges at a time lam^-alpha",
        "alpha 1.05 to 1.13 (MLP); FFHQ32 CNN .48 rising, .35 falling, or about 0",
        "arXiv:2503.03206",
        "alpha in [.8, 1.2]; U-Net: below .8",
        (*NETWORK, axis("kimg", 4), *variables("sample_variance", "train_eigenvalues")),
        order,
    ),
    Law(
        "L22",
        "a subspace is learned once as many points lie in it as it has dimensions",
        "jump at N_k = d_k",
        "arXiv:2409.02426",
        "N_k / d_k at the jump in [.5, 2]",
        (*NETWORK, axis("n_train", 3), *variables("subspace_variance", "subspace_dim")),
        subspaces,
    ),
)
