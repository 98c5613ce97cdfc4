r"""In which directions samples vary, and when in training each direction emerges.

:math:`v_k` is the variance of samples along the principal axis :math:`u_k` of the training points
(or of the pool). Over training, axis k emerges when :math:`v_k(\tau)` first crosses
:math:`\sqrt{v_k(0) v_k(\infty)}`, and :math:`\tau^*_k \propto \lambda_k^{-\alpha}`; for a linear
denoiser under gradient flow :math:`\alpha = 1` (arXiv:2503.03206).
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import mean_se
from analyses.labels import Label, dataset, suffixed, tagged
from analyses.moments import Moments
from analyses.onset import first_crossing
from analyses.regression import fit_power
from analyses.specimen import Specimen, Subset
from analyses.statistics import Array

__all__ = ["emergence", "emergence_exponent", "measure", "reference", "variance_along"]

LABELS = {
    "sample_variance": Label(
        "variance of samples along the principal axes of the training points, about their mean",
        ("mode",),
        "pixel2",
    ),
    "sample_variance_pool": Label(
        "variance of samples along the principal axes of the pool, about their mean",
        ("mode",),
        "pixel2",
    ),
    "sample_mean_distance": Label(
        "distance per pixel of the mean of samples to the mean of the training points",
        units="pixel",
    ),
    "sample_mean_noise": Label(
        "root of the expected squared distance per pixel of the mean of as many samples to the "
        "mean of their law",
        units="pixel",
    ),
    "sample_top_pc_overlap": Label(
        "mean squared cosine of the principal angles between the leading principal axes of "
        "samples and of training points"
    ),
    "subspace_variance": Label(
        "variance of samples in a subspace of the data, at most the data's along each of its "
        "directions, as a share of the data's",
        ("subspace",),
    ),
    "subspace_dim": Label("dimension of a subspace of the data", ("subspace",)),
}
BRACKETS = ("gaussian", "empirical")
FACTOR = 2.0
"""A mode that starts within this factor of its target has no emergence to date."""


def variance_along(
    x: Float[Tensor, "n d"], basis: Float[Tensor, "d r"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    r"""Variance, divisor n, along the r orthonormal columns, and its standard error.

    :math:`se^2 \approx (m_4 - v^2)/n` with the fourth moment :math:`m_4`, whatever the law of the
    samples; for a normal one it is :math:`\sqrt{2/(n-1)} v`. NaN beyond r.
    """
    along = ((x - x.mean(0)) @ basis).T
    variance, se = mean_se(along.square(), len(x))
    blank = x.new_full((x.shape[1] - basis.shape[1],), torch.nan)
    return torch.cat([variance, blank]), torch.cat([se, blank])


def emergence(
    times: Float[np.ndarray, " t"],
    variance: Float[np.ndarray, "t m"],
    target: Float[np.ndarray, " m"],
) -> tuple[Array, Array]:
    r"""Emergence time :math:`\tau^*_k` of each mode as an interval (low, high].

    `variance` at the increasing `times`, of which the first stands for time 0, and the variance
    `target` of each mode at the end, as :math:`v_k(\infty)`. high = inf where the crossing of
    :math:`\sqrt{v_k(0) v_k(\infty)}` is not reached; NaN for modes that start within a factor 2
    of their target or have no variance to start from.

    >>> low, high = emergence(np.arange(3.0), np.array([[1.0], [2.0], [11.0]]), np.array([100.0]))
    >>> float(low[0]), float(high[0])
    (1.0, 2.0)
    """
    if len(times) != len(variance) or np.any(np.diff(times) <= 0):
        raise ValueError(
            f"emergence: `times` must increase, one for each row of `variance`, got {len(times)} "
            f"for {len(variance)} rows."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        way = np.log(target) - np.log(variance[0])
        # 0 at the start, 1 at the target: modes that have to fall cross upwards as well.
        done = (np.log(variance) - np.log(variance[0])) / way
    moves = np.isfinite(way) & (np.abs(way) > np.log(FACTOR))
    return first_crossing(np.where(moves, done, np.nan).T, times, 0.5)


def emergence_exponent(
    lam: Float[np.ndarray, " m"], low: Float[np.ndarray, " m"], high: Float[np.ndarray, " m"]
) -> float:
    r""":math:`\alpha` of :math:`\tau^*_k \propto \lambda_k^{-\alpha}` from the intervals of
    `emergence`; NaN where fewer than two modes are bounded on both sides.

    >>> tau = np.array([1.0, 2.0, 4.0])
    >>> round(emergence_exponent(8 / tau, tau, tau), 6)
    1.0
    """
    known = (lam > 0) & ~np.isnan(low) & ~np.isnan(high)
    if not known.any():
        return float("nan")
    fit = fit_power(lam[known], low[known], high[known])
    return -float(fit.slope[0]) if fit.success[0] else float("nan")


def measure(specimen: Specimen, *, modes: int = 10) -> xr.Dataset:
    """Mean and variances of all samples; `modes` is the number of leading axes compared."""
    return dataset(specimen.sigmas, _values(specimen, modes), LABELS)


def reference(subset: Subset, *, modes: int = 10) -> xr.Dataset:
    """The same numbers of D_G and of D_M under the same sampler, from the same latents."""
    values, labels = {}, {}
    for name in BRACKETS:
        values |= tagged(_values(Specimen.of_oracle(subset, name), modes), name)
        labels |= suffixed(LABELS, name, f"of the {name} oracle")
    return dataset(subset.sigmas, values, labels)


def _values(specimen: Specimen, modes: int) -> dict[str, Tensor]:
    if modes < 1:
        raise ValueError(f"spectrum: `modes` must be at least 1, got {modes}.")
    x, moments = specimen.samples(), specimen.moments
    variance, se = variance_along(x, moments.basis)
    of_pool, of_pool_se = variance_along(x, specimen.pool.basis)
    distance, noise, distance_se = _shift(x, moments.mean)
    subspaces = _subspaces(x, specimen) if specimen.subspaces else {}
    return subspaces | {
        "sample_variance": variance,
        "sample_variance_se": se,
        "sample_variance_pool": of_pool,
        "sample_variance_pool_se": of_pool_se,
        "sample_mean_distance": distance,
        "sample_mean_distance_se": distance_se,
        "sample_mean_noise": noise,
        "sample_top_pc_overlap": _overlap(x, moments.basis[:, :modes]),
    }


def _subspaces(x: Float[Tensor, "n d"], subset: Subset) -> dict[str, Tensor]:
    r"""Share of its variance that samples have in each subspace :math:`U_k` of the data.

    :math:`\frac{1}{d_k}\sum_j \min(v_j / \lambda_k, 1)`, v_j the eigenvalues of the samples'
    covariance within the subspace and :math:`\lambda_k` the data's mean variance there. Copies of
    fewer than d_k points have eigenvalues 0: only a subspace that is learned whole has share 1.
    """
    shares = []
    for basis in subset.subspaces:
        within = Moments.of_points(x @ basis)
        along = (basis.T @ subset.pool.basis).square() @ subset.pool.eigenvalues
        of_data = along.sum() / basis.shape[1]
        shares.append((within.eigenvalues / of_data).clamp(max=1).sum() / basis.shape[1])
    dims = [float(basis.shape[1]) for basis in subset.subspaces]
    return {
        "subspace_variance": torch.stack(shares),
        "subspace_dim": torch.tensor(dims, dtype=torch.float64),
    }


def _shift(
    x: Float[Tensor, "n d"], mean: Float[Tensor, " d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Distance per pixel of the mean of `x` to `mean`, its noise floor and its standard error.

    The error is that along the shift, which is the first order of the norm's.
    """
    n, d = x.shape
    shift, centred = x.mean(0) - mean, x - x.mean(0)
    along = centred @ (shift / shift.norm().clamp(min=torch.finfo(x.dtype).tiny))
    variances = torch.stack([centred.square().sum(), along.square().sum()]) / (n - 1)
    noise, error = (variances / (n * d)).sqrt()
    return shift.norm() / d**0.5, noise, error


def _overlap(x: Float[Tensor, "n d"], basis: Float[Tensor, "d q"]) -> Float[Tensor, ""]:
    leading = Moments.of_points(x).basis[:, : basis.shape[1]]
    return (leading.T @ basis).square().sum() / basis.shape[1]
