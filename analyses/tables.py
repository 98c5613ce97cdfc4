"""The numbers behind each figure, one row a point: what is drawn is what is written beside it.

Values are means over the replicates, the (seed, draw) pairs, with the ends of a band and, in
words, what the band is; of every further axis (split, hyper-parameters) the first value is taken.
What was not measured is NaN.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from analyses import onset
from analyses.phase import LEVELS
from analyses.slopes import MIN_REPLICATES
from analyses.trials import REPLICATES, across, nearest_sigma
from analyses.variance import crossed_mean

Cube = TypeVar("Cube", xr.Dataset, xr.DataArray)


def plotted(name: str, cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """The numbers that figure `name` shows, one row a point; ValueError if `name` is unknown."""
    if name not in TABLES:
        raise ValueError(f"Unknown figure {name!r}: choose from {', '.join(TABLES)}.")
    return TABLES[name](cube, phase)


def table_width(cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """f_mem per (n_train, width) at the last kimg, with the boundary in n_train of each width."""
    return _table(_boundary(_memorized(cube, "f_mem over width").isel(kimg=-1), "n_train"))


def table_kimg(cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """f_mem per (n_train, kimg) at the largest width, with the onset of each n_train."""
    shown = _memorized(_widest(cube), "f_mem over kimg").isel(width=0)
    return _table(_boundary(shown, "kimg"))


def table_distance(cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """RMSE to the Gaussian denoiser per (n_train, kimg) at the largest width."""
    _need("distance to Gaussian", cube, "denoiser_rmse")
    parts = [
        _positive(_widest(_first(cube[name].isel(sigma=nearest_sigma(cube)), cube))).sel(
            inputs="heldout", reference="gaussian"
        )
        for name in ("denoiser_rmse", "denoiser_rmse_se")
        if name in cube
    ]
    shown = _mean(parts[0], "denoiser_rmse", *parts[1:], of="held-out images").isel(width=0)
    shown["sigma"] = cube["sigma"].isel(sigma=nearest_sigma(cube)).drop_vars("sigma")
    least = onset.minimum(
        shown["denoiser_rmse"].transpose("n_train", "kimg").values,
        shown["kimg"].values.astype(float),
    )[0]
    at = xr.DataArray(least, dims="n_train")
    shown["is_minimum"] = xr.DataArray(np.arange(shown.sizes["kimg"]), dims="kimg") == at
    return _table(shown)


def table_linearity(cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """Centred linearity and its oracle brackets per (n_train, sigma), last kimg, largest width."""
    name = "linearity_cosine_centred"
    names = [name, f"{name}_gaussian", f"{name}_empirical"]
    _need("linearity", cube, *names)
    last = _widest(cube.isel(kimg=-1).sel(inputs="heldout"))
    own_se = [_first(last[f"{name}_se"], cube)] if f"{name}_se" in cube else []
    parts = [_mean(_first(last[name], cube), name, *own_se, of="held-out pairs")]
    parts += [_mean(_first(last[n], cube), n)[[n]] for n in names[1:]]
    shown = xr.merge(parts, compat="override", join="outer", combine_attrs="override")
    # How often training draws such a noise: where it hardly does, the oracles are no brackets.
    shown["exposure"] = (
        _first(cube["exposure"], cube) if "exposure" in cube else np.nan * shown["sigma"]
    )
    return _table(shown.isel(width=0))


TABLES: dict[str, Callable[[xr.Dataset, xr.Dataset], pd.DataFrame]] = {
    "memorized_fraction_width": table_width,
    "memorized_fraction_kimg": table_kimg,
    "gaussian_distance": table_distance,
    "linearity": table_linearity,
}


def _need(what: str, cube: xr.Dataset, *names: str) -> None:
    """ValueError naming the variables that the figure lacks."""
    missing = [name for name in names if name not in cube]
    if missing:
        raise ValueError(f"Figure {what!r} needs {', '.join(missing)}, which the cube has not.")


def _first(array: xr.DataArray, cube: xr.Dataset) -> xr.DataArray:
    """The first value of every axis that is neither shown nor averaged."""
    further = [d for d in across(cube) if d not in ("width", "n_train", "seed", "draw")]
    return array.isel({d: 0 for d in further if d in array.dims}, drop=True)


def _widest(cube: Cube) -> Cube:
    """The largest width alone, still a dimension."""
    return cube.isel(width=[int(cube["width"].values.argmax())])


def _positive(array: xr.DataArray) -> xr.DataArray:
    """Without a snapshot at kimg 0, which has no place on a log axis."""
    return array.isel(kimg=array["kimg"].values > 0) if "kimg" in array.dims else array


def _mean(
    array: xr.DataArray, name: str, own_se: xr.DataArray | None = None, of: str = ""
) -> xr.Dataset:
    """Mean over seeds and draws, number of replicates, and a band.

    `own_se` is the standard error of one replicate over what `of` names, the band where no point
    has a second replicate.
    """
    kept = [str(d) for d in array.dims if d not in REPLICATES]
    values = replicated(array, kept)
    count = (~np.isnan(values)).sum((-2, -1))
    se = None if own_se is None else replicated(own_se, kept)
    mean, low, high, band = banded(values, se, of)
    columns = {name: mean, "band_low": low, "band_high": high, "replicates": count}
    data = {k: (kept, v) for k, v in columns.items()} | {"band": ((), band)}
    return xr.Dataset(data, coords={d: array[d] for d in kept})


def banded(
    values: np.ndarray, se: np.ndarray | None = None, of: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Mean over seeds and draws (the last two axes), ends of its band, and what the band is.

    One rule for all points: the crossed interval (`variance.crossed_mean`), or the range of the
    replicates where any point has fewer than `MIN_REPLICATES` of them: an interval of two or
    three values says nothing. If there is no second replicate at all, 1.96 standard errors `se`
    of the only one.
    """
    mean, low, high = crossed_mean(values)
    count = (~np.isnan(values)).sum((-2, -1))
    most, fewest = count.max(initial=0), count[count > 0].min(initial=MIN_REPLICATES)
    if most >= 2 and fewest == MIN_REPLICATES:
        return mean, low, high, "95 % interval of the mean, seeds and draws crossed"
    if most >= 2:
        known = np.where(count == 0, np.nan, 0.0)
        low = np.where(np.isnan(values), np.inf, values).min((-2, -1)) + known
        high = np.where(np.isnan(values), -np.inf, values).max((-2, -1)) + known
        return mean, low, high, f"range over the {most} replicates (too few for an interval)"
    if se is None:
        return mean, low, high, "none: a single replicate"
    half = 1.96 * crossed_mean(se)[0]
    return mean, mean - half, mean + half, f"± 1.96 s.e. over {of} (a single replicate)"


def replicated(array: xr.DataArray, kept: Sequence[str]) -> np.ndarray:
    """Values with the dims `kept`, then seeds and draws, of which it may lack either."""
    whole = array.expand_dims([d for d in REPLICATES if d not in array.dims])
    return whole.transpose(*kept, *REPLICATES).values.astype(float)


def _memorized(cube: xr.Dataset, what: str) -> xr.Dataset:
    """Mean memorized fraction per (width, n_train, kimg)."""
    _need(what, cube, "memorized_fraction")
    return _mean(_positive(_first(cube["memorized_fraction"], cube)), "memorized_fraction")


def _boundary(shown: xr.Dataset, along: str) -> xr.Dataset:
    """Where the mean f_mem crosses each level along an axis, as an interval."""
    curve = shown["memorized_fraction"].transpose(..., along)
    place = shown[along].values.astype(float)
    find = onset.last_above if along == "n_train" else onset.onset
    ends = [find(curve.values, place, level)[:2] for level in LEVELS]
    dims = ("level", *curve.dims[:-1])
    shown["boundary_low"] = (dims, np.stack([low for low, _ in ends]))
    shown["boundary_high"] = (dims, np.stack([high for _, high in ends]))
    return shown.assign_coords(level=list(LEVELS))


def _table(shown: xr.Dataset) -> pd.DataFrame:
    """Dataset as a plain table, one row per point."""
    return shown.to_dataframe().reset_index()
