"""The numbers behind each figure, one row a point: what is drawn is what is written beside it.

Values are means over seeds and draws with their standard error; of every further axis (split,
hyper-parameters) the first value is taken. What was not measured is NaN.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from analyses import onset
from analyses.phase import LEVELS, across, nearest_sigma
from analyses.statistics import mean_se


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
    shown = _memorized(cube, "f_mem over kimg")
    return _table(_boundary(shown.sel(width=shown["width"].max()), "kimg"))


def table_distance(cube: xr.Dataset, phase: xr.Dataset) -> pd.DataFrame:
    """RMSE to the Gaussian denoiser per (n_train, kimg) at the largest width."""
    _need("distance to Gaussian", cube, "denoiser_rmse")
    parts = [
        _positive(_first(cube[name].isel(sigma=nearest_sigma(cube)), cube)).sel(
            inputs="heldout", reference="gaussian"
        )
        for name in ("denoiser_rmse", "denoiser_rmse_se")
        if name in cube
    ]
    shown = _mean(parts[0], "denoiser_rmse", *parts[1:])
    shown = shown.sel(width=shown["width"].max())
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
    last = cube.isel(kimg=-1).sel(inputs="heldout")
    own_se = [_first(last[f"{name}_se"], cube)] if f"{name}_se" in cube else []
    parts = [_mean(_first(last[name], cube), name, *own_se)]
    parts += [_mean(_first(last[n], cube), n) for n in names[1:]]
    shown = xr.merge(parts, compat="override", join="outer", combine_attrs="override")
    return _table(shown.sel(width=shown["width"].max()))


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


def _positive(array: xr.DataArray) -> xr.DataArray:
    """Without a snapshot at kimg 0, which has no place on a log axis."""
    return array.isel(kimg=array["kimg"].values > 0) if "kimg" in array.dims else array


def _mean(array: xr.DataArray, name: str, own_se: xr.DataArray | None = None) -> xr.Dataset:
    """Mean over seeds and draws with its standard error and count.

    Where there is a single replicate, the standard error over images, `own_se`, if given.
    """
    over = [d for d in ("seed", "draw") if d in array.dims]
    kept = [d for d in array.dims if d not in over]
    values = _flat(array, kept, over)
    mean, se = mean_se(values)
    count = (~np.isnan(values)).sum(-1)
    if own_se is not None:
        single = mean_se(_flat(own_se, kept, over))[0]
        se = np.where(count == 1, single, se)
    data = {name: (kept, mean), f"{name}_se": (kept, se), f"{name}_replicates": (kept, count)}
    return xr.Dataset(data, coords={d: array[d] for d in kept})


def _flat(array: xr.DataArray, kept: list, over: list) -> np.ndarray:
    """Values with the dims `kept`, then all of `over` as one axis."""
    values = array.transpose(*kept, *over).values.astype(float)
    return values.reshape(*values.shape[: len(kept)], -1)


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
