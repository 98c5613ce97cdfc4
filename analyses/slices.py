r"""Exponents of the boundary and of the onset on every axis, in four slices of one cube.

Published boundaries hold fixed what their authors held fixed: steps, epochs, samples or compute.
If the onset is :math:`\tau \propto N^b W^c` kimg, then :math:`N^* \propto (t\,W^{-c})^{1/b}` at
equal steps but :math:`N^* \propto (e\,W^{-c})^{1/(b-1)}` at equal epochs e (for b > 1; at b = 1
epochs do not decide, capacity does). So the exponent depends on the slice, and here one cube gives
all of them, for every criterion, with a common slope over the levels of the slice (`pooled`):

| slice | quantity | on width, n_params | on kimg | on n_train |
|---|---|---|---|---|
| steps | N* | at equal kimg | on kimg, at equal width | - |
| epochs | N* | at equal epochs | on epochs, at equal width | - |
| flops | N* | at equal FLOPs | - (the same as steps) | - |
| samples | kimg* | at equal n_train | - | at equal width |

`stage_exponent` are those of :math:`\tau_{gauss}`, :math:`\tau_{gen}` and :math:`\tau_{mem}` in
the samples slice. At most `LEVELS` times of a slice enter a fit: neighbours come from the same
runs and add little.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.pooled import Observations, difference, pooled_exponent
from analyses.trials import AXES, group_dims, labelled

__all__ = ["LEVELS", "SLICES", "STAGES", "exponents"]

SLICES = ("steps", "epochs", "flops", "samples")
STAGES = ("tau_gauss", "tau_gen", "tau_mem")
LEVELS = 8
"""Most times of a slice that enter a fit."""
CLOCK = {
    "steps": ("n_star", "kimg"),
    "epochs": ("n_star_epochs", "epochs_grid"),
    "flops": ("n_star_flops", "flops_grid"),
}
"""Slice -> prefix of its boundary and name of its time."""
WHAT = "exponent of N* (samples slice: of kimg*) on the axis at equal levels of the slice"
DIFFERENCE = "exponent of N* on the axis at equal kimg minus that at equal epochs"
STAGE = "exponent of the stage's time on the axis (n_train: at equal width, else at equal n_train)"


@dataclass(frozen=True)
class Task:
    """One family of fits: which bounds, along which of their dims, at equal what."""

    low: xr.DataArray
    high: xr.DataArray
    x: xr.DataArray
    """Values of the axis, over `along` and perhaps dims of the group."""
    along: str
    level: str
    """The dim whose values are levels: one intercept each."""


def exponents(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """`exponent*` over (criterion, slice, axis, *split and further axes) and what follows.

    `found` holds the variables of `boundary` and, for the stages, tau_gauss and tau_mem. Beside
    each number stand `_low`, `_high`, `_is_range`, `_success` and `_replicates`;
    `exponent_steps_minus_epochs*` has the axes only. Empty without criteria and stages.
    """
    parts = []
    if "kimg_star_low" in found:
        fits = {at: _fitted(cube, task) for at, task in _tasks(cube, found)}
        parts += [_published(cube, found, fits), _differences(cube, found, fits)]
    stages = {at: _fitted(cube, task) for at, task in _stage_tasks(cube, found)}
    if stages:
        names = [s for s in STAGES if any(at[0] == s for at in stages)]
        parts.append(_labelled(cube, stages, "stage_exponent", STAGE, stage=names, axis=AXES))
    return xr.merge(parts, compat="no_conflicts", join="outer")


def _tasks(cube: xr.Dataset, found: xr.Dataset) -> Iterator[tuple[tuple[str, str, str], Task]]:
    """(criterion, slice, axis) -> what to fit."""
    for name in found["criterion"].values:
        own = found.sel(criterion=name)
        for slice_, (prefix, time) in CLOCK.items():
            if f"{prefix}_low" not in own:
                continue
            low, high = (_thinned(own[f"{prefix}_{end}"], time) for end in ("low", "high"))
            for axis, x in _capacities(cube, low.dims):
                yield (name, slice_, axis), Task(low, high, x, "width", time)
            if slice_ != "flops":
                yield (name, slice_, "kimg"), Task(low, high, low[time], time, "width")
        for axis, task in _in_samples(cube, own, "kimg_star"):
            yield (name, "samples", axis), task


def _stage_tasks(cube: xr.Dataset, found: xr.Dataset) -> Iterator[tuple[tuple[str, str], Task]]:
    """(stage, axis) -> what to fit."""
    for stage in STAGES:
        if f"{stage}_low" not in found:
            continue
        own = found[[f"{stage}_low", f"{stage}_high"]]
        if "reference" in own.dims:
            if "gaussian" not in own["reference"].values:
                continue
            own = own.sel(reference="gaussian", drop=True)
        for axis, task in _in_samples(cube, own, stage):
            yield (stage, axis), task


def _in_samples(cube: xr.Dataset, own: xr.Dataset, prefix: str) -> Iterator[tuple[str, Task]]:
    """Axis -> the fit of a time of the trials."""
    low, high = (own[f"{prefix}_{end}"] for end in ("low", "high"))
    if "n_train" not in low.dims:
        return
    for axis, x in _capacities(cube, low.dims):
        yield axis, Task(low, high, x, "width", "n_train")
    yield "n_train", Task(low, high, cube["n_train"].astype(float), "n_train", "width")


def _capacities(cube: xr.Dataset, dims: tuple) -> Iterator[tuple[str, xr.DataArray]]:
    """Width and, where the cube has it, the number of parameters."""
    if "width" not in dims:
        return
    yield "width", cube["width"].astype(float)
    if "n_params" in cube.coords and set(cube["n_params"].dims) <= set(dims):
        yield "n_params", cube["n_params"].astype(float)


def _thinned(array: xr.DataArray, time: str) -> xr.DataArray:
    """At most `LEVELS` positive times, evenly over their order."""
    positive = np.flatnonzero(array[time].values > 0)
    count = min(LEVELS, len(positive))
    return array.isel(
        {time: positive[np.linspace(0, len(positive) - 1, count).round().astype(int)]}
    )


def _fitted(cube: xr.Dataset, task: Task) -> np.ndarray:
    """One `Pooled` per point of the split and further axes."""
    group = list(group_dims(cube))
    own = [d for d in task.low.dims if d not in group]
    order = [*group, *own]
    low, high = (a.transpose(*order).values for a in (task.low, task.high))
    x = task.x.reset_coords(drop=True).broadcast_like(task.low.reset_coords(drop=True))
    x = x.transpose(*order).values.astype(float)
    sizes = task.low.sizes
    places = dict(zip(own, np.indices([sizes[d] for d in own]), strict=True))
    nowhere = np.zeros(low.shape[len(group) :], int)
    level = places.get(task.level, nowhere).ravel().astype(float)
    seed, draw = (places.get(d, nowhere).ravel() for d in ("seed", "draw"))
    counts = [sizes.get(d, 1) for d in ("seed", "draw")]
    out = np.empty(low.shape[: len(group)], object)
    for at in np.ndindex(out.shape):
        data = Observations(x[at].ravel(), level, low[at].ravel(), high[at].ravel(), seed, draw)
        out[at] = pooled_exponent(data, *counts)
    return out


def _published(cube: xr.Dataset, found: xr.Dataset, fits: Mapping) -> xr.Dataset:
    names = [str(name) for name in found["criterion"].values]
    return _labelled(cube, fits, "exponent", WHAT, criterion=names, slice=SLICES, axis=AXES)


def _differences(cube: xr.Dataset, found: xr.Dataset, fits: Mapping) -> xr.Dataset:
    """What the exponent gains from counting steps instead of epochs (L18)."""
    names = [str(name) for name in found["criterion"].values]
    both = {}
    for name in names:
        for axis in AXES:
            pair = [fits.get((name, slice_, axis)) for slice_ in ("steps", "epochs")]
            if pair[0] is not None and pair[1] is not None:
                both[name, axis] = np.frompyfunc(difference, 2, 1)(*pair)
    label = "exponent_steps_minus_epochs"
    return _labelled(cube, both, label, DIFFERENCE, criterion=names, axis=AXES)


def _labelled(
    cube: xr.Dataset, fits: Mapping, name: str, long_name: str, **axes: tuple | list
) -> xr.Dataset:
    """Fits by their place on `axes` as variables; what was not fitted is NaN, 0 of the flags."""
    group = group_dims(cube)
    shape = (*(len(v) for v in axes.values()), *(cube.sizes[d] for d in group))
    ends = f"{long_name}, %s end of 95 %% interval or range"
    pairs = f"(seed, draw) pairs behind: {long_name}"
    fields = {
        "": ("estimate", long_name, float),
        "_low": ("low", ends % "lower", float),
        "_high": ("high", ends % "upper", float),
        "_is_range": ("is_range", f"1 where ends are the range over replicates: {name}", np.int8),
        "_success": ("success", f"1 where identified: {long_name}", np.int8),
        "_replicates": ("replicates", pairs, np.int32),
    }
    variables = {}
    for suffix, (field, text, kind) in fields.items():
        values = np.full(shape, np.nan if kind is float else 0, kind)
        for key, found in fits.items():
            place = tuple(list(v).index(k) for k, v in zip(key, axes.values(), strict=True))
            values[place] = np.vectorize(lambda fit, f=field: getattr(fit, f))(found)
        variables[f"{name}{suffix}"] = (values, text, "1")
    coords = {
        dim: xr.DataArray(np.array(list(values), object), dims=dim) for dim, values in axes.items()
    }
    return labelled(cube, (*axes, *group), coords, **variables)
