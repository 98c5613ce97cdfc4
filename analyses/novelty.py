r"""Memorized, spurious or novel: what each sample is nearest to (arXiv:2505.21777).

A sample is *memorized* if its nearest training point is within :math:`\delta_m`, else *spurious*
if another sample is within :math:`\delta_s` (an attractor that is not in the training set), else
*novel*. Both thresholds come from real images, which are neither: :math:`\delta_m` is the q
quantile of the distance of held-out images to their nearest training point, :math:`\delta_s` that
of the distance to their nearest other held-out image. The nearest of many is nearer than the
nearest of few, so both sides count among equally many: a row's others are the k - 1 rows that
follow it cyclically, with k the smaller one of the numbers of samples and of held-out images.
The labels of the held-out images themselves are the null: about q of them are memorized and about
q spurious, by construction.
"""

from dataclasses import replace

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.estimates import named_share
from analyses.labels import Label, dataset, suffixed, tagged
from analyses.nearest import Sameness, near_heldout, near_samples, near_surrogate
from analyses.specimen import Specimen, Subset

__all__ = ["label", "measure", "nearest_other", "reference"]

ROWS = 2**24
NAMES = ("memorized_label_fraction", "spurious_fraction", "novel_fraction")
"""In the order of the labels 0, 1, 2."""
FRACTIONS = {
    "memorized_label_fraction": Label("share of samples near a training point"),
    "spurious_fraction": Label("share of samples near another sample and near no training point"),
    "novel_fraction": Label("share of samples near neither a training point nor another sample"),
}
FRACTIONS |= {
    f"{name}_{end}": Label(f"{name}, {side} end of the 95% Wilson interval")
    for name in NAMES
    for end, side in (("low", "lower"), ("high", "upper"))
}
RAW = {"novelty_label": Label("0 memorized, 1 spurious, 2 novel", ("sample",))}
THRESHOLDS = {
    "label_distance_train": Label(
        "largest distance to a training point of a memorized sample: {quantile:.4g} quantile of "
        "the distance of held-out images to their nearest training point",
        units="pixel",
    ),
    "label_distance_samples": Label(
        "largest distance to another sample of a spurious sample: {quantile:.4g} quantile of the "
        "distance of held-out images to the nearest of label_set_size - 1 others",
        units="pixel",
    ),
    "label_set_size": Label("samples, or held-out images, among which the nearest is sought"),
}


def nearest_other(x: Float[Tensor, "n d"], size: int) -> Float[Tensor, " n"]:
    """Distance of each row to the nearest of the `size` - 1 rows that follow it, cyclically.

    ValueError unless 2 <= size <= n.

    >>> nearest_other(torch.tensor([[0.0], [1.0], [5.0]]), 2)
    tensor([1., 4., 5.])
    """
    n = len(x)
    if not 2 <= size <= n:
        raise ValueError(f"nearest_other: `size` must be in 2..{n}, got {size}.")
    energy, columns = x.square().sum(1), torch.arange(n)
    parts = []
    for at in columns.split(max(1, ROWS // n)):
        far = energy - 2 * x[at] @ x.T
        ahead = (columns - at[:, None]).remainder(n)
        far.masked_fill_((ahead == 0) | (ahead >= size), torch.inf)
        parts.append((x[at] - x[far.argmin(1)]).norm(dim=1))
    return torch.cat(parts)


def label(
    to_train: Float[Tensor, " n"],
    to_others: Float[Tensor, " n"],
    near_train: float,
    near_others: float,
) -> Int[Tensor, " n"]:
    """0 (memorized), 1 (spurious) or 2 (novel) from distances and thresholds, ends included.

    >>> label(torch.tensor([1.0, 3.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]), 1.0, 2.0)
    tensor([0, 1, 2])
    """
    others = torch.where(to_others <= near_others, 1, 2)
    return torch.where(to_train <= near_train, 0, others)


def measure(specimen: Specimen, *, quantile: float = 0.01, flips: bool = False) -> xr.Dataset:
    """Labels of the samples; `quantile` is q, `flips` adds mirrored training points."""
    thresholds = _thresholds(specimen, quantile, flips)
    near = near_samples(specimen, Sameness(flips=flips))
    labels = _labels(specimen.samples(), near.first, thresholds)
    values = _fractions(labels) | {"novelty_label": labels.float()}
    return dataset(specimen.sigmas, values, FRACTIONS | RAW)


def reference(subset: Subset, *, quantile: float = 0.01, flips: bool = False) -> xr.Dataset:
    """The thresholds, and the labels of held-out images and of samples of D_G."""
    thresholds = _thresholds(subset, quantile, flips)
    same = Sameness(flips=flips)
    heldout = _labels(subset.heldout, near_heldout(subset, same).first, thresholds)
    drawn = _labels(subset.surrogate, near_surrogate(subset, same).first, thresholds)
    values = tagged(_fractions(heldout), "null") | tagged(_fractions(drawn), "null_gaussian")
    labels = suffixed(FRACTIONS, "null", "of held-out images")
    labels |= suffixed(FRACTIONS, "null_gaussian", "of samples of the Gaussian denoiser")
    labels |= {
        name: replace(known, long_name=known.long_name.format(quantile=quantile))
        for name, known in THRESHOLDS.items()
    }
    return dataset(subset.sigmas, values | thresholds, labels)


def _thresholds(subset: Subset, quantile: float, flips: bool) -> dict[str, Tensor]:
    """The two distances and the set size, once per subset."""
    if not 0 < quantile < 1:
        raise ValueError(f"novelty: `quantile` must be in (0, 1), got {quantile}.")
    size = min(subset.sampler.samples, len(subset.heldout))

    def build() -> dict[str, Tensor]:
        to_train = near_heldout(subset, Sameness(flips=flips)).first
        return {
            "label_distance_train": to_train.quantile(quantile),
            "label_distance_samples": nearest_other(subset.heldout, size).quantile(quantile),
            "label_set_size": torch.tensor(size, dtype=torch.int32),
        }

    key = ("novelty", size, quantile, flips, tuple(subset.shape))
    return subset.shared(key, build)


def _labels(
    x: Float[Tensor, "n d"], to_train: Float[Tensor, " n"], thresholds: dict[str, Tensor]
) -> Int[Tensor, " n"]:
    near_train, near_others, size = thresholds.values()
    to_others = nearest_other(x, int(size))
    return label(to_train, to_others, float(near_train), float(near_others))


def _fractions(labels: Int[Tensor, " n"]) -> dict[str, Tensor]:
    """Share of each label, with its Wilson interval."""
    values: dict[str, Tensor] = {}
    for i, name in enumerate(NAMES):
        values |= named_share(name, int((labels == i).sum()), len(labels))
    return values
