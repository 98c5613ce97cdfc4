r"""The local dimension of the images, as a denoiser sees it at clean points.

At a clean point x, :math:`\mathrm{LID} = \mathrm{tr} J + |D(x;\sigma) - x|^2 / \sigma^2` with J =
dD/dy. For the posterior mean of a law whose density at noise sigma is p this is d plus the
derivative of ln p(x) by ln sigma: the number of directions in which the law extends further than
sigma around x. As sigma -> 0 it tends to m on m-dimensional data and to 0 at a point that is
remembered for itself; away from everything the law knows it grows like 1/sigma^2
(arXiv:2406.03537, arXiv:2411.00113).

It is taken at the images themselves, without noise, at `points` training and held-out points each.
The trace is exact where d <= `full`, else Hutchinson's with `probes` probes at each point.
"""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.differential import PRODUCT, posterior_variance, signs, trace
from analyses.estimates import named_mean
from analyses.evaluations import Rows, Size
from analyses.labels import Label, by_law, dataset, stack, suffixed, tagged
from analyses.specimen import Specimen, Subset

__all__ = ["dimension", "measure", "reference", "rows"]

LAWS = ("train", "heldout")
"""The laws that have clean points."""
LABELS = {
    "lid": Label(
        "local intrinsic dimension at clean points, tr J + |D(x) - x|^2 / sigma^2, mean over "
        "points",
        ("sigma", "inputs"),
    )
}


def dimension(
    x: Float[Tensor, "n d"], out: Float[Tensor, "n d"], traces: Float[Tensor, " n"], sigma: float
) -> Float[Tensor, " n"]:
    """tr J(x) + |D(x) - x|^2 / sigma^2, row by row; at least 0 for a posterior mean."""
    return traces + (out - x).square().sum(1) / sigma**2


def rows(size: Size, *, points: int = 16, probes: int = 16, full: int = 256) -> Rows:
    """Evaluations of D: `PRODUCT` for each product with J, none of them shared."""
    products = len(LAWS) * points * (size.dim if size.dim <= full else probes)
    return {"lid": size.levels * PRODUCT * products}


def measure(
    specimen: Specimen, *, points: int = 16, probes: int = 16, full: int = 256
) -> xr.Dataset:
    """LID of the denoiser at the first `points` training and held-out points (or all of them)."""
    cells = []
    for sigma in specimen.sigmas:

        def of_law(law: str, sigma: float = sigma) -> dict[str, Tensor]:
            x, v = _points(specimen, law, points), None
            if specimen.dim > full:
                generator = specimen.stream("probe", "lid", law, sigma.hex())
                v = signs(generator, len(x) * _positive(probes), specimen.dim)
            out, traces = trace(specimen.linearize, x, sigma, v)
            at = x[torch.arange(len(out)) % len(x)]
            return named_mean("lid", dimension(at, out, traces, sigma), len(x))

        cells.append(by_law(LAWS, of_law))
    return dataset(specimen.sigmas, stack(cells), LABELS)


def reference(
    subset: Subset, *, points: int = 16, probes: int = 16, full: int = 256
) -> xr.Dataset:
    """LID of D_G and of D_M at the same points, in closed form.

    `probes` and `full` are accepted for symmetry with `measure`; nothing here depends on them.
    """
    cells = []
    for sigma in subset.sigmas:

        def of_law(law: str, sigma: float = sigma) -> dict[str, Tensor]:
            x = _points(subset, law, points)
            wiener, memory = subset.gaussian(x, sigma), subset.empirical(x, sigma)
            own = subset.gaussian.gains(sigma).sum().expand(len(x))
            spread = posterior_variance(subset.train, x, memory, sigma) / sigma**2
            affine = named_mean("lid", dimension(x, wiener, own, sigma), len(x))
            empirical = named_mean("lid", dimension(x, memory, spread, sigma), len(x))
            return tagged(affine, "gaussian") | tagged(empirical, "empirical")

        cells.append(by_law(LAWS, of_law))
    labels = suffixed(LABELS, "gaussian", "of the gaussian oracle") | suffixed(
        LABELS, "empirical", "of the empirical oracle"
    )
    return dataset(subset.sigmas, stack(cells), labels)


def _points(subset: Subset, law: str, points: int) -> Float[Tensor, "p d"]:
    if points < 2:
        raise ValueError(f"lid: `points` must be at least 2, got {points}.")
    return (subset.train if law == "train" else subset.heldout)[:points]


def _positive(probes: int) -> int:
    if probes < 1:
        raise ValueError(f"lid: `probes` must be at least 1, got {probes}.")
    return probes
