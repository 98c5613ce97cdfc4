"""Checks of a linear net trained by gradient descent against its closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.laws.check import Result, above, below, equal
from analyses.laws.closed_form import descend, descended, flowed
from analyses.laws.draws import normal, skewed_points, stream
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser

__all__ = ["descent", "flow", "linear_net"]


def descent() -> Result:
    """T13: gradient descent of a linear net is its closed form."""
    points, start = skewed_points(40, 6, 0), normal(stream(1), 6, 6)
    moments, steps = Moments.of_points(points), (1, 10, 300)
    found = descend(points, 0.5, start, 0.05, steps)
    return Result(
        tuple(
            below(
                f"relative error after {step} steps",
                _distance(weight, descended(moments, 0.5, start, 0.05, step)),
                1e-10,
            )
            for step, weight in zip(steps, found, strict=True)
        )
    )


def flow() -> Result:
    """T14: small steps follow the gradient flow, with an error of the order of the step."""
    points, start = skewed_points(40, 6, 0), normal(stream(1), 6, 6)
    exact = flowed(Moments.of_points(points), 0.5, start, 1.0)
    errors = [
        _distance(descend(points, 0.5, start, 1 / steps, (steps,))[0], exact)
        for steps in (200, 400, 800)
    ]
    return Result(
        tuple(
            equal(
                f"fall of the error as the step {name} is halved",
                errors[i] / errors[i + 1],
                2,
                0.1,
            )
            for i, name in enumerate(("1/200", "1/400"))
        )
    )


def linear_net() -> Result:
    """L5: trained to the end, a linear net is D_G; with fewer points than pixels, too."""
    points, start = skewed_points(5, 8, 0), torch.zeros(8, 8, dtype=torch.float64)
    moments, steps = Moments.of_points(points), (100, 2000)
    found = descend(points, 0.7, start, 0.05, steps)
    numbers = [
        below(
            f"relative error to the closed form after {step} steps",
            _distance(weight, descended(moments, 0.7, start, 0.05, step)),
            1e-10,
        )
        for step, weight in zip(steps, found, strict=True)
    ]
    end = GaussianDenoiser(moments).weight(0.7)
    numbers.append(below("relative distance to W_G at the end", _distance(found[-1], end), 1e-10))
    numbers.append(
        above(
            "the same after 10 steps",
            _distance(descend(points, 0.7, start, 0.05, (10,))[0], end),
            0.1,
        )
    )
    return Result(tuple(numbers))


def _distance(a: Float[Tensor, "d d"], b: Float[Tensor, "d d"]) -> float:
    """|a - b| / |b|, Frobenius."""
    return float((a - b).norm() / b.norm())
