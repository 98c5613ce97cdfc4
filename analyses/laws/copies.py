"""Checks of the nearest-neighbour measures of memorization, on samples that are known copies."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.laws.check import Result, below, equal
from analyses.laws.draws import normal, skewed_points, stream
from analyses.nearest import distinct, nearest_two
from analyses.oracles import EmpiricalDenoiser
from analyses.sampler import sample

__all__ = ["duplicates", "scores_of_copies", "threshold_free"]


def scores_of_copies() -> Result:
    """T10: the generalization score E|x - a_1|/|x| of copies, and by hand."""
    points = skewed_points(40, 6, 0)
    drawn = sample(EmpiricalDenoiser(points), normal(stream(1), 50, 6))
    corners = torch.tensor([[3.0, 0.0], [30.0, 0.0]], dtype=torch.float64)
    by_hand = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    return Result(
        (
            equal("copies", _score(points[:20], points), 0),
            below("samples of D_M", _score(drawn, points), 1e-6),
            equal("(3, 4) next to (3, 0)", _score(by_hand, corners), 0.8, 1e-15),
        )
    )


def threshold_free() -> Result:
    """T18: the integral over thresholds of the memorized share is 1 - mean(r)."""
    ratio = _ratios(skewed_points(300, 6, 1), skewed_points(40, 6, 0)).sort().values
    thresholds = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    share = torch.searchsorted(ratio, thresholds).double() / len(ratio)
    return Result((equal("integral", torch.trapezoid(share, thresholds), 1 - ratio.mean(), 1e-4),))


def duplicates() -> Result:
    """T24: a copy of a duplicated point hides in r, unless duplicates are removed first."""
    points = skewed_points(256, 64, 0)
    copied = points[:200] + 0.05 * normal(stream(2), 200, 64)
    twice = points.repeat(2, 1)
    return Result(
        (
            equal("memorized share, no duplicates", _share(copied, points), 1),
            equal("memorized share, every point twice", _share(copied, twice), 0),
            equal("the same, duplicates removed", _share(copied, twice[distinct(twice)]), 1),
        )
    )


def _score(x: Float[Tensor, "n d"], points: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    return (nearest_two(x, points).first / x.norm(dim=1)).mean()


def _ratios(x: Float[Tensor, "n d"], points: Float[Tensor, "k d"]) -> Float[Tensor, " n"]:
    near = nearest_two(x, points)
    return near.first / near.second


def _share(x: Float[Tensor, "n d"], points: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    """Share of rows with r < 1/3."""
    return (_ratios(x, points) < 1 / 3).double().mean()
