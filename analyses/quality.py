r"""How far samples are from new images of the data set, beside how far real images are.

Between two sets of n images each: the *sliced Wasserstein* distance
:math:`(E_\theta W_2^2(\theta^T X, \theta^T Y))^{1/2}` over random directions :math:`|\theta| = 1`,
where :math:`W_2^2` of one dimension is the mean squared difference of sorted projections, and the
*Frechet distance* :math:`|\mu_X-\mu_Y|^2 + tr(\Sigma_X + \Sigma_Y - 2 (\Sigma_X^{1/2} \Sigma_Y
\Sigma_X^{1/2})^{1/2})` in the leading principal coordinates of the pool (a named feature space, in
the place of Inception's; arXiv:1706.08500).

Both are biased upwards by finite n. So the samples are compared with either half of the held-out
images, at that half's size, and the *floor* is what the two halves of real images give each other.
"""

from collections.abc import Callable

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.labels import Label, dataset, suffixed, tagged
from analyses.specimen import Specimen, Subset

__all__ = ["frechet", "measure", "reference", "sliced_wasserstein"]

SPLITS = 20
"""Random halvings of the held-out images behind the floors."""
LABELS = {
    "sliced_wasserstein": Label(
        "sliced 2-Wasserstein distance of samples to held-out images, mean over halvings",
        (),
        "pixel",
    ),
    "frechet_pca": Label(
        "Frechet distance (squared) of samples to held-out images in {features} principal"
        " coordinates of the pool, mean over halvings",
        (),
        "pixel2",
    ),
}


def sliced_wasserstein(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], directions: Float[Tensor, "k d"]
) -> Float[Tensor, ""]:
    """Root of the mean over `directions` (unit rows) of the squared one-dimensional W2."""
    a, b = ((points @ directions.T).sort(dim=0).values for points in (x, y))
    return (a - b).square().mean().sqrt()


def frechet(x: Float[Tensor, "n q"], y: Float[Tensor, "m q"]) -> Float[Tensor, ""]:
    """Squared Frechet distance of the Gaussians with the moments of `x` and of `y`."""
    (mx, cx), (my, cy) = ((p.mean(0), torch.cov(p.T, correction=0)) for p in (x, y))
    values, vectors = torch.linalg.eigh(cx)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cy @ root).clamp(min=0).sqrt().sum()
    return (mx - my).square().sum() + cx.trace() + cy.trace() - 2 * cross


def measure(specimen: Specimen, *, directions: int = 128, features: int = 16) -> xr.Dataset:
    """Distances of the samples to held-out images; `_se` is over halvings and parts of samples."""
    found = _distances(specimen, specimen.samples(), directions, features)
    return dataset(specimen.sigmas, found, _labels(features))


def reference(subset: Subset, *, directions: int = 128, features: int = 16) -> xr.Dataset:
    """The floors, real images to real ones, and the distances of the Gaussian samples."""
    compare = _comparisons(subset, directions, features)
    floors: dict[str, list[Tensor]] = {name: [] for name in compare}
    for one, other in _halvings(subset):
        for name, distance in compare.items():
            floors[name].append(distance(subset.heldout[one], subset.heldout[other]))
    values, labels = {}, suffixed(_labels(features), "floor", "of real images to each other")
    for name, each in floors.items():
        values[f"{name}_floor"] = torch.stack(each).mean()
        values[f"{name}_floor_sd"] = torch.stack(each).std()
        floor = labels[f"{name}_floor"]
        labels[f"{name}_floor_sd"] = Label(
            f"standard deviation over halvings of: {floor.long_name}", (), floor.units
        )
    drawn = _distances(subset, subset.surrogate, directions, features)
    values |= tagged(drawn, "gaussian")
    labels |= suffixed(_labels(features), "gaussian", "of samples of the Gaussian denoiser")
    return dataset(subset.sigmas, values, labels)


def _distances(
    subset: Subset, x: Float[Tensor, "s d"], directions: int, features: int
) -> dict[str, Tensor]:
    """Mean distance of parts of `x` to halves of the held-out images, sizes equal, and its error.

    The parts of one halving are disjoint, so that the spread between them shows what drawing
    other samples and other held-out images would change.
    """
    compare = _comparisons(subset, directions, features)
    found: dict[str, list[Tensor]] = {name: [] for name in compare}
    for k, halves in enumerate(_halvings(subset)):
        n = min(len(halves[0]), len(x) // 2)
        order = torch.randperm(len(x), generator=subset.stream("probe", "parts", k))
        for part, half in zip(order[: 2 * n].split(n), halves, strict=True):
            for name, distance in compare.items():
                found[name].append(distance(x[part], subset.heldout[half[:n]]))
    values = {}
    for name, each in found.items():
        pairs = torch.stack(each).view(-1, 2)
        values[name] = pairs.mean()
        # Var of a mean of two independent halves; halvings of the same points add nothing to it.
        spread = (pairs[:, 0] - pairs[:, 1]).square().mean() / 4
        values[f"{name}_se"] = spread.sqrt()
    return values


def _halvings(subset: Subset) -> list[tuple[Tensor, Tensor]]:
    """Disjoint halves of the held-out images, the same for every cell."""
    half = subset.n_inputs // 2
    orders = (
        torch.randperm(subset.n_inputs, generator=subset.stream("probe", "halving", k))
        for k in range(SPLITS)
    )
    return [(order[:half], order[half : 2 * half]) for order in orders]


def _comparisons(
    subset: Subset, directions: int, features: int
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    if directions < 1 or features < 1:
        raise ValueError(
            f"quality: `directions` and `features` must be at least 1, got {directions} and"
            f" {features}."
        )

    def build() -> Tensor:
        rows = [
            torch.randn(
                subset.dim, generator=subset.stream("probe", "direction", i), dtype=torch.float64
            )
            for i in range(directions)
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    theta = subset.shared(("directions", directions), build)
    basis = subset.pool.basis[:, :features]
    return {
        "sliced_wasserstein": lambda x, y: sliced_wasserstein(x, y, theta),
        "frechet_pca": lambda x, y: frechet(x @ basis, y @ basis),
    }


def _labels(features: int) -> dict[str, Label]:
    return {
        name: Label(label.long_name.format(features=features), label.dims, label.units)
        for name, label in LABELS.items()
    }
