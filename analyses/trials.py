"""Variables of a cube per trial: which dims tell trials apart, and values with those dims first.

A distance or a linearity is taken at one noise level, the one nearest `SIGMA` on a log scale, and
on held-out inputs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

__all__ = [
    "AXES",
    "OWN",
    "REPLICATES",
    "SIGMA",
    "across",
    "at",
    "group_dims",
    "heldout",
    "kimg",
    "labelled",
    "nearest_sigma",
    "per_trial",
]

SIGMA = 0.47
"""Noise level of every distance and linearity here; the nearest one on the grid is used."""
OWN = (
    *("kimg", "sigma", "inputs", "reference", "flow_reference", "sample", "image", "pair"),
    *("mode", "fit_mode", "wiener_mode", "pixel", "point", "input", "shown", "alpha2"),
    *("trajectory_denoiser", "skip_sigma", "analysis"),
)
"""Dims of the cube that belong to a variable and not to a trial."""
AXES = ("width", "n_params", "kimg", "n_train")
"""What a law may run along, in the order of the `axis` dim."""
REPLICATES = ("seed", "draw")
"""Axes that repeat a measurement: initialisations, and training sets of one size."""
VARIED = ("width", "n_train", "seed", "draw")
"""Axes of the laws and of the replicates; what else there is sets apart whole diagrams."""


def across(cube: xr.Dataset) -> tuple[str, ...]:
    """Dims that tell trials apart, in the order in which the cube has them."""
    for name in ("memorized_fraction", "denoiser_rmse", "linearity_cosine_centred", "status"):
        if name in cube:
            return tuple(str(d) for d in cube[name].dims if d not in OWN)
    return tuple(str(d) for d in cube.dims if d not in OWN)


def group_dims(cube: xr.Dataset) -> tuple[str, ...]:
    """Dims across trials that no law runs along: the split and further hyper-parameters."""
    return tuple(d for d in across(cube) if d not in VARIED)


def nearest_sigma(cube: xr.Dataset) -> int:
    """Index of the noise level nearest to `SIGMA` on a log scale."""
    return int(np.abs(np.log(cube["sigma"].values.astype(float) / SIGMA)).argmin())


def heldout(cube: xr.Dataset, name: str) -> xr.DataArray:
    """Variable `name` at the sigma nearest `SIGMA`, on held-out inputs."""
    array = cube[name].isel(sigma=nearest_sigma(cube), drop=True)
    return array.sel(inputs="heldout", drop=True) if "inputs" in array.dims else array


def per_trial(cube: xr.Dataset, array: xr.DataArray, *own: str) -> np.ndarray:
    """Values as floats with the dims `across` first, in its order, then `own`."""
    order = across(cube)
    constant = {d: cube.sizes[d] for d in order if d not in array.dims}
    return array.expand_dims(constant).transpose(*order, *own).values.astype(float)


def at(cube: xr.Dataset, array: xr.DataArray, dim: str, *indices: np.ndarray) -> list[np.ndarray]:
    """Values of `array` per trial along `dim` at the given kimg indices; NaN where -1."""
    values = per_trial(cube, array, "kimg", dim)
    taken = []
    for index in indices:
        picked = np.take_along_axis(values, np.maximum(index, 0)[..., None, None], -2)[..., 0, :]
        taken.append(np.where((index >= 0)[..., None], picked, np.nan))
    return taken


def kimg(cube: xr.Dataset) -> np.ndarray:
    """Training times of the cube, thousands of images."""
    return cube["kimg"].values.astype(float)


def labelled(
    cube: xr.Dataset,
    dims: Sequence[str],
    coords: Mapping[str, xr.DataArray] | None = None,
    **variables: tuple,
) -> xr.Dataset:
    """Dataset of (array, long_name, units) over `dims`, with the cube's coordinates.

    `coords` are those of dims that the cube has not.
    """
    data = {
        name: (tuple(dims), values, {"long_name": long_name, "units": units})
        for name, (values, long_name, units) in variables.items()
    }
    shared = {d: cube[d] for d in dims if d in cube.coords}
    return xr.Dataset(data, coords=shared | dict(coords or {}))
