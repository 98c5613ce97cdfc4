"""Checks of the closed-form denoisers: limits, rank, Jacobians, blocks of points."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.laws.check import Number, Result, above, below, equal
from analyses.laws.draws import jacobians, normal, skewed_points, stream
from analyses.linear_fit import weights
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser
from analyses.weight import Whole

__all__ = [
    "blocks", "empirical_limits", "gaussian_limits", "posterior_jacobians", "rank", "weight",
]  # fmt: skip

D, N = 6, 40


def gaussian_limits() -> Result:
    """T1: where D_G leads at the mean, without noise and under huge noise."""
    y = skewed_points(15, D, 7)
    full, few = (Moments.of_points(skewed_points(n, D, 0)) for n in (N, 4))
    projected = few.mean + (y - few.mean) @ few.basis @ few.basis.T
    pairs = {
        "D_G(mu) - mu": (GaussianDenoiser(full)(full.mean[None], 0.5), full.mean[None]),
        "D_G - identity at sigma 1e-8, full rank": (GaussianDenoiser(full)(y, 1e-8), y),
        "D_G - projection at sigma 1e-8, N < d": (GaussianDenoiser(few)(y, 1e-8), projected),
        "D_G - mu at sigma 1e8": (GaussianDenoiser(full)(y, 1e8), full.mean.expand_as(y)),
    }
    return Result(tuple(below(name, _gap(*pair), 1e-12) for name, pair in pairs.items()))


def empirical_limits() -> Result:
    """T2: where D_M leads; under growing noise it nears D_G at second order, so one moment more
    than the mean must be that of the points."""
    points, y = skewed_points(N, D, 0), skewed_points(15, D, 7)
    oracle, filtered = EmpiricalDenoiser(points), GaussianDenoiser(Moments.of_points(points))
    nearest = points[torch.cdist(y, points).argmin(1)]
    noise = normal(stream(3), 15, D)
    far = [_gap(oracle(s * noise, s), filtered(s * noise, s)) for s in (1e3, 1e4)]
    return Result(
        (
            below("D_M - nearest point at sigma 1e-4", _gap(oracle(y, 1e-4), nearest), 1e-12),
            below("D_M(a_i) - a_i at sigma 0.01", _gap(oracle(points, 0.01), points), 1e-12),
            below(
                "D_M - mu at sigma 1e8",
                _gap(oracle(y, 1e8), points.mean(0).expand_as(y)),
                1e-12,
            ),
            equal("fall of |D_M - D_G| from sigma 1e3 to 1e4", far[0] / far[1], 100, 5.0),
        )
    )


def rank() -> Result:
    """T11: few points span few directions, and that is the floor of the distance to D_G."""
    points, y = skewed_points(N, D, 0), skewed_points(15, D, 7)
    ranks = [
        equal(f"rank of {n} points in 12 dimensions", _rank(n), n - 1) for n in (2, 5, 11, 12)
    ]
    few = Moments.of_points(points[:4])
    missing = (y - few.mean) @ (torch.eye(D, dtype=torch.float64) - few.basis @ few.basis.T)
    floor = missing.norm(dim=1).mean() / D**0.5
    found = (y - GaussianDenoiser(few)(y, 1e-9)).norm(dim=1).mean() / D**0.5
    return Result((*ranks, equal("distance of the identity to D_G", found, floor, 1e-12)))


def weight() -> Result:
    """T12: the singular values of W_G are its gains, and W = 0 lies at distance 1 from it."""
    moments = Moments.of_points(skewed_points(N, D, 0))
    oracle = GaussianDenoiser(moments)
    wiener = oracle.weight(0.5)
    gains = moments.eigenvalues / (moments.eigenvalues + 0.25)
    nothing = torch.zeros_like(wiener)
    distance = weights(Whole(nothing), nothing.sum(), oracle, 0.5, 2)["weight_distance"]
    return Result(
        (
            below("singular values - gains", _gap(torch.linalg.svdvals(wiener), gains), 1e-12),
            equal("weight distance of W = 0", distance, 1, 1e-12),
        )
    )


def posterior_jacobians() -> Result:
    """T20: the Jacobian of a posterior mean is Cov[x|y]/sigma^2; SURE needs no clean image."""
    points, sigma = skewed_points(N, D, 0), 0.5
    memory, filtered = EmpiricalDenoiser(points), GaussianDenoiser(Moments.of_points(points))
    y = points[:20] + sigma * normal(stream(5), 20, D)
    of_memory, of_filter = jacobians(memory, y, sigma), jacobians(filtered, y, sigma)
    w = torch.softmax(-torch.cdist(y, points).square() / (2 * sigma**2), 1)
    second = torch.einsum("ni,ij,ik->njk", w, points, points)
    mean = w @ points
    covariance = (second - mean[:, :, None] * mean[:, None]) / sigma**2
    return Result(
        (
            below("asymmetry of dD_M/dy", _gap(of_memory, of_memory.mT), 1e-10),
            above("least eigenvalue of dD_M/dy", torch.linalg.eigvalsh(of_memory).min(), -1e-10),
            below("dD_M/dy - Cov[x|y]/sigma^2", _gap(of_memory, covariance), 1e-10),
            below(
                "dD_G/dy - W_G", _gap(of_filter, filtered.weight(sigma).expand(20, D, D)), 1e-10
            ),
            _sure(points, memory, 1.0),
        )
    )


def blocks() -> Result:
    """T26: D_M by an online log-sum-exp over blocks is D_M; a mean of softmaxes is not."""
    points, y, sigma = skewed_points(N, D, 0), skewed_points(15, D, 7), 0.3
    one_shot = torch.softmax(-torch.cdist(y, points).square() / (2 * sigma**2), 1) @ points
    halves = [
        torch.softmax(-torch.cdist(y, half).square() / (2 * sigma**2), 1) @ half
        for half in points.chunk(2)
    ]
    return Result(
        (
            *(
                below(
                    f"blocks of {block} - one shot",
                    _gap(EmpiricalDenoiser(points, block)(y, sigma), one_shot),
                    1e-12,
                )
                for block in (1, 7, 20, 39)
            ),
            above("mean of two softmaxes - one shot", _gap(sum(halves) / 2, one_shot), 0.1),
        )
    )


def _sure(points: Float[Tensor, "n d"], oracle: EmpiricalDenoiser, sigma: float) -> Number:
    """E|D-y|^2 + 2 sigma^2 E tr J - d sigma^2 over E|D-x|^2, within five standard errors."""
    x = points.repeat(500, 1)
    y = x + sigma * normal(stream(6), *x.shape)
    out = oracle(y, sigma)
    trace = jacobians(oracle, y, sigma).diagonal(dim1=1, dim2=2).sum(1)
    error = (out - x).square().sum(1)
    sure = (out - y).square().sum(1) + sigma**2 * (2 * trace - points.shape[1])
    se = (sure - error).std() / len(x) ** 0.5 / error.mean()
    return equal("SURE over squared error", sure.mean() / error.mean(), 1, 5 * float(se))


def _rank(n: int) -> int:
    return Moments.of_points(skewed_points(n, 12, 0)).rank


def _gap(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Largest absolute difference."""
    return (a - b).abs().max()
