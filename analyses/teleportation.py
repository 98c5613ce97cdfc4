r"""How much of the sampling a Gaussian does: samples that start at a lower noise level.

At large noise every denoiser is close to the Gaussian :math:`D_G`, whose flow is known exactly
(`GaussianDenoiser.flow`), so the sampler may jump from :math:`\sigma_{max} z` to
:math:`\sigma_{skip}` without an evaluation and go on from there (analytic teleportation,
arXiv:2412.09726). The error is the distance to the sampler's own sample from the same latent.
What it cannot fall below is the error that the sampler itself makes above :math:`\sigma_{skip}`,
which is all of it for :math:`D_G`.
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import root_mean_se
from analyses.evaluations import Rows, Size, of_samples
from analyses.labels import Label, dataset, stack
from analyses.sampler import SIGMA_MAX, Sampler, edm_grid, states
from analyses.specimen import Specimen

__all__ = ["measure", "positions", "rows", "teleport"]

DIMS = ("skip_sigma",)
LABELS = {
    "teleport_rmse": Label(
        "distance per pixel of samples started at skip_sigma to those started at the top, root "
        "of the mean square",
        DIMS,
        "pixel",
    ),
    "teleport_evaluations_saved": Label("denoiser evaluations saved for each sample", DIMS),
}


def positions(steps: int, skips: int) -> list[int]:
    """Up to `skips` positions of a grid of `steps` levels, evenly from the second to the last.

    >>> positions(18, 6), positions(4, 6)
    ([1, 4, 7, 11, 14, 17], [1, 2, 3])
    """
    if skips < 1:
        raise ValueError(f"teleportation: `skips` must be at least 1, got {skips}.")
    return sorted({round(position) for position in np.linspace(1, steps - 1, skips).tolist()})


def teleport(specimen: Specimen, z: Float[Tensor, "n d"], position: int) -> Float[Tensor, "n d"]:
    """Samples from latents `z`: the exact flow of D_G down to the level at `position` of the
    sampler's grid, then the sampler."""
    grid = edm_grid(specimen.sampler.steps)[position:]
    y = specimen.gaussian.flow(SIGMA_MAX * z, SIGMA_MAX, grid[0])
    *_, last = states(specimen.apply, y, grid, specimen.sampler.solver)
    return last.out


def rows(size: Size, *, skips: int = 6, samples: int = 64) -> Rows:
    """Evaluations: the samples, and what is left of the sampler below each skip level."""
    sampler = size.sampler
    left = [sampler.evaluations - _saved(sampler, p) for p in positions(sampler.steps, skips)]
    return of_samples(size) | {"teleports": min(samples, sampler.samples) * sum(left)}


def measure(specimen: Specimen, *, skips: int = 6, samples: int = 64) -> xr.Dataset:
    """Error and saving at `skips` levels of the sampler's grid, over its first `samples`."""
    if samples < 2:
        raise ValueError(f"teleportation: `samples` must be at least 2, got {samples}.")
    sampler = specimen.sampler
    full = specimen.samples()[:samples]
    z = specimen.latents(len(full))
    at = positions(sampler.steps, skips)
    cells = []
    for position in at:
        squares = (teleport(specimen, z, position) - full).square().mean(1)
        rmse, se = root_mean_se(squares, len(full))
        cells.append(
            {
                "teleport_rmse": rmse,
                "teleport_rmse_se": se,
                "teleport_evaluations_saved": torch.tensor(
                    _saved(sampler, position), dtype=torch.int32
                ),
            }
        )
    grid = edm_grid(sampler.steps)
    attrs = {"long_name": "noise level at which the sampler starts", "units": "pixel"}
    skip_sigma = xr.Variable(DIMS, [grid[position] for position in at], attrs)
    values: dict[str, Tensor] = stack(cells)
    return dataset(specimen.sigmas, values, LABELS).assign_coords(skip_sigma=skip_sigma)


def _saved(sampler: Sampler, position: int) -> int:
    """Evaluations of one sample above the level at `position`."""
    return position * (2 if sampler.solver == "heun" else 1)
