r"""The phase diagram as data: when and where memorization sets in, and what happens before.

For each trial of the cube (`width`, `n_train`, `seed`, `draw`, `split` and any further axis):

- :math:`\tau_{mem}`: the first snapshot from which the memorized share stays above 5 %, as the
  interval (previous snapshot, this one]; right-censored if it is never reached.
- :math:`\tau_{gauss}`: the snapshot closest to the Gaussian denoiser, with the snapshots around
  it, for every reference (:math:`\sigma` nearest 0.47, held-out inputs).
- by how much the distance falls before and rises after, and how much linearity is lost after,
  each with a 95 % interval from resampling held-out images, paired between the two snapshots.

What else belongs to the group has modules of its own: laws over `n_train` (`slopes`), the boundary
by every criterion (`criteria`, `boundary`) and how sharp it is (`sharpness`), its exponents on
every axis at equal steps, epochs, samples and compute (`slices`), clock against capacity
(`clock`), where the criteria disagree (`disagreement`), and the spread between seeds and draws
(`spread`). Times are in kimg. 2505.17638 (times), 2410.24060 (distance and linearity).
"""

import numpy as np
import xarray as xr

from analyses import onset
from analyses.boundary import boundary
from analyses.clock import clock
from analyses.criteria import readings
from analyses.disagreement import disagreement
from analyses.sharpness import sharpness
from analyses.slices import exponents
from analyses.slopes import ONSET_LEVEL, slopes
from analyses.spread import spread
from analyses.statistics import paired_difference, paired_r2_difference
from analyses.trials import (
    across,
    at,
    heldout,
    kimg,
    labelled,
    nearest_sigma,
    per_trial,
)

__all__ = ["LEVEL", "LEVELS", "boundaries", "falls", "gaussian_times", "onset_times", "phase"]

LEVEL = ONSET_LEVEL
"""Memorized share that counts as the onset of memorization."""
LEVELS = (0.05, 0.5)
"""Memorized shares whose boundary over n_train is recorded."""


def phase(cube: xr.Dataset) -> xr.Dataset:
    """The `phase` group of a cube; what the cube has no variables for is absent.

    Raises ValueError if the cube has no `kimg` dimension.
    """
    if "kimg" not in cube.dims:
        raise ValueError(
            f"phase: the cube needs a `kimg` dim, got {', '.join(map(str, cube.dims))}."
        )
    found = _merged(onset_times(cube), boundaries(cube), gaussian_times(cube), falls(cube))
    said = readings(cube)
    found = _merged(found, said, boundary(cube, said), slopes(cube, found), sharpness(cube))
    later = (exponents, clock, disagreement, spread)
    found = _merged(found, *(part(cube, found) for part in later))
    found.attrs = {
        "description": "onset times, boundaries and exponents derived from the cube",
        "level": LEVEL,
        **{k: cube.attrs[k] for k in ("title", "dataset", "backbone") if k in cube.attrs},
    }
    if "sigma" in cube.dims:
        found.attrs["sigma"] = float(cube["sigma"][nearest_sigma(cube)])
    return found


def _merged(*parts: xr.Dataset) -> xr.Dataset:
    """All variables of the parts; a dim of two parts has the same coordinates in both."""
    return xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")


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
