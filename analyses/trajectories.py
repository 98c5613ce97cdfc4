r"""What a denoiser, its affine fit and the oracles say on the way from one latent to an image.

Each is followed by Euler steps of :math:`\frac{dy}{dt} = \frac{y - D(y;t)}{t}` over the listed
noise levels, largest first, from :math:`y = \sigma_T z`; the last step, to 0, returns the denoised
output itself. On the ten levels of EDM's grid, from 80, that is how arXiv:2410.24060 draws its
trajectories :math:`D(y_t;t)` (figures 2, 3 and 23). Ten such steps shrink every mode by 14 to
37 %, so compare these denoisers with each other, not with the samples of other analyses.
"""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import root_mean_se
from analyses.evaluations import Rows, Size, of_laws, of_samples
from analyses.labels import TRAJECTORIES, Label, dataset
from analyses.linear_fit import affine_map
from analyses.sampler import states
from analyses.specimen import Denoiser, Specimen

__all__ = ["follow", "measure", "rows"]

LABELS = {
    "trajectory": Label(
        "output of each denoiser at its own Euler state, CHW order",
        ("trajectory_denoiser", "sigma", "shown", "pixel"),
        "pixel",
    ),
    "trajectory_distance": Label(
        "distance per pixel of the ends of the trajectories to the network's, root of the mean "
        "square",
        ("trajectory_denoiser",),
        "pixel",
    ),
}


def follow(
    denoiser: Denoiser, z: Float[Tensor, "n d"], sigmas: Sequence[float]
) -> Float[Tensor, "k n d"]:
    """D(y; sigma) at each of `sigmas`, in their order, along Euler steps from latents `z`.

    Steps go from the largest to the smallest; the sample is the output at the smallest.
    """
    falling = sorted(sigmas, reverse=True)
    out = {state.sigma: state.out for state in states(denoiser, falling[0] * z, falling, "euler")}
    return torch.stack([out[sigma] for sigma in sigmas])


def rows(size: Size, *, shown: int = 4, samples: int = 128, draws: int = 16) -> Rows:
    """Evaluations: the inputs of the affine fits, the samples, and at most one Euler state of each
    of `samples` latents at every noise level (none where the sampler has been there)."""
    own = {"trajectories": size.levels * min(samples, size.sampler.samples)}
    return of_laws(size, ("heldout",), draws) | of_samples(size) | own


def measure(
    specimen: Specimen, *, shown: int = 4, samples: int = 128, draws: int = 16
) -> xr.Dataset:
    """Trajectories of the first `shown` latents and distances over the first `samples`.

    `samples` is at most the sampler's. The affine fits are those of `linear_fit` on the held-out
    law if `draws` is the same there.
    """
    if not 1 <= shown <= samples:
        raise ValueError(
            f"trajectories: needs 1 <= `shown` <= `samples`, got {shown} and {samples}."
        )
    z = specimen.latents(min(samples, specimen.sampler.samples))
    denoisers = {
        "network": _network(specimen),
        "linear": _linear(specimen, draws),
        "gaussian": specimen.gaussian,
        "empirical": specimen.empirical,
    }
    out = {name: _followed(specimen, name, denoiser, z) for name, denoiser in denoisers.items()}
    ends = torch.stack([out[name][_last(specimen)] for name in TRAJECTORIES])
    distance, se = root_mean_se((ends - ends[0]).square().mean(2), len(z))
    values = {
        "trajectory": torch.stack([out[name][:, :shown] for name in TRAJECTORIES]).float(),
        "trajectory_distance": distance,
        "trajectory_distance_se": se,
    }
    return dataset(specimen.sigmas, values, LABELS)


def _last(specimen: Specimen) -> int:
    """Position of the smallest noise level."""
    return specimen.sigmas.index(min(specimen.sigmas))


def _followed(
    specimen: Specimen, name: str, denoiser: Denoiser, z: Float[Tensor, "n d"]
) -> Float[Tensor, "k n d"]:
    """`follow`, of an oracle once per process and subset."""
    if name not in ("gaussian", "empirical"):
        return follow(denoiser, z, specimen.sigmas)
    key = ("trajectory", name, specimen.sigmas, len(z))
    return specimen.shared(key, lambda: follow(denoiser, z, specimen.sigmas))


def _network(specimen: Specimen) -> Denoiser:
    """The specimen's denoiser, which looks up the states that the sampler has visited too."""

    def denoise(y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        path = specimen.path()
        if sigma in path.out and torch.equal(path.at[sigma][: len(y)], y):
            return path.out[sigma][: len(y)]
        return specimen.apply(y, sigma)

    return denoise


def _linear(specimen: Specimen, draws: int) -> Denoiser:
    """D_L: the affine fit of each noise level."""

    def denoise(y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        weight, bias = affine_map(specimen, sigma, draws)
        return weight(y) + bias

    return denoise
