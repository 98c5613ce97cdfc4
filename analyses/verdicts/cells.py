r"""A cube made ready for judgement: its replicates on two dims, `seed` and `draw`.

The splits a and b of a draw are disjoint training sets, so every (draw, split) is one level of the
factor *training set*, on the dim `draw`; splits that a variable lacks are missing there. Widths of
an MLP below d are left out: its output then lies in a subspace of W dimensions, and capacity would
be confounded with rank.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

from analyses.boundary import boundary
from analyses.criteria import readings
from analyses.derived import derived
from analyses.phase import boundaries, gaussian_times, onset_times
from analyses.slices import exponents
from analyses.slopes import slopes
from analyses.trials import group_dims
from analyses.verdicts.judging import Need

__all__ = ["NETWORK", "PLAIN", "further", "options", "prepared", "rate", "replicated", "setting"]

RAW = {"image", "pair", "pixel", "input", "shown"}
"""Dims of variables that no law reads."""


def further(cube: xr.Dataset) -> list[str]:
    """Axes beyond width, n_train, seeds and training sets that have several values."""
    return [d for d in group_dims(cube) if cube.sizes[d] > 1]


PLAIN = Need(
    "one value of every further axis", lambda cube, phase: not further(cube) and "kimg" in cube
)
NETWORK = (
    PLAIN,
    Need("a network as backbone", lambda cube, phase: cube.attrs.get("backbone") != "gmm"),
)
"""What most laws are about."""


def prepared(cube: xr.Dataset, phase: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The cube over (width, n_train, seed, draw, ...) and its phase group over the same dims.

    `phase` is used as it is if it is of the same cells; where splits are joined to the draws, or
    widths left out, its parts are computed again.
    """
    whole = replicated(cube)
    same = whole.sizes.get("width") == cube.sizes.get("width") and cube.sizes.get("split", 1) == 1
    if further(whole) or "kimg" not in whole.dims:
        return whole, xr.Dataset()
    if same and {"tau_mem_slope", "exponent"} <= set(phase):
        own = phase.isel({d: 0 for d in phase.dims if d in group_dims(cube)}, drop=True)
        draws = {"draw": whole["draw"].values} if "draw" in own.dims else {}
        return whole, own.assign_coords(draws)
    return whole, _phase(whole)


def replicated(cube: xr.Dataset) -> xr.Dataset:
    """The cube over (width, n_train, seed, draw, ...) with its `derived` variables."""
    whole = _wide(_joined(_lean(cube)))
    return derived(whole) if "sigma" in whole.dims else whole


def options(cube: xr.Dataset, name: str) -> dict[str, Any]:
    """Options of `training`, `backbone` or `data` of a prepared cube; empty if not recorded.

    Those of the data are what the sweep names, the others are complete.
    """
    if name == "data":
        return json.loads(cube.attrs.get("config_json", "{}")).get("data", {})
    return json.loads(cube.attrs.get(f"{name}_options", "{}"))


def rate(cube: xr.Dataset) -> str:
    """The learning rate and how it goes with width."""
    training = options(cube, "training")
    lr, width = training.get("lr", "not recorded"), training.get("lr_width")
    return f"lr {lr} at width {width}, as 1/width" if width else f"lr {lr} at every width"


def setting(cube: xr.Dataset) -> str:
    """What was trained, how, and on how many replicates."""
    training, data = options(cube, "training"), options(cube, "data")
    batch = "full batch" if training.get("sampling") == "full" else "batch drawn"
    copies = f", {data['copies']} copies of each point" if data.get("copies", 1) > 1 else ""
    seeds, sets = cube.sizes.get("seed", 1), cube.sizes.get("draw", 1)
    draws = cube.attrs.get("n_draws", sets)
    return (
        f"{cube.attrs.get('backbone', 'backbone not recorded')} on "
        f"{cube.attrs.get('dataset', 'a data set not recorded')}{copies}, "
        f"{training.get('optimizer', 'adam')}, {batch}, {rate(cube)}; {seeds} seed(s) x {sets} "
        f"training set(s) from {draws} draw(s), crossed: each factor is left out in turn, its "
        "variances are added and never pooled; ends in brackets are those of 95 % intervals "
        "unless said otherwise"
    )


def _lean(cube: xr.Dataset) -> xr.Dataset:
    """Numbers without raw dims, and without further axes of one value."""
    numbers = [n for n, v in cube.data_vars.items() if v.dtype.kind in "fiub"]
    kept = [n for n in numbers if not RAW & {*cube[n].dims}]
    more = [d for d in group_dims(cube) if d != "split" and cube.sizes[d] == 1]
    out = cube[kept].isel({d: 0 for d in more}, drop=True)
    if "config_json" in cube:
        out.attrs["config_json"] = str(cube["config_json"].item())
    return out


def _wide(cube: xr.Dataset) -> xr.Dataset:
    """Without the widths of an MLP below d, unless there are no others."""
    if cube.attrs.get("backbone") != "mlp" or "dim" not in cube.coords or "width" not in cube.dims:
        return cube
    wide = np.flatnonzero(cube["width"].values >= float(cube["dim"]))
    return cube.isel(width=wide) if len(wide) else cube


def _joined(cube: xr.Dataset) -> xr.Dataset:
    """Draws and splits as one dim `draw` with labels such as 0a; `seed` and `draw` exist."""
    for dim, value in (("seed", 0), ("draw", 0), ("split", "a")):
        if dim not in cube.dims:
            label = value if dim not in cube.coords else cube[dim].item()
            cube = cube.drop_vars(dim, errors="ignore").expand_dims({dim: [label]})
    labels = [f"{d}{s}" for d in cube["draw"].values for s in cube["split"].values]
    coords = {name: c for name, c in cube.coords.items() if not {"draw", "split"} & {*c.dims}}
    data = {name: _as_draws(array, cube.sizes["split"]) for name, array in cube.data_vars.items()}
    attrs = {**cube.attrs, "n_draws": cube.sizes["draw"]}
    return xr.Dataset(data, {**coords, "draw": np.array(labels, object)}, attrs)


def _as_draws(array: xr.DataArray, splits: int) -> xr.Variable:
    """One variable with (draw, split) flattened; what has no split belongs to the first."""
    variable = array.variable
    if "split" not in variable.dims:
        if "draw" not in variable.dims:
            return variable
        first = variable.transpose("draw", ...).astype(float)
        values = np.full((first.shape[0], splits, *first.shape[1:]), np.nan)
        values[:, 0] = first.values
        return xr.Variable(first.dims, values.reshape(-1, *first.shape[1:]), array.attrs)
    if "draw" not in variable.dims:
        variable = variable.expand_dims("draw")
    ordered = variable.transpose("draw", "split", ...)
    shape = (-1, *ordered.shape[2:])
    return xr.Variable(("draw", *ordered.dims[2:]), ordered.values.reshape(shape), array.attrs)


def _phase(cube: xr.Dataset) -> xr.Dataset:
    """The parts of a phase group that laws read."""
    found = xr.merge(
        [onset_times(cube), boundaries(cube), gaussian_times(cube)],
        compat="no_conflicts",
        join="outer",
        combine_attrs="drop",
    )
    if cube.attrs.get("backbone") == "gmm":
        return found
    share = cube[[n for n in ("memorized_fraction",) if n in cube]]
    said = readings(share).sel(criterion=["f_mem"]) if len(share) else xr.Dataset()
    for part in (boundary(cube, said), slopes(cube, found)):
        found = found.merge(part, compat="no_conflicts")
    return found.merge(exponents(cube, found), compat="no_conflicts")
