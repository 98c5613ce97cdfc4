r"""The phase diagram as data: when and where memorization sets in, and what happens before.

For each trial of the cube (`width`, `n_train`, `seed`, `draw`, `split` and any further axis):

- :math:`\tau_{mem}`: the first snapshot from which the memorized share stays above 5 %, as the
  interval (previous snapshot, this one]; right-censored if it is never reached.
- :math:`\tau_{gauss}`: the snapshot closest to the Gaussian denoiser, with the snapshots around
  it, for every reference (:math:`\sigma` nearest 0.47, held-out inputs).
- by how much the distance falls before and rises after, and how much linearity is lost after,
  each with a 95 % interval from resampling held-out images, paired between the two snapshots.

The regressions over `n_train` are in `slopes`. Times are in kimg. 2505.17638 (times), 2410.24060
(distance and linearity).
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analyses import onset
from analyses.slopes import ONSET_LEVEL, slopes
from analyses.statistics import paired_difference, paired_r2_difference

LEVEL = ONSET_LEVEL
"""Memorized share that counts as the onset of memorization."""
LEVELS = (0.05, 0.5)
"""Memorized shares whose boundary over n_train is recorded."""
SIGMA = 0.47
"""Noise level of every distance and linearity here; the nearest one on the grid is used."""
OWN = ("kimg", "sigma", "inputs", "reference", "sample", "image", "pair", "mode", "pixel")
"""Dims of the cube that belong to a variable and not to a trial."""


def phase(cube: xr.Dataset) -> xr.Dataset:
    """The `phase` group of a cube; what the cube has no variables for is absent.

    Raises ValueError if the cube has no `kimg` dimension.
    """
    if "kimg" not in cube.dims:
        raise ValueError(
            f"phase: the cube needs a `kimg` dim, got {', '.join(map(str, cube.dims))}."
        )
    parts = [onset_times(cube), boundaries(cube), gaussian_times(cube), falls(cube)]
    found = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    found = found.merge(slopes(cube, found), compat="no_conflicts")
    found.attrs = {
        "description": "onset times, boundaries and exponents derived from the cube",
        "level": LEVEL,
        **{k: cube.attrs[k] for k in ("title", "dataset", "backbone") if k in cube.attrs},
    }
    if "sigma" in cube.dims:
        found.attrs["sigma"] = float(cube["sigma"][nearest_sigma(cube)])
    return found


def across(cube: xr.Dataset) -> tuple[str, ...]:
    """Dims that tell trials apart, in the order in which the cube has them."""
    for name in ("memorized_fraction", "denoiser_rmse", "linearity_cosine_centred", "status"):
        if name in cube:
            return tuple(str(d) for d in cube[name].dims if d not in OWN)
    return tuple(str(d) for d in cube.dims if d not in OWN)


def nearest_sigma(cube: xr.Dataset) -> int:
    """Index of the noise level nearest to `SIGMA` on a log scale."""
    return int(np.abs(np.log(cube["sigma"].values.astype(float) / SIGMA)).argmin())


def onset_times(cube: xr.Dataset) -> xr.Dataset:
    """`tau_mem_low`, `tau_mem_high`, `tau_mem_censored` and the first crossing, per trial."""
    if "memorized_fraction" not in cube:
        return xr.Dataset()
    curve, time = per_trial(cube, cube["memorized_fraction"], "kimg"), kimg(cube)
    low, high = onset.onset(curve, time, LEVEL)
    crossed_low, crossed = onset.first_crossing(curve, time, LEVEL)
    lasting = "memorized fraction stays above 5 % to the last snapshot"
    return labelled(
        cube,
        across(cube),
        tau_mem_low=(low, f"last snapshot before the {lasting} (0: none)", "kimg"),
        tau_mem_high=(high, f"first snapshot from which the {lasting} (inf: never)", "kimg"),
        tau_mem_censored=(
            np.isposinf(high).astype(np.int8),
            "1 where memorization was not reached (right-censored), else 0",
            "1",
        ),
        tau_mem_first_crossing=(
            crossed,
            "first snapshot with a memorized fraction above 5 %, lasting or not (inf: never)",
            "kimg",
        ),
        tau_mem_first_crossing_low=(
            crossed_low,
            "last snapshot before the first crossing",
            "kimg",
        ),
    )


def boundaries(cube: xr.Dataset) -> xr.Dataset:
    """N*: the n_train above which the memorized fraction stays at or below 5 % and 50 %."""
    if "memorized_fraction" not in cube or "n_train" not in across(cube):
        return xr.Dataset()
    dims = (*(d for d in across(cube) if d != "n_train"), "kimg")
    curve = cube["memorized_fraction"].transpose(*dims, "n_train").values.astype(float)
    place = cube["n_train"].values.astype(float)
    found = [onset.last_above(curve, place, level) for level in LEVELS]
    low, high, monotone = (np.stack(x, axis=-1) for x in zip(*found, strict=True))
    what = "n_train at which the memorized fraction falls to the level"
    return labelled(
        cube,
        (*dims, "level"),
        n_boundary_low=(low, f"{what}: largest n_train above it (0: none)", "1"),
        n_boundary_high=(high, f"{what}: next larger n_train (inf: none)", "1"),
        n_boundary_monotone=(
            monotone.astype(np.int8),
            "1 where no smaller n_train lies at or below the level, else 0",
            "1",
        ),
    ).assign_coords(level=("level", list(LEVELS), {"long_name": "memorized fraction"}))


def gaussian_times(cube: xr.Dataset) -> xr.Dataset:
    """`tau_gauss` per trial and reference, the snapshots around it, and the distance there."""
    if "denoiser_rmse" not in cube:
        return xr.Dataset()
    curve, time = per_trial(cube, heldout(cube, "denoiser_rmse"), "reference", "kimg"), kimg(cube)
    at, low, high, interior = onset.minimum(curve, time)
    known = at >= 0
    least = np.take_along_axis(curve, np.maximum(at, 0)[..., None], -1)[..., 0]
    units = cube["denoiser_rmse"].attrs.get("units", "pixel")
    what = "RMSE to the reference denoiser (held-out inputs, sigma nearest 0.47)"
    return labelled(
        cube,
        (*across(cube), "reference"),
        tau_gauss=(np.where(known, time[at], np.nan), f"snapshot of least {what}", "kimg"),
        tau_gauss_low=(low, "snapshot before tau_gauss (0: none)", "kimg"),
        tau_gauss_high=(high, "snapshot after tau_gauss (inf: none)", "kimg"),
        tau_gauss_interior=(
            interior.astype(np.int8),
            "1 where tau_gauss is neither the first nor the last snapshot, else 0",
            "1",
        ),
        tau_gauss_rmse=(np.where(known, least, np.nan), f"least {what}", units),
    )


def falls(cube: xr.Dataset) -> xr.Dataset:
    """Changes around tau_gauss (reference gaussian) with paired 95 % intervals, per trial.

    tau_gauss is chosen on the same images, so that no fall or rise of the distance is negative;
    of a curve that is flat but for independent noise, both exclude 0 in about 3 of 100 cases.
    """
    if "denoiser_rmse" not in cube or "gaussian" not in cube["reference"].values:
        return xr.Dataset()
    curve = per_trial(cube, heldout(cube, "denoiser_rmse").sel(reference="gaussian"), "kimg")
    least = onset.minimum(curve, kimg(cube))[0]
    # The ends of the grid, also where one is missing: trials are compared over the same times.
    first, last = np.zeros_like(least), np.full_like(least, cube.sizes["kimg"] - 1)
    found = _distance_changes(cube, first, least, last) | _linearity_falls(cube, least, last)
    variables = {}
    for name, ((estimate, low, high), long_name, units) in found.items():
        variables[name] = (estimate, long_name, units)
        variables[f"{name}_low"] = (low, f"{long_name}, lower end of the 95 % interval", units)
        variables[f"{name}_high"] = (high, f"{long_name}, upper end of the 95 % interval", units)
    return labelled(cube, across(cube), **variables)


def _distance_changes(
    cube: xr.Dataset, first: np.ndarray, least: np.ndarray, last: np.ndarray
) -> dict[str, tuple]:
    """Fall and rise of the distance: name -> ((estimate, low, high), long_name, units)."""
    if "denoiser_rmse_image" not in cube:
        return {}
    image = heldout(cube, "denoiser_rmse_image")
    units = cube["denoiser_rmse"].attrs.get("units", "pixel")
    what = "of the RMSE to the Gaussian denoiser"
    return {
        "denoiser_rmse_fall": (
            paired_difference(*at(cube, image, "image", first, least)),
            f"fall {what} from the first snapshot to tau_gauss",
            units,
        ),
        "denoiser_rmse_rise": (
            paired_difference(*at(cube, image, "image", last, least)),
            f"rise {what} from tau_gauss to the last snapshot",
            units,
        ),
    }


def _linearity_falls(cube: xr.Dataset, least: np.ndarray, last: np.ndarray) -> dict[str, tuple]:
    """Falls of both linearities after the minimum, in the form of `_distance_changes`."""
    found = {}
    if "linearity_cosine_centred_pair" in cube:
        pair = heldout(cube, "linearity_cosine_centred_pair")
        found["linearity_cosine_centred_fall"] = (
            paired_difference(*at(cube, pair, "pair", least, last)),
            "fall of the centred linearity from tau_gauss to the last snapshot",
            "1",
        )
    if {"affine_residual_image", "affine_variance_image"} <= set(cube):
        parts = [
            at(cube, heldout(cube, f"affine_{x}_image"), "image", least, last)
            for x in ("residual", "variance")
        ]
        found["affine_r2_fall"] = (
            paired_r2_difference(*zip(*parts, strict=True)),
            "fall of the affine R2 from tau_gauss to the last snapshot, fits held fixed",
            "1",
        )
    return found


def heldout(cube: xr.Dataset, name: str) -> xr.DataArray:
    """Variable `name` at the sigma nearest `SIGMA`, on held-out inputs."""
    array = cube[name].isel(sigma=nearest_sigma(cube), drop=True)
    return array.sel(inputs="heldout", drop=True) if "inputs" in array.dims else array


def at(cube: xr.Dataset, array: xr.DataArray, dim: str, *indices: np.ndarray) -> list[np.ndarray]:
    """Values of `array` per trial along `dim` at the given kimg indices; NaN where -1."""
    values = per_trial(cube, array, "kimg", dim)
    taken = []
    for index in indices:
        picked = np.take_along_axis(values, np.maximum(index, 0)[..., None, None], -2)[..., 0, :]
        taken.append(np.where((index >= 0)[..., None], picked, np.nan))
    return taken


def per_trial(cube: xr.Dataset, array: xr.DataArray, *own: str) -> np.ndarray:
    """Values as floats with the dims `across` first, in its order, then `own`."""
    order = across(cube)
    constant = {d: cube.sizes[d] for d in order if d not in array.dims}
    return array.expand_dims(constant).transpose(*order, *own).values.astype(float)


def kimg(cube: xr.Dataset) -> np.ndarray:
    """Training times of the cube, thousands of images."""
    return cube["kimg"].values.astype(float)


def labelled(cube: xr.Dataset, dims: Sequence[str], **variables: tuple) -> xr.Dataset:
    """Dataset of (array, long_name, units) over `dims`, with the cube's coordinates."""
    data = {
        name: (dims, values, {"long_name": long_name, "units": units})
        for name, (values, long_name, units) in variables.items()
    }
    return xr.Dataset(data, coords={d: cube[d] for d in dims if d in cube.coords})
