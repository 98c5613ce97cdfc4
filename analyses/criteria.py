r"""Eleven ways to say that a trial memorizes at a snapshot, each a number and a level.

A criterion reads one number per trial and kimg from a cube (after `derived`) and says
*memorizing* where it lies beyond its level. Distances and linearity are those on held-out inputs
at the sigma nearest 0.47. Two criteria measure how far training has moved away from the Gaussian
denoiser; before the least distance of a run a large one is lack of training, so there they read 0
(not memorizing). A missing number says nothing: NaN, and -1 in `criterion_says`.

Sources: f_mem and its nulls (2505.17638, 2310.02664), PSNR gap (2310.02557), twins (2310.02557,
2602.02908, 2310.05264), distance to the Gaussian denoiser and linearity (2410.24060), flow
distance (2505.20123). Levels are conventions; where the criteria disagree is in `disagreement`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses import onset
from analyses.trials import across, heldout, kimg, per_trial

__all__ = ["CRITERIA", "Criterion", "margins", "readings"]

Value = Callable[[xr.Dataset], xr.DataArray | None]
"""cube -> number over across dims and kimg; None: an entry of a dim that it needs is absent."""


@dataclass(frozen=True)
class Criterion:
    """One way to say that a trial memorizes."""

    needs: tuple[str, ...]
    """Variables that the cube must have."""
    value: Value
    level: float
    direction: str
    """Memorizing is "above" or "below" the level, never on it."""
    meaning: str
    units: str = "1"

    @property
    def sign(self) -> int:
        """+1 where memorizing is above the level, else -1."""
        return 1 if self.direction == "above" else -1


def readings(cube: xr.Dataset) -> xr.Dataset:
    """`criterion_value` and `criterion_says` over (criterion, *across, kimg).

    The levels, directions and meanings are coordinates on `criterion`. Criteria without their
    sources are absent; if all are, the dataset is empty.
    """
    values = {}
    for name, criterion in CRITERIA.items():
        found = criterion.value(cube) if set(criterion.needs) <= set(cube) else None
        if found is not None and "kimg" in found.dims:
            values[name] = per_trial(cube, found, "kimg")
    if not values:
        return xr.Dataset()
    dims = ("criterion", *across(cube), "kimg")
    stacked = np.stack(list(values.values()))
    says = np.where(np.isnan(stacked), -1, _margin(stacked, list(values)) > 0).astype(np.int8)
    text = "number by which each criterion says whether a trial memorizes"
    out = xr.Dataset(
        {
            "criterion_value": (dims, stacked, {"long_name": text, "units": "criterion_units"}),
            "criterion_says": (
                dims,
                says,
                {
                    "long_name": "1 where the criterion says memorizing, 0 where not, -1: missing",
                    "units": "1",
                },
            ),
        },
        coords={d: cube[d] for d in dims if d in cube.coords},
    )
    return out.assign_coords(_coordinates(list(values)))


def margins(found: xr.Dataset) -> xr.DataArray:
    """How far beyond its level each criterion of `readings` lies: memorizing where above 0.

    `criterion_value` minus the level, with its sign turned where memorizing is below; NaN stays.
    """
    value = found["criterion_value"]
    names = [str(name) for name in value["criterion"].values]
    return value.copy(data=_margin(value.values, names))


def _margin(values: np.ndarray, names: list[str]) -> np.ndarray:
    """Signed distance to the level, criteria along the first axis."""
    shape = (-1, *(1,) * (values.ndim - 1))
    level = np.array([CRITERIA[n].level for n in names]).reshape(shape)
    sign = np.array([CRITERIA[n].sign for n in names]).reshape(shape)
    return sign * (values - level)


def _coordinates(names: list[str]) -> dict[str, tuple]:
    """What each criterion is, as coordinates."""
    chosen = [CRITERIA[name] for name in names]
    texts = {
        "criterion": (names, "criterion of memorization"),
        "criterion_direction": ([c.direction for c in chosen], "memorizing is above or below"),
        "criterion_meaning": ([c.meaning for c in chosen], "what the criterion compares"),
        "criterion_units": ([c.units for c in chosen], "units of its number"),
    }
    out = {
        key: ("criterion", np.array(value, object), {"long_name": text})
        for key, (value, text) in texts.items()
    }
    level = np.array([c.level for c in chosen])
    attrs = {"long_name": "level of the criterion, in its units"}
    return out | {"criterion_level": ("criterion", level, attrs)}


def _variable(name: str) -> Value:
    return lambda cube: cube[name]


def _heldout(name: str) -> Value:
    return lambda cube: heldout(cube, name)


def _auc(cube: xr.Dataset) -> xr.DataArray:
    return cube["memorization_auc"] - cube["memorization_auc_null"]


def _flow(cube: xr.Dataset) -> xr.DataArray | None:
    """E|Phi - Phi_M| over E|Phi - Phi_G|."""
    if not {"empirical", "gaussian"} <= set(cube["flow_reference"].values.tolist()):
        return None
    memory, gaussian = (
        cube["flow_distance"].sel(flow_reference=name, drop=True)
        for name in ("empirical", "gaussian")
    )
    return memory / gaussian.where(gaussian > 0)


def _rise(cube: xr.Dataset) -> xr.DataArray | None:
    """Distance to the Gaussian denoiser over its least value, minus 1; 0 before the least."""
    distance = _gaussian(cube)
    if distance is None:
        return None
    least = distance.min("kimg")
    return _after_least(cube, distance, distance / least.where(least > 0) - 1)


def _share(cube: xr.Dataset) -> xr.DataArray | None:
    """Distance to the Gaussian denoiser over that of D_M; 0 before the least distance."""
    distance = _gaussian(cube)
    if distance is None:
        return None
    return _after_least(cube, distance, heldout(cube, "gaussian_empirical_ratio"))


def _gaussian(cube: xr.Dataset) -> xr.DataArray | None:
    if "gaussian" not in cube["reference"].values:
        return None
    return heldout(cube, "denoiser_rmse").sel(reference="gaussian", drop=True)


def _after_least(cube: xr.Dataset, distance: xr.DataArray, value: xr.DataArray) -> xr.DataArray:
    """`value` after the snapshot of least distance, 0 up to it, NaN where it is missing."""
    least = onset.minimum(distance.transpose(..., "kimg").values.astype(float), kimg(cube))[0]
    where = xr.DataArray(least, dims=[d for d in distance.dims if d != "kimg"])
    later = xr.DataArray(np.arange(cube.sizes["kimg"]), dims="kimg") > where
    return value.where(later | value.isnull(), 0.0)


CRITERIA: dict[str, Criterion] = {
    "f_mem": Criterion(
        ("memorized_fraction",),
        _variable("memorized_fraction"),
        0.05,
        "above",
        "share of samples that copy a training point",
    ),
    "f_mem_half": Criterion(
        ("memorized_fraction",),
        _variable("memorized_fraction"),
        0.5,
        "above",
        "share of samples that copy a training point, half of them",
    ),
    "excess": Criterion(
        ("memorized_excess",),
        _variable("memorized_excess"),
        0.05,
        "above",
        "share of samples that copy, minus that of samples which cannot have copied",
    ),
    "auc": Criterion(
        ("memorization_auc", "memorization_auc_null"),
        _auc,
        0.1,
        "above",
        "1 - mean nearest ratio of samples, minus that of held-out images",
    ),
    "psnr_gap": Criterion(
        ("psnr_gap",),
        _heldout("psnr_gap"),
        1.0,
        "above",
        "PSNR on training points minus PSNR on held-out images",
        "dB",
    ),
    "twin_ratio": Criterion(
        ("twin_to_train_ratio",),
        _variable("twin_to_train_ratio"),
        1.0,
        "above",
        "distance of twin samples over that of a sample to its nearest training point",
    ),
    "twin_reproducibility": Criterion(
        ("twin_reproducibility",),
        _variable("twin_reproducibility"),
        0.5,
        "below",
        "share of samples that two trainings on disjoint data make alike",
    ),
    "gaussian_rise": Criterion(
        ("denoiser_rmse",),
        _rise,
        0.5,
        "above",
        "distance to the Gaussian denoiser over its least value in the run, minus 1, after it",
    ),
    "gaussian_share": Criterion(
        ("denoiser_rmse", "gaussian_empirical_ratio"),
        _share,
        0.5,
        "above",
        "distance to the Gaussian denoiser over that of the empirical one, after its least value",
    ),
    "flow": Criterion(
        ("flow_distance",),
        _flow,
        1.0,
        "below",
        "distance of the samples to those of the empirical flow over that to the Gaussian flow",
    ),
    "linearity": Criterion(
        ("linearity_cosine_centred_normalised",),
        _heldout("linearity_cosine_centred_normalised"),
        0.5,
        "below",
        "centred linearity from that of the empirical denoiser (0) to the Gaussian one (1)",
    ),
}
"""All criteria by name, in the order of the `criterion` dim."""
