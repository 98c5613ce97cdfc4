r"""How many samples of a denoiser are copies of a training point.

A sample x with distances :math:`d_1 \le d_2` to its two nearest *distinct* training points is
memorized if :math:`r = d_1/d_2 < c`, c = 1/3 on distances, not on their squares (arXiv:2310.02664,
2505.17638). Beside the memorized share stand its Wilson interval, the threshold-free
:math:`\int_0^1 P(r < c) dc = 1 - E r`, and the generalization score :math:`E|x - a_1|/|x|`
(arXiv:2410.24060 eq 14). The same for held-out images and for samples of the Gaussian denoiser is
the null: what a sampler that has copied nothing would show. Between few training points a second
neighbour is so far that interpolation counts as copying, so the share is to be read as its excess
over the larger of both nulls; fewer than 8 distinct points are flagged.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import ends, mean_se, named_mean, named_share
from analyses.labels import Label, dataset, suffixed, tagged
from analyses.nearest import (
    Nearest,
    Sameness,
    distinct,
    near_heldout,
    near_samples,
    near_surrogate,
    near_training,
    nearest_two,
)
from analyses.specimen import Specimen, Subset
from analyses.statistics import wilson

__all__ = [
    "Nearest",
    "distinct",
    "ks_smaller",
    "measure",
    "nearest_two",
    "newcombe",
    "reference",
]

SMALL_N = 8
"""Distinct training points below which interpolation between them counts as copying."""
SHARE = {
    "memorized_fraction": Label("share of samples with a nearest_ratio below {threshold:.4g}"),
    "memorized_fraction_low": Label("memorized_fraction, lower end of the 95% Wilson interval"),
    "memorized_fraction_high": Label("memorized_fraction, upper end of the 95% Wilson interval"),
}
EXCESS = {
    "memorized_excess": Label(
        "memorized_fraction minus that of held-out images or of samples of the Gaussian denoiser, "
        "whichever leaves less"
    ),
    "memorized_excess_low": Label(
        "memorized_excess, lower end: the lower one of the 95% Newcombe intervals of both "
        "differences"
    ),
    "memorized_excess_high": Label(
        "memorized_excess, upper end: the lower one of the 95% Newcombe intervals of both "
        "differences"
    ),
}
AGAINST = {
    "memorization_auc_excess": Label("memorization_auc minus that of held-out images"),
    "nearest_ratio_ks": Label(
        "one-sided Kolmogorov-Smirnov distance of nearest_ratio: largest excess of its "
        "distribution function over that of held-out images, 0 if it is nowhere smaller"
    ),
    "nearest_ratio_ks_pvalue": Label("large-sample p-value of nearest_ratio_ks"),
    "nearest_distance_ratio": Label(
        "median distance to the nearest training point of samples over that of held-out images"
    ),
}
RAW = {
    "nearest_ratio": Label("nearest over second nearest distance to the training points"),
    "nearest_distance": Label("distance to the nearest training point", (), "pixel"),
    "second_distance": Label("distance to the second nearest training point", (), "pixel"),
    "nearest_index": Label("nearest training point, in the order of training"),
}
AUC = {"memorization_auc": Label("1 - mean of nearest_ratio")}
SCORE = {"generalization_score": Label("|x - nearest| / |x|, mean over samples")}
SIZE = {
    "n_distinct": Label("training points that count as distinct"),
    "small_n_flag": Label(f"1 where n_distinct is below {SMALL_N}, else 0"),
}


def newcombe(k: int, n: int, k0: int, n0: int) -> tuple[float, float, float]:
    r"""Difference of two independent shares, k/n - k0/n0, and its 95% interval: (d, low, high).

    From the Wilson intervals [l, u] of both: :math:`d - \sqrt{(p-l)^2 + (u_0-p_0)^2}` and
    :math:`d + \sqrt{(u-p)^2 + (p_0-l_0)^2}`. R. G. Newcombe, Stat. Med. 17 (1998) 873, method 10.

    >>> [round(end, 4) for end in newcombe(56, 70, 48, 80)]
    [0.2, 0.0524, 0.3339]
    """
    (low, low0), (high, high0) = wilson([k, k0], [n, n0])
    p, p0 = k / n, k0 / n0
    down = ((p - low) ** 2 + (high0 - p0) ** 2) ** 0.5
    up = ((high - p) ** 2 + (p0 - low0) ** 2) ** 0.5
    return p - p0, float(p - p0 - down), float(p - p0 + up)


def ks_smaller(
    x: Float[Tensor, " n"], null: Float[Tensor, " m"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Two-sample Kolmogorov-Smirnov test of "`x` is smaller than `null`": (statistic, p-value).

    :math:`D^+ = \max_t (F_x(t) - F_0(t))` in [0, 1] and its limit law
    :math:`p = \exp(-2 \frac{nm}{n+m} (D^+)^2)`, which exceeds the exact p-value a little.
    """
    n, m = len(x), len(null)
    at = torch.cat([x, null])
    below = [torch.searchsorted(v.sort().values, at, right=True) / len(v) for v in (x, null)]
    top = (below[0] - below[1]).max().to(x.dtype)
    return top, torch.exp(-2 * n * m / (n + m) * top**2)


def measure(
    specimen: Specimen,
    *,
    threshold: float = 1 / 3,
    same_distance: float = 0.0,
    same_correlation: float = 1.0,
    flips: bool = False,
) -> xr.Dataset:
    """Memorization of samples of the denoiser; `threshold` is c, the others are `Sameness`."""
    _check(threshold)
    same = Sameness(same_distance, same_correlation, flips)
    x, near = specimen.samples(), near_samples(specimen, same)
    heldout, drawn = near_heldout(specimen, same), near_surrogate(specimen, same)
    values = _share(near, threshold) | _auc(near) | _raw(near) | _score(near, x)
    values |= _excess(near, (heldout, drawn), threshold) | _against(near, heldout)
    labels = _share_labels(threshold) | EXCESS | AGAINST | AUC | SCORE | _along("sample")
    return dataset(specimen.sigmas, values, labels)


def reference(
    subset: Subset,
    *,
    threshold: float = 1 / 3,
    same_distance: float = 0.0,
    same_correlation: float = 1.0,
    flips: bool = False,
) -> xr.Dataset:
    """The nulls: held-out images, and the exact flow of D_G from the common latents."""
    _check(threshold)
    same = Sameness(same_distance, same_correlation, flips)
    near, drawn = near_heldout(subset, same), near_surrogate(subset, same)
    own = _share(near, threshold) | _auc(near) | _raw(near) | _score(near, subset.heldout)
    values = tagged(own, "null") | tagged(_share(drawn, threshold), "null_gaussian")
    count = len(near_training(subset, same).group.unique())
    values |= {"n_distinct": torch.tensor(count), "small_n_flag": torch.tensor(count < SMALL_N)}
    share = _share_labels(threshold)
    labels = suffixed(share | AUC | SCORE | _along("image"), "null", "of held-out images")
    labels |= suffixed(share, "null_gaussian", "of samples of the Gaussian denoiser")
    values = {name: v.int() if name in SIZE else v for name, v in values.items()}
    return dataset(subset.sigmas, values, labels | SIZE)


def _count(near: Nearest, threshold: float) -> tuple[int, int]:
    """Memorized rows, and all of them."""
    return int((near.first / near.second < threshold).sum()), len(near.first)


def _share(near: Nearest, threshold: float) -> dict[str, Tensor]:
    """Memorized share of the rows, with its Wilson interval."""
    return named_share("memorized_fraction", *_count(near, threshold))


def _excess(near: Nearest, nulls: Sequence[Nearest], threshold: float) -> dict[str, Tensor]:
    """Memorized share minus the null's, of both nulls the smaller difference; so its ends.

    The samples and those of D_G begin at common latents. Where that makes both shares rise and
    fall together, the interval, which takes them as independent, is too wide and not too narrow.
    """
    own = _count(near, threshold)
    found = [newcombe(*own, *_count(null, threshold)) for null in nulls]
    return ends("memorized_excess", *map(min, zip(*found, strict=True)))


def _against(near: Nearest, null: Nearest) -> dict[str, Tensor]:
    """What compares the samples' distances with those of the held-out images."""
    own, other = _auc(near), _auc(null)
    errors = [values["memorization_auc_se"] for values in (own, other)]
    ks, pvalue = ks_smaller(near.first / near.second, null.first / null.second)
    median, median_null = near.first.quantile(0.5), null.first.quantile(0.5)
    return {
        "memorization_auc_excess": own["memorization_auc"] - other["memorization_auc"],
        "memorization_auc_excess_se": torch.stack(errors).norm(),
        "nearest_ratio_ks": ks,
        "nearest_ratio_ks_pvalue": pvalue,
        "nearest_distance_ratio": median / median_null,
    }


def _auc(near: Nearest) -> dict[str, Tensor]:
    """The integral over thresholds in (0, 1) of the memorized share: 1 - mean(r)."""
    mean, se = mean_se(near.first / near.second, len(near.first))
    return {"memorization_auc": 1 - mean, "memorization_auc_se": se}


def _score(near: Nearest, x: Float[Tensor, "n d"]) -> dict[str, Tensor]:
    return named_mean("generalization_score", near.first / x.norm(dim=1), len(x))


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
