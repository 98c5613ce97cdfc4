"""L9-L11: distance to the Gaussian denoiser, linearity and the PSNR gap over n_train."""

import numpy as np
import xarray as xr

from analyses.trials import heldout
from analyses.verdicts.cells import NETWORK, setting
from analyses.verdicts.judging import (
    AGREES,
    NEGATIVE,
    POSITIVE,
    UNDECIDED,
    Law,
    Measured,
    axis,
    combine,
    estimate,
    judge,
    measured,
    variables,
)
from analyses.verdicts.kernels import CORRELATION, by, sides, trend

__all__ = ["LAWS"]


def distance(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L9: an interior minimum over kimg at every n_train; trends beside it."""
    rmse = heldout(cube, "denoiser_rmse").sel(reference="gaussian", drop=True)
    width = int(rmse["width"].values.max())
    found, verdicts, detail = {}, [], [setting(cube)]
    for n in rmse["n_train"].values:
        own, weaker = sides(rmse.sel(width=width, n_train=n), "kimg")
        found[int(n)] = own[weaker]
        verdicts += [judge(own[side], POSITIVE) for side in ("fall", "rise")]
        detail.append(
            f"width {width}, n_train {n}: least at {own['at']} kimg, fall before it "
            f"{own['fall']}, rise after it {own['rise']} (the place is chosen on "
            "the other replicates)"
        )
    readings = {
        f"at {float(rmse['kimg'][-1]):g} kimg": rmse.isel(kimg=-1),
        "at each run's own minimum": rmse.min("kimg"),
    }
    for where, values in readings.items():
        for dim, other in (("n_train", "width"), ("width", "n_train")):
            detail += _trends(values, dim, other, where)
    worst = min(found, key=lambda n: np.nan_to_num(found[n].low, nan=-np.inf))
    quantity = (
        f"fall to, or rise from, the minimum over kimg (pixel), width {width}, n_train {worst} "
        "(the least)"
    )
    return measured(quantity, found[worst], combine(verdicts), detail)


def _trends(values: xr.DataArray, dim: str, other: str, where: str) -> list[str]:
    """Spearman's correlation of the distance with `dim` at each value of `other`."""
    if values.sizes[dim] < 3:
        return [f"{where}: fewer than three values of {dim}, so no trend"]
    rho = by(trend(values, dim), other, CORRELATION)
    return [
        f"Spearman of the distance with {dim} {where}, by {rho}; the distance itself at the "
        f"largest {other}, by {by(values.isel({other: -1}), dim)}"
    ]


def linearity(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L10: the normalised centred linearity at the last kimg rises with n_train."""
    name = "linearity_cosine_centred_normalised"
    return _over_n(cube, heldout(cube, name), "normalised centred linearity", POSITIVE)[0]


def gap(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L11: the PSNR gap at the last kimg falls with n_train, and no step of it rises."""
    values = heldout(cube, "psnr_gap")
    found, last = _over_n(cube, values, "PSNR gap (dB)", NEGATIVE)
    steps = {
        int(n): judge(estimate(step), POSITIVE)
        for n, step in zip(last["n_train"].values[1:], _steps(last), strict=True)
    }
    up = [n for n, says in steps.items() if says == AGREES]
    ends = [estimate(last.isel(n_train=i)) for i in (0, -1)]
    reached = ends[1].low <= 0
    detail = [
        *found.detail,
        f"from {ends[0]} dB at n_train {int(last['n_train'][0])} to {ends[1]} dB at "
        f"{int(last['n_train'][-1])}: 0 is {'' if reached else 'not '}reached",
        f"steps that rise beyond their intervals: {', '.join(map(str, up)) or 'none'}",
    ]
    verdict = combine([found.verdict, UNDECIDED]) if up else found.verdict
    return Measured(
        found.quantity, found.value, found.low, found.high, found.kind, detail, verdict
    )


def _steps(values: xr.DataArray) -> list[xr.DataArray]:
    """Differences of neighbours along n_train, paired: the sets are nested."""
    return [
        values.isel(n_train=i + 1, drop=True) - values.isel(n_train=i, drop=True)
        for i in range(values.sizes["n_train"] - 1)
    ]


def _over_n(
    cube: xr.Dataset, values: xr.DataArray, what: str, region: tuple[float, float]
) -> tuple[Measured, xr.DataArray]:
    """Trend in n_train at the last kimg, judged at the largest width; the values there."""
    last = values.isel(kimg=-1, drop=True)
    along, width = trend(last, "n_train"), int(last["width"].values.max())
    detail = [setting(cube)]
    detail += [
        f"width {w}: Spearman with n_train {estimate(along.sel(width=w), CORRELATION)}; by "
        f"{by(last.sel(width=w), 'n_train')}"
        for w in last["width"].values
    ]
    found = estimate(along.sel(width=width), CORRELATION)
    quantity = (
        f"Spearman of the {what} with n_train at {float(values['kimg'][-1]):g} kimg, width {width}"
    )
    at = last.sel(width=width, drop=True)
    return measured(quantity, found, judge(found, region), detail), at


N_TRAIN = axis("n_train", 3)
LAWS = (
    Law(
        "L9",
        "training passes closest to the Gaussian denoiser at a time of its own",
        "non-monotone in time; falls with n_train, rises with width",
        "arXiv:2410.24060, figs. 6-8",
        "an interior minimum over kimg at every n_train; trends reported at equal kimg and at "
        "each run's own minimum",
        (*NETWORK, axis("kimg", 3), *variables("denoiser_rmse", "memorized_fraction")),
        distance,
    ),
    Law(
        "L10",
        "denoisers trained on more points are more linear",
        "rises with n_train",
        "arXiv:2410.24060, fig. 1",
        "Spearman of the normalised centred linearity with n_train above 0",
        (*NETWORK, N_TRAIN, *variables("linearity_cosine_centred_normalised")),
        linearity,
    ),
    Law(
        "L11",
        "PSNR on training points and on held-out images meet as n_train grows",
        "meet at n_train about 1e5 (7.6M parameters)",
        "arXiv:2310.02557",
        "Spearman of the gap with n_train below 0, and no step of it rises",
        (*NETWORK, N_TRAIN, *variables("psnr_gap")),
        gap,
    ),
)
