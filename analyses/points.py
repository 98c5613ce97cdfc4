r"""Which training points are copied, and whether isolated ones are copied first.

The hits of training point i are the memorized samples whose nearest point it is. Beside them stand
its distance to the nearest distinct training point and its local coverage :math:`\sum_{j \ne i}
\exp(-|a_i-a_j|^2/2s^2)` (arXiv:2606.14390). That sparse points are memorized first is the area
under the curve, P(a point with a hit is more isolated than one without); but the second neighbour
of an isolated point is far, so the same distance to it gives a smaller ratio.
"""

from dataclasses import replace

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.labels import Label, dataset
from analyses.nearest import Nearest, Sameness, near_samples, near_training, nearest_two
from analyses.specimen import Specimen, Subset

__all__ = ["auc", "coverage", "measure", "reference"]

ROWS = 2**24
HITS = {
    "point_hits": Label(
        "samples with this nearest training point and a nearest_ratio below {threshold:.4g}",
        ("point",),
    ),
    "point_nearest_hits": Label("samples with this nearest training point", ("point",)),
    "point_hits_auc": Label(
        "probability that a distinct training point with a hit has a larger "
        "point_nearest_distance than one without (Mann-Whitney); NaN where all or none has one"
    ),
    "point_hits_auc_se": Label("standard error of: point_hits_auc (Hanley-McNeil)"),
}
PLACE = {
    "point_coverage": Label(
        "sum over the other training points of exp(-distance^2 / (2 point_coverage_scale^2))",
        ("point",),
    ),
    "point_nearest_distance": Label(
        "distance of a training point to the nearest distinct one", ("point",), "pixel"
    ),
    "point_coverage_scale": Label("length s of point_coverage", units="pixel"),
}


def auc(
    x: Float[Tensor, " n"], positive: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""P(x of a positive > x of a negative), ties one half, and its standard error.

    With :math:`Q_1 = A/(2-A)`, :math:`Q_2 = 2A^2/(1+A)`: :math:`se^2 = \frac{A(1-A) +
    (n_1-1)(Q_1-A^2) + (n_0-1)(Q_2-A^2)}{n_1 n_0}` (J. A. Hanley, B. J. McNeil, Radiology 143
    (1982) 29). It is 0 at A = 0 and 1, where it says nothing. NaN where one side is empty.

    >>> auc(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([False, True, False, True]))[0]
    tensor(0.7500)
    """
    ones, zeros = x[positive], x[~positive].sort().values
    n, m = len(ones), len(zeros)
    below = torch.searchsorted(zeros, ones).sum()
    upto = torch.searchsorted(zeros, ones, right=True).sum()
    area = (below + upto).to(x.dtype) / (2 * n * m if n * m else torch.nan)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n - 1) * (first - area**2) + (m - 1) * (second - area**2)
    return area, (spread.clamp(min=0) / max(n * m, 1)).sqrt()


def coverage(points: Float[Tensor, "n d"], scale: float) -> Float[Tensor, " n"]:
    r""":math:`\sum_{j \ne i} \exp(-|a_i-a_j|^2/2s^2)` of each point, in [0, n - 1].

    >>> coverage(torch.tensor([[0.0], [2.0], [2.0]]), 1.0)
    tensor([0.2707, 1.1353, 1.1353])
    """
    rows = points.split(max(1, ROWS // len(points)))
    weights = (torch.exp(-(torch.cdist(part, points) ** 2) / (2 * scale**2)) for part in rows)
    return torch.cat([weight.sum(1) for weight in weights]) - 1


def measure(
    specimen: Specimen,
    *,
    threshold: float = 1 / 3,
    scale: float = 0.0,
    same_distance: float = 0.0,
    same_correlation: float = 1.0,
    flips: bool = False,
) -> xr.Dataset:
    """Hits of each training point in the order of training, of equal ones on the first.

    `threshold` and `Sameness` are those of the memorized share; `scale` is s.
    """
    _check(threshold, scale)
    same = Sameness(same_distance, same_correlation, flips)
    near, n = near_samples(specimen, same), len(specimen.train)
    memorized = near.index[near.first / near.second < threshold]
    hits = memorized.bincount(minlength=n)
    _, group, index = near_training(specimen, same)
    # Points that count as one are one point here, hit if any of them is.
    by_group = torch.zeros(n, dtype=torch.int64)
    by_group[index] = group
    hit = torch.zeros(n, dtype=torch.int64).index_add(0, by_group, hits)
    first = group.unique()
    area, error = auc(_isolation(specimen, same).second[first], hit[first] > 0)
    values = {
        "point_hits": hits.float(),
        "point_nearest_hits": near.index.bincount(minlength=n).float(),
        "point_hits_auc": area,
        "point_hits_auc_se": error,
    }
    name = "point_hits"
    title = HITS[name].long_name.format(threshold=threshold)
    labels = HITS | {name: replace(HITS[name], long_name=title)}
    return dataset(specimen.sigmas, values, labels)


def reference(
    subset: Subset,
    *,
    threshold: float = 1 / 3,
    scale: float = 0.0,
    same_distance: float = 0.0,
    same_correlation: float = 1.0,
    flips: bool = False,
) -> xr.Dataset:
    """Where each training point lies among the others; `scale` 0 is the median nearest distance
    of the distinct points. Coverage counts the training points as they are, duplicates too."""
    _check(threshold, scale)
    same = Sameness(same_distance, same_correlation, flips)
    isolation = _isolation(subset, same).second
    first = near_training(subset, same).group.unique()
    length = scale or float(isolation[first].quantile(0.5))
    values = {
        "point_coverage": coverage(subset.train, length).float(),
        "point_nearest_distance": isolation.float(),
        "point_coverage_scale": torch.tensor(length, dtype=torch.float64),
    }
    return dataset(subset.sigmas, values, PLACE)


def _isolation(subset: Subset, same: Sameness) -> Nearest:
    """The nearest neighbours of the training points: the first is the point itself, at 0."""
    key = ("isolation", tuple(subset.shape), same)
    points, group, _ = near_training(subset, same)
    return subset.shared(key, lambda: nearest_two(subset.train, points, group))


def _check(threshold: float, scale: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"points: `threshold` must be in (0, 1), got {threshold}.")
    if scale < 0:
        raise ValueError(f"points: `scale` must be at least 0, got {scale}.")
