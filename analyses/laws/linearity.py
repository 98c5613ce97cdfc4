"""Checks of the affine fit and of the linearity scores on denoisers whose answers are known."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.affine import affine_fit, design
from analyses.laws.check import Number, Result, above, below, equal
from analyses.laws.draws import Denoiser, normal, skewed_points, stream
from analyses.linearity import Pairs, cosine, linearity, mixes
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser

__all__ = ["bias_alone", "fit_of_a_filter", "fit_of_a_memory", "scores"]

D = 6


def fit_of_a_filter() -> Result:
    """T3: the affine fit of D_G is D_G, on any inputs that span the space."""
    oracle = GaussianDenoiser(Moments.of_points(skewed_points(40, D, 0)))
    inputs = {"held-out points": skewed_points(30, D, 7), "pure noise": normal(stream(1), 30, D)}
    numbers = []
    for law, y in inputs.items():
        out = oracle(y, 0.5)
        fit = affine_fit(design(y[None], len(y)), y[None], out[None])
        gap = (fit.weight.matrix - oracle.weight(0.5)).abs().max()
        numbers.append(below(f"W_L - W_G on {law}", gap, 1e-11))
        numbers.append(below(f"fit - D_G on {law}", (fit.predicted - out).abs().max(), 1e-11))
    return Result(tuple(numbers))


def fit_of_a_memory() -> Result:
    """T4: on its own training law the affine fit of D_M is W_G too, though D_M is not linear.

    In one dimension the fit is an integral, exact to rounding; in six it has a Monte Carlo error.
    """
    points, other = skewed_points(30, D, 0), skewed_points(30, D, 7)
    numbers = [_exact_fit()]
    for sigma in (0.3, 0.8):
        own = _weight_distance(points, points, sigma)
        numbers.append(below(f"|W_L - W_G|/|W_G|, training law, sigma {sigma}", own, 0.01))
    elsewhere = _weight_distance(points, other, 0.3)
    numbers.append(above("|W_L - W_G|/|W_G|, held-out inputs, sigma 0.3", elsewhere, 0.1))
    y = points + 0.3 * normal(stream(9), *points.shape)
    raw = _scores(EmpiricalDenoiser(points), y, points.mean(0), 0.3)["linearity_cosine_centred"]
    return Result((*numbers, below("LS_c of D_M, sigma 0.3", raw, 0.95)))


def scores() -> Result:
    """T5: which linearity scores are 1, for which denoisers."""
    points, y = skewed_points(40, D, 0), 2 * skewed_points(30, D, 7)
    moments, matrix = Moments.of_points(points), normal(stream(2), D, D)
    oracle, mu = GaussianDenoiser(moments), moments.mean
    affine = lambda y, sigma: y @ matrix + 3.0  # noqa: E731
    one, two = y.chunk(2)
    half = (oracle(one, 0.5) + oracle(two, 0.5)) / 2
    own = _scores(oracle, y, mu, 0.5)
    far = 1e6 * normal(stream(4), 30, D)
    values = {
        "LS_c of an affine map": _scores(affine, y, mu, 0.5)["linearity_cosine_centred"],
        "LS_c of D_G": own["linearity_cosine_centred"],
        "LS_mu of D_G": own["linearity_cosine_mean"],
        "raw LS of D_G, weights that add up to 1": cosine(
            oracle((one + two) / 2, 0.5), half
        ).mean(),
        "raw LS of D_G at sigma 1e6": _scores(oracle, far, mu, 1e6)["linearity_cosine"],
    }
    tolerance = {"raw LS of D_G at sigma 1e6": 1e-9}
    return Result(
        (
            *(equal(name, value, 1, tolerance.get(name, 1e-12)) for name, value in values.items()),
            below("raw LS of D_G at sigma 0.5: its bias shows", own["linearity_cosine"], 0.999),
        )
    )


def bias_alone() -> Result:
    """T6: at huge noise the raw normalised error of D_G is that of its bias, a pure number."""
    mean = torch.full((D,), 0.5, dtype=torch.float64)
    oracle = GaussianDenoiser(Moments.of_covariance(mean, torch.eye(D, dtype=torch.float64)))
    found = _scores(oracle, 1e6 * normal(stream(4), 100, D), mean, 1e6)
    mixed, output = found["linearity_nmse_mix"], found["linearity_nmse"]
    return Result(
        (
            equal("over the mix of outputs", mixed, 1 - 0.5**0.5, 1e-4),
            equal("over the output of the mix", output, 2**0.5 - 1, 1e-4),
        )
    )


def _scores(
    denoiser: Denoiser, y: Float[Tensor, "m d"], mu: Float[Tensor, " d"], sigma: float
) -> dict[str, Tensor]:
    """Linearity scores on the pairs (first half, second half) of `y`."""
    one, two = y.chunk(2)
    pairs = Pairs(one, two, denoiser(one, sigma), denoiser(two, sigma), len(one))
    mixed = denoiser(mixes(one, two, mu), sigma)
    return linearity(pairs, mixed, denoiser(mu[None], sigma)[0], mu)[0]


def _weight_distance(
    points: Float[Tensor, "n d"], inputs: Float[Tensor, "m d"], sigma: float, draws: int = 2000
) -> Float[Tensor, ""]:
    """Of the affine fit of D_M to W_G, with noisy `inputs`."""
    y = inputs + sigma * normal(stream(8), draws, *inputs.shape)
    out = EmpiricalDenoiser(points)(y.flatten(0, 1), sigma).view_as(y)
    oracle = GaussianDenoiser(Moments.of_points(points))
    fitted = affine_fit(design(y, len(inputs)), y, out).weight
    return fitted.distance(oracle, sigma) / oracle.weight(sigma).norm()


def _exact_fit(sigma: float = 0.4) -> Number:
    """Cov(D_M, y) / Var y under the density of y, by the trapezoidal rule, against W_G."""
    points = torch.tensor([[-1.3], [-0.2], [0.1], [0.9], [2.0]], dtype=torch.float64)
    y = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    density = (-((y - points.T) ** 2) / (2 * sigma**2)).exp().sum(1)
    density = density / density.sum()
    out, y = EmpiricalDenoiser(points)(y, sigma)[:, 0], y[:, 0]
    centred = y - density @ y
    slope = (density * centred) @ out / ((density * centred) @ y)
    wiener = GaussianDenoiser(Moments.of_points(points)).weight(sigma)[0, 0]
    return below("W_L - W_G in one dimension", (slope - wiener).abs(), 1e-12)
