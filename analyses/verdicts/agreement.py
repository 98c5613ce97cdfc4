"""L8 and L12: how far two trainings agree, on disjoint data and on the same."""

import xarray as xr

from analyses import onset
from analyses.trials import nearest_sigma
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
from analyses.verdicts.kernels import CORRELATION, by, sides, slope, trend

__all__ = ["LAWS"]

RATIO = (0.95, 1.05)
APART = (-0.2, 0.2)


def cross_split(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L8: outputs of disjoint twins against the prediction for two Gaussian denoisers."""
    names = ("twin_denoiser_mse", "twin_denoiser_mse_predicted")
    own, predicted = (cube[n].isel(sigma=nearest_sigma(cube), kimg=-1, drop=True) for n in names)
    ratio = own / predicted
    width, sigma = int(own["width"].values.max()), float(cube["sigma"][nearest_sigma(cube)])
    detail = [setting(cube)]
    for w in own["width"].values:
        ours, theirs = (estimate(slope(a.sel(width=w), "n_train")) for a in (own, predicted))
        detail.append(
            f"width {w}, sigma {sigma:g}, last kimg: measured over predicted, by "
            f"{by(ratio.sel(width=w), 'n_train')}; slope in n_train {ours}, of the prediction "
            f"{theirs}"
        )
    detail += _samples(cube)
    if cube.attrs.get("backbone") == "linear":
        found = estimate(ratio.sel(width=width).mean("n_train"))
        quantity = f"measured over predicted distance of twins, mean over n_train, width {width}"
        return measured(quantity, found, judge(found, RATIO), detail)
    found = estimate(slope(ratio.sel(width=width), "n_train"))
    quantity = (
        f"slope in n_train of twin outputs' distance minus the predicted slope, width {width}"
    )
    return measured(quantity, found, judge(found, APART), detail)


def _samples(cube: xr.Dataset) -> list[str]:
    """Distance of twin samples over n_train, and where the ratio rho crosses 1."""
    lines = []
    if "twin_mse" in cube:
        along = slope(cube["twin_mse"].isel(kimg=-1, drop=True), "n_train")
        lines.append(f"slope of the distance of twin samples in n_train, by {by(along, 'width')}")
    if "twin_to_train_ratio" in cube:
        last = cube["twin_to_train_ratio"].isel(kimg=-1, drop=True)
        curve = last.transpose("width", "seed", "draw", "n_train").values.astype(float)
        low, high, _ = onset.last_above(curve, last["n_train"].values.astype(float), 1.0)
        for i, w in enumerate(last["width"].values):
            ends = (
                f"({a:g}, {b:g}]"
                for a, b in zip(low[i].ravel(), high[i].ravel(), strict=True)
                if a == a
            )
            lines.append(
                f"width {w}: rho by {by(last.sel(width=w), 'n_train')}; it falls to 1 at n_train "
                f"in {', '.join(sorted(set(ends))) or 'no replicate'} (low 0: always below)"
            )
    return lines


def reproducibility(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L12: reruns agree at small and at large n_train, not between; twins only at large."""
    rerun, twin = (
        cube[f"{x}_reproducibility"].isel(kimg=-1, drop=True) for x in ("rerun", "twin")
    )
    width = int(rerun["width"].values.max())
    detail = [setting(cube)]
    detail += [
        f"width {w}, last kimg: same data, by {by(rerun.sel(width=w), 'n_train')}; disjoint data, "
        f"by {by(twin.sel(width=w), 'n_train')}"
        for w in rerun["width"].values
    ]
    dip, weaker = sides(rerun.sel(width=width), "n_train")
    rises = estimate(trend(twin.sel(width=width), "n_train"), CORRELATION)
    detail += [
        f"dip of the same-data reproducibility at n_train {dip['at']}: fall to "
        f"it {dip['fall']}, rise from it {dip['rise']}",
        f"Spearman of the disjoint reproducibility with n_train {rises}",
    ]
    verdict = combine(judge(found, POSITIVE) for found in (dip["fall"], dip["rise"], rises))
    quantity = (
        f"{weaker} of same-data reproducibility at its dip over n_train (the lesser of fall and "
        f"rise), width {width}; the dip lies at n_train {dip['at']}"
    )
    return measured(quantity, dip[weaker], verdict, detail)


N_TRAIN = axis("n_train", 3)
LAWS = (
    Law(
        "L8",
        "trainings on disjoint data differ as two Gaussian denoisers would, about as 1/n_train",
        "slope -.9 over n_train 16 to 1024",
        "arXiv:2602.02908",
        "linear backbone: within 5 % of the prediction; networks: slope within .2 of the "
        "prediction's",
        (
            *NETWORK,
            N_TRAIN,
            *variables("twin_denoiser_mse", "twin_denoiser_mse_predicted"),
        ),
        cross_split,
    ),
    Law(
        "L12",
        "reruns on the same data agree at small and large n_train, on disjoint data at large",
        "high-low-high; low-high",
        "arXiv:2310.05264, arXiv:2310.02557",
        "a dip over n_train with fall and rise above 0; disjoint: Spearman above 0",
        (*NETWORK, N_TRAIN, *variables("rerun_reproducibility", "twin_reproducibility")),
        reproducibility,
    ),
)
