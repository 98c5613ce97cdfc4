r"""The same cube at equal epochs, or equal compute, instead of equal kimg.

A cube has one kimg grid; at one kimg a small training set has seen more epochs than a large one,
and a wide network more FLOPs than a narrow one. To compare cells at an equal count c of either,
each is read at its *last snapshot whose count is at most c*, within 5 %: images come in whole
batches, so that snapshots meant to be equal differ by a few per cent. A cell that has not trained
that long, or has no snapshot that early, is NaN: nothing is extrapolated.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from analyses.trials import kimg

__all__ = ["CLOCKS", "Reader", "common_grid", "cost", "read_at", "reader"]

TOLERANCE = 0.05
"""By how much a snapshot's count may exceed the one it is read at."""
POINTS = 24
"""Most points of a grid."""
CLOCKS = {"epochs": ("passes over the training set", "1"), "flops": ("training compute", "FLOP")}
"""Counts other than kimg: long name and units."""


def cost(cube: xr.Dataset, clock: str) -> xr.DataArray | None:
    """What each snapshot had cost, over kimg and what else it depends on; None if not known.

    Epochs are 1000 kimg / n_train where the cube does not have them.
    """
    if clock in cube.coords and "kimg" in cube[clock].dims:
        return cube[clock].astype(float).reset_coords(drop=True)
    if clock != "epochs" or "n_train" not in cube.dims:
        return None
    return (1000 * cube["kimg"] / cube["n_train"]).astype(float).reset_coords(drop=True)


def common_grid(cube: xr.Dataset, spent: xr.DataArray) -> np.ndarray:
    """Log-spaced counts from the least to the greatest of all snapshots (kimg 0 left out).

    The step is the usual one between two kimg, or a multiple if there would be more than `POINTS`:
    if kimg and n_train are geometric with one ratio, every point is a snapshot of every cell.
    """
    values = np.unique(spent.values[np.isfinite(spent.values) & (spent.values > 0)])
    time = kimg(cube)
    time = time[time > 0]
    steps = np.diff(np.log(time if len(time) > 1 else values))
    if len(values) < 2 or len(steps) == 0:
        return values
    span, step = np.log(values[-1] / values[0]), float(np.median(steps))
    step *= max(1, int(np.ceil(span / step / (POINTS - 1))))
    count = int(np.floor(span / step + TOLERANCE)) + 1
    return values[0] * np.exp(step * np.arange(count))


def read_at(array: xr.DataArray, spent: xr.DataArray, grid: np.ndarray, dim: str) -> xr.DataArray:
    """`array` with kimg replaced by `dim`: each cell at its last snapshot of at most that count.

    `spent` increases along kimg. NaN where a cell has no such snapshot, or stopped before.

    >>> a = xr.DataArray([1.0, 2.0, 3.0], dims="kimg")
    >>> read_at(a, 10 * a, np.array([5.0, 10, 25, 40]), "epochs").values.tolist()
    [nan, 1.0, 2.0, nan]
    """
    counts = spent.transpose(..., "kimg").values
    reach = grid * (1 + TOLERANCE)
    index = (counts[..., None, :] <= reach[:, None]).sum(-1) - 1
    trained = (index >= 0) & (grid <= counts[..., -1:] * (1 + TOLERANCE))
    dims = [*(d for d in spent.dims if d != "kimg"), dim]
    at = xr.DataArray(np.maximum(index, 0), dims=dims)
    bare = array.drop_vars([c for c in array.coords if c not in array.dims or c == "kimg"])
    taken = bare.isel(kimg=at).where(xr.DataArray(trained, dims=dims))
    kept = [dim if d == "kimg" else d for d in array.dims]
    return taken.transpose(*kept)


Reader = Callable[[xr.DataArray], xr.DataArray]


def reader(cube: xr.Dataset, clock: str) -> tuple[Reader, xr.DataArray, str] | None:
    """How to read any array at equal counts of `clock`: (reader, grid, name of its dim).

    The clock "kimg" leaves arrays as they are. None where the cube does not know the count.
    """
    if clock == "kimg":
        return (lambda array: array), cube["kimg"], "kimg"
    spent = cost(cube, clock)
    if spent is None:
        return None
    dim = f"{clock}_grid"
    long_name, units = CLOCKS[clock]
    grid = common_grid(cube, spent)
    text = f"{long_name}; each cell is read at its last snapshot of at most this many, within 5 %"
    points = xr.DataArray(grid, dims=dim, attrs={"long_name": text, "units": units})
    return (lambda array: read_at(array, spent, grid, dim)), points, dim
