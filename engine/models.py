"""What was measured of several models beside one training set, as one labelled dataset."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analyses.derived import derived
from engine.gather import FLAGS, SCHEMA_VERSION, describe_dims, shown
from engine.pieces import coordinate
from engine.publish import versions
from engine.spec import canonical
from engine.work import DONE, FAILED

if TYPE_CHECKING:
    from engine.external import Examination, Model
    from trainables.datasets.data import Data

SUBSET = ("n_train", "draw", "split")


def cube_of(
    asked: "Examination",
    data: "Data",
    sigmas: Sequence[float],
    found: Sequence["Model"],
    parts: Mapping[str, Mapping[str, xr.Dataset]],
    options: Mapping[str, dict[str, Any]],
) -> xr.Dataset:
    """The cube of `diffphase analyse`: dims model, n_train, draw, split and those of a sweep's.

    Args:
        parts: results by model name and analysis; under "" those of the oracles.
    """
    names = [model.name for model in found]
    each = [_merged(parts[name]).expand_dims(model=coordinate([name]).data) for name in names]
    cube = xr.concat(each, "model", data_vars="all", join="outer", fill_value=np.nan)
    oracles = _merged(parts[""])
    cube = cube.merge(oracles.drop_vars([n for n in oracles.data_vars if n in cube]))
    at = {"n_train": asked.n_train or data.n_pool, "draw": asked.draw, "split": asked.split}
    cube = cube.expand_dims({dim: coordinate([at[dim]]).data for dim in SUBSET})
    states = np.array(
        [[DONE if analysis in parts[name] else FAILED for analysis in options] for name in names],
        dtype=np.int8,
    )
    attrs = {"long_name": "state of each analysis", **FLAGS}
    cube["piece_status"] = (("model", "analysis"), states, attrs)
    cube.coords["analysis"] = coordinate(list(options))
    cube = derived(cube)
    _describe(cube, data, found)
    config = {**asked.model_dump(mode="json"), "models": {m.name: m.source for m in found}}
    cube["config_json"] = ((), np.array(canonical(config), dtype=object))
    cube["config_json"].attrs["long_name"] = "what was asked for"
    cube.attrs = {
        "Conventions": "CF-1.11",
        "title": "diffphase analyse",
        "dataset": data.name,
        "data_hash": data.content_hash,
        "n_pool": data.n_pool,
        "n_heldout": len(data.heldout),
        "n_duplicates": data.n_duplicates,
        "n_leaked": data.n_leaked,
        "n_constant_pixels": data.n_constant_pixels,
        **({} if data.near is None else asdict(data.near)),
        "analysis_options": canonical(dict(options)),
        "schema_version": SCHEMA_VERSION,
        "references": "arXiv:2410.24060",
        **{f"version_{name}": version for name, version in versions().items()},
    }
    return cube


def _merged(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Results of several analyses side by side, as much of each as a cube shows."""
    few = []
    for dataset in found.values():
        each = {
            name: (variable.dims, *shown(variable.values, variable.attrs))
            for name, variable in dataset.data_vars.items()
        }
        few.append(xr.Dataset(each, _indexes(dataset)))
    return xr.merge(few, compat="no_conflicts", join="outer")


def _indexes(dataset: xr.Dataset) -> dict[Hashable, xr.DataArray]:
    """Coordinates of its dims."""
    return {dim: dataset.coords[dim] for dim in dataset.dims if dim in dataset.coords}


def _describe(cube: xr.Dataset, data: "Data", found: Sequence["Model"]) -> None:
    """Long names of the dims, and what is known of each model."""
    numbers = {
        "n_params": ("parameters of the network", "1", lambda m: m.about.get("n_params", np.nan)),
        "model_sigma_min": (
            "smallest noise level that the model knows",
            "pixel",
            lambda m: m.sigma_min,
        ),
        "model_sigma_max": (
            "largest noise level that the model knows",
            "pixel",
            lambda m: m.sigma_max,
        ),
    }
    for name, (long_name, units, value) in numbers.items():
        values = [float(value(model.found)) for model in found]
        cube.coords[name] = ("model", values, {"long_name": long_name, "units": units})
    about = [canonical({"source": m.source, **m.found.about}) for m in found]
    cube.coords["about"] = (
        "model",
        coordinate(about),
        {"long_name": "what the model is, as JSON"},
    )
    cube.coords["dim"] = (
        (),
        int(np.prod(data.shape)),
        {"long_name": "pixels of an image, d", "units": "1"},
    )
    cube.coords["sigma_data"] = (
        (),
        data.sigma_data,
        {"long_name": "standard deviation of all pixels", "units": "pixel"},
    )
    describe_dims(cube)
