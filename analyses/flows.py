r"""Distance between the map from noise to images of a denoiser and those of the oracles.

:math:`\Phi_D(z)` is the sample of D from the latent z. The *probability flow distance* to a
reference R is :math:`\sqrt{E_z|\Phi_D(z) - \Phi_R(z)|^2}` (arXiv:2505.20123), a norm over all
pixels; to the empirical denoiser it is the memorization error :math:`E_{mem}`. All flows have one
sampler and the same latents: ten Euler steps alone shrink a sample by 14 to 37 %, which between
samplers would be counted as distance. Beside it stand two per-sample agreements of x with r:
:math:`R^2 = 1 - |x-r|^2/|x-\bar x|^2` and the cosine of :math:`x-\bar x` and :math:`r-\bar r`,
where the bar is the mean pixel of each image (cf. arXiv:2412.20292, where the latter is called
r2).
"""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import mean_se, root_mean_se, with_se
from analyses.labels import FLOWS, Label, dataset, stack, suffixed, tagged
from analyses.specimen import Specimen, Subset

__all__ = ["agreement", "centred_cosine", "measure", "reference"]

DIMS = ("flow_reference",)
LABELS = {
    "flow_distance": Label(
        "root of the mean squared norm of the difference of samples from equal latents",
        DIMS,
        "pixel",
    ),
    "flow_cosine": Label(
        "cosine of samples from equal latents, each less its mean pixel, mean over samples", DIMS
    ),
    "flow_r2": Label("1 - |x - r|^2 / |x - mean pixel of x|^2, mean over samples", DIMS),
}
RAW = {
    "flow_distance_sample": Label(
        "norm of the difference of the two samples from one latent", (*DIMS, "sample"), "pixel"
    )
}
SOLVER = {
    "flow_solver_error": Label(
        "error per pixel of the sampler on the Gaussian denoiser, whose flow is known exactly, "
        "root of the mean square",
        units="pixel",
    )
}
BRACKETS = ("gaussian", "empirical")


def centred_cosine(a: Float[Tensor, "s d"], b: Float[Tensor, "s d"]) -> Float[Tensor, " s"]:
    """Cosine by row after removing each row's mean, in [-1, 1]; NaN where a row is constant."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1)


def agreement(x: Float[Tensor, "n d"], r: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, ""]]:
    """The three numbers, with standard errors, of samples `x` and `r` from equal latents.

    An image without contrast has no cosine and no R2 and is left out of their means.
    """
    squared = (x - r).square().sum(1)
    cosine, energy = centred_cosine(x, r), (x - x.mean(1, keepdim=True)).square().sum(1)
    n = len(x)
    values = {
        "flow_distance": root_mean_se(squared, n),
        "flow_cosine": mean_se(cosine, n, ~cosine.isnan()),
        "flow_r2": mean_se(1 - squared / energy, n, energy > 0),
    }
    return with_se(values)


def measure(specimen: Specimen) -> xr.Dataset:
    """Agreement of all samples of the denoiser with those of each oracle, and raw distances."""
    x = specimen.samples()
    apart = [(x - _samples(specimen, name)).norm(dim=1).float() for name in FLOWS]
    values = _against_all(x, specimen) | {"flow_distance_sample": torch.stack(apart)}
    return dataset(specimen.sigmas, values, LABELS | RAW)


def reference(subset: Subset) -> xr.Dataset:
    """The same numbers of D_G and of D_M in the denoiser's place, and the sampler's own error."""
    values, labels = {}, dict(SOLVER)
    for name in BRACKETS:
        values |= tagged(_against_all(_samples(subset, name), subset), name)
        labels |= suffixed(LABELS, name, f"of the {name} oracle")
    squares = (_samples(subset, "gaussian") - subset.surrogate).square().mean(1)
    error, se = root_mean_se(squares, len(squares))
    values |= {"flow_solver_error": error, "flow_solver_error_se": se}
    return dataset(subset.sigmas, values, labels)


def _samples(subset: Subset, name: str) -> Float[Tensor, "n d"]:
    """Samples of an oracle from the common latents, once per process and subset."""
    return Specimen.of_oracle(subset, name).samples()


def _against_all(x: Float[Tensor, "n d"], subset: Subset) -> dict[str, Tensor]:
    return stack([agreement(x, _samples(subset, name)) for name in FLOWS])
