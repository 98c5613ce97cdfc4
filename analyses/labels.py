"""Names, units and dimensions of results: the one place where arrays become labelled variables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

__all__ = [
    "FLOWS",
    "INPUTS",
    "REFERENCES",
    "STEPS",
    "TRAJECTORIES",
    "Label",
    "by_law",
    "concat_sigma",
    "dataset",
    "stack",
    "suffixed",
    "tagged",
]

T = TypeVar("T")
INPUTS = ("train", "heldout", "noise", "path")
"""What noisy inputs are made of: training points, held-out images, nothing, or (`path`) the
states of the denoiser's own sampling path."""
REFERENCES = ("gaussian", "gaussian_pool", "kappa", "empirical", "linear")
FLOWS = REFERENCES[:-1]
"""Oracles whose samples are compared with the denoiser's; an affine fit per level has no flow."""
TRAJECTORIES = ("network", "linear", "gaussian", "empirical")
"""The denoiser itself (`network`), its affine fit and two oracles, followed from one latent."""

STEPS = (-6.0, -3.0, 0.0, 3.0, 6.0)
"""Steps of an input along a direction, in units of the noise level."""


@dataclass(frozen=True)
class Label:
    """What one variable is."""

    long_name: str
    """The quantity and its estimator, in words."""
    dims: tuple[str, ...] = ()
    """Dimensions, in the order of the array."""
    units: str = "1"
    """`1`, `pixel` (pixel values, the data's own range) or `pixel2`."""
    shown: int | None = None
    """How many entries of the last dim but one go into a cube; the piece holds them all."""


def tagged(values: Mapping[str, T], tag: str) -> dict[str, T]:
    """The same values under `<name>_<tag>`, with `_se`, `_low` and `_high` kept at the end.

    >>> tagged({"rmse": 1, "rmse_se": 2}, "null")
    {'rmse_null': 1, 'rmse_null_se': 2}
    """
    return {_tagged(name, tag): value for name, value in values.items()}


def suffixed(labels: Mapping[str, Label], tag: str, of: str) -> dict[str, Label]:
    """`tagged` labels of the same quantities `of` something else."""
    named = {
        name: replace(label, long_name=f"{label.long_name}, {of}")
        for name, label in labels.items()
    }
    return tagged(named, tag)


def stack(cells: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Equal-named tensors of several cells (noise levels, input laws) along a new first axis."""
    return {name: torch.stack([cell[name] for cell in cells]) for name in cells[0]}


def dataset(
    sigmas: Sequence[float], values: Mapping[str, Tensor], labels: Mapping[str, Label]
) -> xr.Dataset:
    """Labelled `values`; `<name>_se` takes the label of `<name>` unless it has its own.

    Coordinates are written for `sigma`, `inputs` and `reference` where a variable has them.
    """
    variables = {}
    for name, value in values.items():
        label = labels.get(name)
        if label is None:
            base = labels[name.removesuffix("_se")]
            label = replace(base, long_name=f"standard error of: {base.long_name}")
        attrs = {"long_name": label.long_name, "units": label.units}
        if label.shown is not None:
            attrs["shown"] = str(label.shown)
        variables[name] = xr.Variable(label.dims, value.detach().cpu().numpy(), attrs)
    dims = {dim for variable in variables.values() for dim in variable.dims}
    coords = _coords(sigmas)
    return xr.Dataset(variables, {name: coords[name] for name in coords if name in dims})


def by_law(
    laws: Sequence[str], measure: Callable[[str], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """`measure(law)` of each of `laws`, stacked over all of `INPUTS` (NaN for the others)."""
    unknown = [law for law in laws if law not in INPUTS]
    if unknown or not laws:
        raise ValueError(
            f"`laws` must be some of {', '.join(INPUTS)}, got {', '.join(laws) or 'none'}."
        )
    known = {
        law: {name: value.double() for name, value in measure(law).items()}
        for law in INPUTS
        if law in laws
    }
    blank = {
        name: torch.full_like(value, torch.nan)
        for name, value in next(iter(known.values())).items()
    }
    return stack([known.get(law, blank) for law in INPUTS])


def concat_sigma(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """One dataset from one per noise level; what has no `sigma` is the same in all, kept once."""
    joined = {
        name: xr.Variable.concat([part.variables[name] for part in parts], "sigma")
        if "sigma" in variable.dims
        else variable
        for name, variable in parts[0].variables.items()
    }
    coords = {str(name): joined.pop(name) for name in parts[0].coords}
    return xr.Dataset(joined, coords)


def _tagged(name: str, tag: str) -> str:
    for tail in ("_se", "_low", "_high"):
        if name.endswith(tail):
            return f"{name.removesuffix(tail)}_{tag}{tail}"
    return f"{name}_{tag}"


TEXTS = {
    "inputs": (INPUTS, "law of the inputs"),
    "reference": (REFERENCES, "denoiser compared with"),
    "flow_reference": (FLOWS, "oracle whose samples are compared with"),
    "trajectory_denoiser": (TRAJECTORIES, "denoiser that is followed from the latents"),
}
"""Labels of the dims that have names for places, and what the names are of."""


def _coords(sigmas: Sequence[float]) -> dict[str, xr.Variable]:
    """The coordinates an analysis can have; text as objects (zarr has no fixed-width text)."""
    attrs = {"long_name": "noise standard deviation", "units": "pixel"}
    coords = {"sigma": xr.Variable("sigma", np.array(sigmas, dtype=np.float64), attrs)}
    attrs = {"long_name": "step of the input, in units of sigma", "units": "1"}
    coords["step"] = xr.Variable("step", np.array(STEPS), attrs)
    for dim, (names, of) in TEXTS.items():
        attrs = {"long_name": of, "units": "1"}
        coords[dim] = xr.Variable(dim, np.array(names, dtype=object), attrs)
    return coords
