r"""How many samples of a denoiser are copies of a training point.

A sample x with distances :math:`d_1 \le d_2` to its two nearest *distinct* training points is
memorized if :math:`r = d_1/d_2 < c`, c = 1/3 on distances, not on their squares (arXiv:2310.02664,
2505.17638). Beside the memorized share stand its Wilson interval, the threshold-free
:math:`\int_0^1 P(r < c) dc = 1 - E r`, and the generalization score :math:`E|x - a_1|/|x|`
(arXiv:2410.24060 eq 14). The same for held-out images and for samples of the Gaussian denoiser is
the null: what a sampler that has copied nothing would show.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.estimates import mean_se
from analyses.labels import Label, dataset, suffixed, tagged
from analyses.sampler import SIGMA_MAX
from analyses.specimen import Specimen, Subset
from analyses.statistics import wilson

__all__ = ["Nearest", "distinct", "measure", "nearest_two", "reference"]

ROWS = 2**24
SHARE = {
    "memorized_fraction": Label("share of samples with a nearest_ratio below {threshold:.4g}"),
    "memorized_fraction_low": Label("memorized_fraction, lower end of the 95% Wilson interval"),
    "memorized_fraction_high": Label("memorized_fraction, upper end of the 95% Wilson interval"),
}
RAW = {
    "nearest_ratio": Label("nearest over second nearest distance to the training points"),
    "nearest_distance": Label("distance to the nearest training point", (), "pixel"),
    "second_distance": Label("distance to the second nearest training point", (), "pixel"),
    "nearest_index": Label("nearest training point, in the order of training"),
}
AUC = {"memorization_auc": Label("1 - mean of nearest_ratio")}
SCORE = {"generalization_score": Label("|x - nearest| / |x|, mean over samples")}


class Nearest(NamedTuple):
    """The two nearest points of each row, exact to rounding."""

    first: Float[Tensor, " n"]
    second: Float[Tensor, " n"]
    index: Int[Tensor, " n"]


def distinct(points: Float[Tensor, "n d"]) -> Int[Tensor, " k"]:
    """Increasing indices of the first occurrence of each exactly distinct row.

    >>> distinct(torch.tensor([[1.0], [2.0], [1.0]]))
    tensor([0, 1])
    """
    _, first = np.unique(points.numpy(), axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


def nearest_two(x: Float[Tensor, "n d"], points: Float[Tensor, "k d"]) -> Nearest:
    """Distances to the two nearest of `points`, and the index of the nearest."""
    if len(points) < 2:
        raise ValueError(f"nearest_two: needs at least 2 distinct points, got {len(points)}.")
    energy = points.square().sum(1)
    parts = []
    for rows in x.split(max(1, ROWS // len(points))):
        # |x|^2 is left out: it moves no neighbour. The two candidates are then measured again by
        # their difference, because this form would put a copy at 1e-7 instead of 0.
        near = torch.topk(energy - 2 * rows @ points.T, 2, largest=False).indices
        distance = (rows[:, None] - points[near]).norm(dim=2)
        distance, swap = distance.sort(dim=1, stable=True)
        parts.append(Nearest(*distance.T, near.gather(1, swap)[:, 0]))
    return Nearest(*(torch.cat(part) for part in zip(*parts, strict=True)))


def measure(specimen: Specimen, *, threshold: float = 1 / 3) -> xr.Dataset:
    """Memorization of samples of the denoiser; `threshold` is c."""
    _check(threshold)
    x = specimen.samples()
    near = _nearest(specimen, x)
    values = _share(near, threshold) | _auc(near) | _raw(near)
    score, se = mean_se(near.first / x.norm(dim=1), len(x))
    values |= {"generalization_score": score, "generalization_score_se": se}
    labels = _share_labels(threshold) | AUC | SCORE | _along("sample")
    return dataset(specimen.sigmas, values, labels)


def reference(subset: Subset, *, threshold: float = 1 / 3) -> xr.Dataset:
    """The nulls: held-out images, and the exact flow of D_G from the common latents."""
    _check(threshold)
    near = _nearest(subset, subset.heldout)
    latents = subset.latents(subset.sampler.samples)
    drawn = subset.gaussian.flow(SIGMA_MAX * latents, SIGMA_MAX, 0.0)
    surrogate = _share(_nearest(subset, drawn), threshold)
    values = tagged(_share(near, threshold) | _auc(near) | _raw(near), "null")
    values |= tagged(surrogate, "null_gaussian")
    share = _share_labels(threshold)
    labels = suffixed(share | AUC | _along("image"), "null", "of held-out images")
    labels |= suffixed(share, "null_gaussian", "of samples of the Gaussian denoiser")
    return dataset(subset.sigmas, values, labels)


def _nearest(subset: Subset, x: Float[Tensor, "n d"]) -> Nearest:
    """The nearest distinct training points: next to its own duplicate a copy would have r = 1."""
    kept = subset.shared(("distinct",), lambda: distinct(subset.train))
    near = nearest_two(x, subset.train[kept])
    return near._replace(index=kept[near.index])


def _share(near: Nearest, threshold: float) -> dict[str, Tensor]:
    """Memorized share of the rows, with its Wilson interval."""
    n = len(near.first)
    k = int((near.first / near.second < threshold).sum())
    low, high = wilson(k, n)
    values = {"": k / n, "_low": float(low), "_high": float(high)}
    return {
        f"memorized_fraction{end}": torch.tensor(value, dtype=torch.float64)
        for end, value in values.items()
    }


def _auc(near: Nearest) -> dict[str, Tensor]:
    """The integral over thresholds in (0, 1) of the memorized share: 1 - mean(r)."""
    mean, se = mean_se(near.first / near.second, len(near.first))
    return {"memorization_auc": 1 - mean, "memorization_auc_se": se}


def _raw(near: Nearest) -> dict[str, Tensor]:
    """By row, so that any threshold can be applied later."""
    return {
        "nearest_ratio": (near.first / near.second).float(),
        "nearest_distance": near.first.float(),
        "second_distance": near.second.float(),
        "nearest_index": near.index.int(),
    }


def _share_labels(threshold: float) -> dict[str, Label]:
    """`SHARE` with the threshold that was used."""
    return {
        name: replace(label, long_name=label.long_name.format(threshold=threshold))
        for name, label in SHARE.items()
    }


def _along(dim: str) -> dict[str, Label]:
    return {name: replace(label, dims=(dim,)) for name, label in RAW.items()}


def _check(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"memorization: `threshold` must be in (0, 1), got {threshold}.")
