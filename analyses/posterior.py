r"""Among how many training points a sampling path still chooses, and when it has chosen.

Along the path :math:`y_\sigma` of a sample the weights of the empirical denoiser,
:math:`w_i \propto \exp(-|y_\sigma - a_i|^2/2\sigma^2)`, are the posterior of the training points;
:math:`n_{eff} = \exp(-\sum_i w_i \ln w_i)` of them share it. The choice has fallen at the noise
level from which on the most probable point, the nearest :math:`a_i` to :math:`y_\sigma`, is the
nearest one to the final sample (the last change of the nearest point, arXiv:2402.18491). The
theory's levels for the same points stand beside it (`analyses.collapse`).
"""

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.collapse import collapse_sigma, collapse_sigma_gaussian, speciation_sigma
from analyses.estimates import mean_se
from analyses.labels import Label, dataset, stack, suffixed, tagged
from analyses.nearest import Sameness, near_training, nearest_two
from analyses.specimen import Specimen, Subset

__all__ = ["decided", "measure", "reference"]

LABELS = {
    "n_eff_path": Label(
        "training points that share the posterior at states of the denoiser's own paths, exp of "
        "the entropy, mean over samples",
        ("sigma",),
    ),
    "decision_sigma_median": Label("median of decision_sigma", units="pixel"),
}
RAW = {
    "decision_sigma": Label(
        "largest listed noise level from which on the nearest training point of the path is that "
        "of its end; 0 if it still changes below the smallest",
        ("sample",),
        "pixel",
    ),
}
THEORY = {
    "speciation_sigma": Label(
        "speciation: root of the largest eigenvalue of the training points minus 1", units="pixel"
    ),
    "collapse_sigma": Label(
        "collapse: where a training point outweighs all others in the posterior, from the points",
        units="pixel",
    ),
    "collapse_sigma_gaussian": Label(
        "collapse of a Gaussian with the spectrum of the training points", units="pixel"
    ),
}


def decided(
    nearest: Int[Tensor, "k n"], final: Int[Tensor, " n"], falling: Float[Tensor, " k"]
) -> Float[Tensor, " n"]:
    """The largest of the `falling` noise levels from which on `nearest` stays equal to `final`.

    0 where the two still differ at the last level.

    >>> nearest = torch.tensor([[0, 2, 1], [1, 2, 2], [1, 2, 1]])
    >>> decided(nearest, torch.tensor([1, 2, 3]), torch.tensor([9.0, 3.0, 1.0]))
    tensor([3., 9., 0.])
    """
    # 1 from the smallest level up to the last change, read from the end.
    same = (nearest == final).flip(0).long().cumprod(0).sum(0)
    levels = torch.cat([falling.new_zeros(1), falling.flip(0)])
    return levels[same]


def measure(specimen: Specimen) -> xr.Dataset:
    """Entropy of the posterior and moment of the decision along the paths of all samples."""
    return dataset(specimen.sigmas, _values(specimen), LABELS | RAW)


def reference(subset: Subset) -> xr.Dataset:
    """The theory's levels, and the same numbers of D_M, which decides on every path."""
    own = _values(Specimen.of_oracle(subset, "empirical"))
    own.pop("decision_sigma")
    labels = suffixed(LABELS, "empirical", "of the empirical oracle") | THEORY
    return dataset(subset.sigmas, tagged(own, "empirical") | _theory(subset), labels)


def _distinct(subset: Subset) -> Float[Tensor, "k d"]:
    """The training points without duplicates, which would change places as the nearest."""
    return near_training(subset, Sameness()).points


def _theory(subset: Subset) -> dict[str, Tensor]:
    spectrum, points = subset.moments.eigenvalues, _distinct(subset)
    levels = {
        "speciation_sigma": speciation_sigma(spectrum),
        "collapse_sigma": collapse_sigma(points, subset.stream("probe", "collapse")),
        "collapse_sigma_gaussian": collapse_sigma_gaussian(spectrum, len(points)),
    }
    return {name: torch.tensor(level, dtype=torch.float64) for name, level in levels.items()}


def _values(specimen: Specimen) -> dict[str, Tensor]:
    path = specimen.path()
    points = _distinct(specimen)
    cells = []
    for sigma in specimen.sigmas:
        effective = specimen.empirical.n_eff(path.at[sigma], sigma)
        mean, se = mean_se(effective, len(effective))
        cells.append({"n_eff_path": mean, "n_eff_path_se": se})
    falling = sorted(specimen.sigmas, reverse=True)
    nearest = torch.stack([nearest_two(path.at[sigma], points).index for sigma in falling])
    final = nearest_two(path.samples, points).index
    decision = decided(nearest, final, torch.tensor(falling, dtype=torch.float64))
    return stack(cells) | {
        "decision_sigma": decision,
        "decision_sigma_median": decision.quantile(0.5),
    }
