r"""Means and ratios of means over images, with standard errors that know which images repeat.

Training inputs repeat the N training points when N is smaller than the number of inputs; repeats
of one image are not independent, so errors come from the sums over each distinct point.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.statistics import wilson

__all__ = [
    "by_point",
    "ends",
    "mean_se",
    "named_mean",
    "named_share",
    "ratio_se",
    "root_mean_se",
    "with_se",
]


def by_point(values: Float[Tensor, "... n"], points: int) -> Float[Tensor, "... p"]:
    """Sum of `values` over the inputs that show point i mod `points`; "... points"."""
    n = values.shape[-1]
    if points >= n:
        return values
    whole = n - n % points
    sums = values[..., :whole].unflatten(-1, (-1, points)).sum(-2)
    sums[..., : n - whole] += values[..., whole:]
    return sums


def ratio_se(
    numerator: Float[Tensor, "... n"], denominator: Float[Tensor, "... n"], points: int
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    r"""Ratio of sums :math:`R = \sum a_i / \sum b_i` and its standard error by the delta method.

    :math:`se^2 = \frac{G}{G-1} \sum_g (\sum_{i \in g} (a_i - R b_i))^2 / (\sum b_i)^2` with one
    group g for each of the G distinct points (those with any b). NaN where that is 0/0.
    """
    total = denominator.sum(-1)
    ratio = numerator.sum(-1) / total
    spread = by_point(numerator - ratio[..., None] * denominator, points)
    groups = (by_point(denominator.abs(), points) > 0).sum(-1)
    return ratio, (groups / (groups - 1) * (spread * spread).sum(-1)).sqrt() / total.abs()


def mean_se(
    values: Float[Tensor, "... n"], points: int, keep: Bool[Tensor, "... n"] | None = None
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean over the inputs that `keep` marks (all by default) and its standard error."""
    kept = torch.ones_like(values) if keep is None else keep.to(values.dtype)
    return ratio_se(torch.where(kept > 0, values, 0.0), kept, points)


def root_mean_se(
    squares: Float[Tensor, "... n"], points: int
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    r"""Root of the mean, :math:`\sqrt{\bar q}`, and its standard error
    :math:`se(\bar q) / 2\sqrt{\bar q}` by the delta method; (0, 0) where all squares are 0.

    >>> root, se = root_mean_se(torch.tensor([3.0, 5.0]), 2)
    >>> float(root), float(se)
    (2.0, 0.25)
    """
    mean, se = mean_se(squares, points)
    root = mean.sqrt()
    return root, torch.where(root > 0, se / (2 * root), torch.zeros_like(se))


def named_mean(
    name: str,
    values: Float[Tensor, "... n"],
    points: int,
    keep: Bool[Tensor, "... n"] | None = None,
) -> dict[str, Float[Tensor, "..."]]:
    """`mean_se` as variables: `<name>` and `<name>_se`."""
    return with_se({name: mean_se(values, points, keep)})


def with_se(
    estimates: Mapping[str, tuple[Float[Tensor, "..."], Float[Tensor, "..."]]],
) -> dict[str, Float[Tensor, "..."]]:
    """Estimates and their standard errors as variables: all `<name>`, then all `<name>_se`."""
    found = {name: value for name, (value, _) in estimates.items()}
    return found | {f"{name}_se": se for name, (_, se) in estimates.items()}


def named_share(name: str, k: int, n: int) -> dict[str, Float[Tensor, ""]]:
    """A share k / n with its Wilson interval as variables; NaN if n is 0."""
    return ends(name, k / n if n else float("nan"), *map(float, wilson(k, n)))


def ends(name: str, value: float, low: float, high: float) -> dict[str, Float[Tensor, ""]]:
    """An estimate with its interval as variables: `<name>`, `<name>_low`, `<name>_high`."""
    found = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: torch.tensor(number, dtype=torch.float64) for key, number in found.items()}
