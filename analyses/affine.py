r"""Least-squares affine fit of outputs to noisy inputs, cross-fitted by image: the kernels.

Fitted is :math:`r = D(y) - y`, which is small where the normal equations are badly conditioned
(condition :math:`(\lambda_1 + \sigma^2)/\sigma^2`), by :math:`V = C_{ry} C_{yy}^+` in float64, and
:math:`W = I + V`. Where the inputs span less than all directions, the minimum-norm solution leaves
the identity in the others. What depends on the inputs alone, the design, serves every denoiser.

With more than `MOST` pixels the map is one of `analyses.weight.Leading`: the inputs are seen along
q leading directions, :math:`r = D(y) - g (I - QQ^T) y` with the gain g of least squares. In
expectation its R2 is a lower bound of that over all affine maps, which it reaches as q grows (out
of fold it may be the larger one: fewer numbers are fitted). And its W is no further from the best
one, :math:`W_*`, than the residual allows: with the best bias, :math:`E|D-Wy-b|^2 =
E|D-W_*y-b_*|^2 + \mathrm{tr}\,(W-W_*)C_{yy}(W-W_*)^T`, and where the noise is independent of the
images :math:`C_{yy} \ge \sigma^2 I`, so that :math:`|W-W_*|_F \le \sqrt{E|D-Wy-b|^2}/\sigma`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.moments import Moments
from analyses.weight import Leading, Weight, Whole

__all__ = ["MOST", "Design", "Fit", "affine_fit", "design", "directions", "distance_to_best"]

MOST = 1024
"""Most directions that are fitted: in d directions a fit takes some 5 d^3 operations at each noise
level, and several times d rows."""
ROWS_PER_DIRECTION = 4


class Normal(NamedTuple):
    """What the inputs of some groups of rows contribute to the normal equations."""

    groups: tuple[int, ...]
    n: int
    mean: Float[Tensor, " d"]
    inverse: Float[Tensor, "d d"]


class Rest(NamedTuple):
    """(I - Q Q^T) y beside the directions: what the fit of its gain needs of the inputs."""

    cross: list[Float[Tensor, "p e"]]
    """Its products with the rows of each group."""
    slope: Float[Tensor, "p e"]
    """Its affine fit along the directions, on all rows."""
    square: Float[Tensor, ""]
    """Sum of squares that this fit leaves; infinite where nothing is left, for a gain of 0."""


@dataclass(frozen=True)
class Design:
    """The side of the fit that depends on the noisy inputs alone, so that cells share it.

    Rows (draw k, input i) are sorted into groups, so that folds and batches are unions of groups.
    """

    order: Int[Tensor, " r"]
    """Row k m + i of each sorted row."""
    y: Float[Tensor, "r e"]
    """Sorted inputs minus their mean, and a last column of ones; e = d + 1."""
    centre: Float[Tensor, " d"]
    """That mean."""
    sizes: tuple[int, ...]
    """Rows of each group."""
    folds: tuple[Normal, Normal]
    """Disjoint images."""
    batches: tuple[Normal, Normal]
    """Independent halves, for the standard error of the weights."""
    everything: Normal
    """All rows."""
    basis: Float[Tensor, "p q"] | None = None
    """Q, where the inputs are seen along few directions; d is their number q then."""
    rest: Rest | None = None
    """What of the inputs lies off those directions."""


class Fit(NamedTuple):
    """One affine fit."""

    weight: Weight
    """W_L, from all rows."""
    bias: Float[Tensor, " d"]
    """b_L, from all rows."""
    weight_error: Float[Tensor, ""]
    """Frobenius norm of the Monte Carlo error of `weight`."""
    residual: Float[Tensor, " m"]
    """|D - fit|^2 / d of each input, out of fold, mean over draws."""
    variance: Float[Tensor, " m"]
    """|D - mean D|^2 / d of each input, mean over draws."""
    predicted: Float[Tensor, "m d"]
    """Out-of-fold fit at the inputs of draw 0."""


def directions(law: Moments, rows: int) -> Float[Tensor, "d q"] | None:
    """Leading directions of a law for a fit to `rows` rows; None where all are fitted."""
    if law.dim <= MOST:
        return None
    return law.basis[:, : max(1, min(MOST, rows // (2 * ROWS_PER_DIRECTION)))]


def design(
    y: Float[Tensor, "k m p"], n_points: int, basis: Float[Tensor, "p q"] | None = None
) -> Design:
    """Design of noisy inputs "draws m d", input i showing image i mod `n_points`.

    With a `basis` the inputs are seen along its directions alone.

    Folds are the even and the odd images. Where images repeat, they are the whole law, and only
    the noise differs between repetitions: batches are even and odd repetitions. Otherwise the
    images are a sample of the law, and batches are the folds.
    """
    pixels = y.flatten(0, 1)
    if basis is not None:
        y = y @ basis
    draws, m, _ = y.shape
    i, k = torch.arange(m), torch.arange(draws)[:, None]
    fold = (i % n_points % 2).expand(draws, m)
    repeats = -(-m // n_points)
    batch = (k * repeats + i // n_points) % 2 if n_points < m else fold
    group = (2 * fold + batch).flatten()
    order = group.argsort(stable=True)
    sizes = tuple(int(size) for size in group.bincount(minlength=4))
    rows = y.flatten(0, 1)
    centre = rows.mean(0)
    centred = torch.cat([rows - centre, torch.ones(len(rows), 1)], 1)[order]
    moments = [part.T @ part for part in centred.split(sizes)]
    folds = _normal(moments, (0, 1)), _normal(moments, (2, 3))
    everything = _normal(moments, (0, 1, 2, 3))
    return Design(
        order,
        centred,
        centre,
        sizes,
        folds,
        (_normal(moments, (0, 2)), _normal(moments, (1, 3))) if n_points < m else folds,
        everything,
        basis,
        None
        if basis is None
        else _rest(
            pixels[order].split(sizes), centred.split(sizes), centre, moments, basis, everything
        ),
    )


def _rest(
    pixels: Sequence[Float[Tensor, "_ p"]],
    centred: Sequence[Float[Tensor, "_ e"]],
    centre: Float[Tensor, " q"],
    moments: Sequence[Float[Tensor, "e e"]],
    basis: Float[Tensor, "p q"],
    everything: Normal,
) -> Rest:
    """Of each group of sorted inputs; their part off the directions is not made row by row."""
    cross = []
    for y, z, moment in zip(pixels, centred, moments, strict=True):
        along = moment[:-1] + centre[:, None] * moment[-1]  # sum of (Q^T y) z^T
        cross.append((y.T @ z).addmm_(basis, along, alpha=-1))
    slope = _solve(cross, everything)
    whole = sum(y.square().sum() for y in pixels)
    inside = sum((z[:, :-1] + centre).square().sum() for z in centred)
    left = whole - inside - (sum(cross) * slope).sum()
    rounding = torch.finfo(left.dtype).eps * len(basis) * whole
    return Rest(cross, slope, left if left > rounding else torch.full_like(left, torch.inf))


def affine_fit(inputs: Design, y: Float[Tensor, "k m d"], out: Float[Tensor, "k m d"]) -> Fit:
    """Fit, score and batch error of outputs `out` at the inputs `y` of a design."""
    draws, m, d = y.shape
    # Gathers and subtractions in place: at thousands of rows these are bound by memory.
    rows, gain = out.flatten(0, 1)[inputs.order], torch.ones((), dtype=out.dtype)
    known = y.flatten(0, 1)[inputs.order]
    if inputs.rest is None:
        cross = _cross(inputs, rows.sub_(known))
    else:
        cross = _cross(inputs, rows)
        gain = _gain(inputs, cross, torch.linalg.vecdot(rows, known).sum())
        rows.sub_(known, alpha=float(gain))
        for of_rows, of_rest in zip(cross, inputs.rest.cross, strict=True):
            of_rows.sub_(of_rest, alpha=float(gain))
    parts = list(zip(rows.split(inputs.sizes), inputs.y.split(inputs.sizes), strict=True))
    first, second = fits = [_solve(cross, normal) for normal in inputs.folds]
    # In place: `rows` becomes the out-of-fold residual.
    for (r, z), other in zip(parts, (second, second, first, first), strict=True):
        r.addmm_(z, _beside(inputs, other, gain).T, alpha=-1)
    residual = torch.empty(draws * m, dtype=rows.dtype)
    residual[inputs.order] = torch.linalg.vector_norm(rows, dim=1).square_()
    deviation = torch.linalg.vector_norm(out - out.mean((0, 1)), dim=2).square_()
    drawn = (inputs.order < m).nonzero()[:, 0]
    predicted = out[0].clone()
    predicted[inputs.order[drawn]] -= rows[drawn]
    if inputs.batches is not inputs.folds:
        fits = [_solve(cross, normal) for normal in inputs.batches]
    one, two = fits
    whole = _solve(cross, inputs.everything)
    return Fit(
        Whole(torch.eye(d, dtype=rows.dtype) + whole[:, :-1])
        if inputs.basis is None
        else Leading(whole[:, :-1], inputs.basis, gain),
        whole[:, -1] - whole[:, :-1] @ inputs.centre,
        (one - two)[:, :-1].norm() / 2,
        residual.view(draws, m).mean(0) / d,
        deviation.mean(0) / d,
        predicted,
    )


def distance_to_best(fit: Fit, sigma: float) -> Float[Tensor, ""]:
    """Bound on |W - W_*|_F of the module, by the residual out of fold; 0 of a whole matrix.

    But for Monte Carlo errors, and on inputs y = x + sigma eps with eps independent of x.
    """
    if isinstance(fit.weight, Whole):
        return torch.zeros((), dtype=torch.float64)
    return (len(fit.bias) * fit.residual.mean()).sqrt() / sigma


def _gain(
    inputs: Design, cross: Sequence[Float[Tensor, "d e"]], along: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """The gain g that least squares gives (I - Q Q^T) y beside a free A and b.

    Of all rows: one number that both folds share. `along` is the sum of D(y) . y.
    """
    total = torch.stack(list(cross)).sum(0)
    seen = total[:, :-1] + total[:, -1:] * inputs.centre  # sum of D(y) (Q^T y)^T
    along = along - (inputs.basis * seen).sum()
    return (along - (total * inputs.rest.slope).sum()) / inputs.rest.square


def _beside(
    inputs: Design, fit: Float[Tensor, "d e"], gain: Float[Tensor, ""]
) -> Float[Tensor, "d e"]:
    """Coefficients that predict what D(y) is beside g y: those of `fit` less g Q Q^T."""
    if inputs.basis is None:
        return fit
    known = torch.cat([inputs.basis, (inputs.basis @ inputs.centre)[:, None]], 1)
    return fit - gain * known


def _cross(inputs: Design, rows: Float[Tensor, "r d"]) -> list[Float[Tensor, "d e"]]:
    """Sum of r z^T over the rows of each group."""
    parts = zip(rows.split(inputs.sizes), inputs.y.split(inputs.sizes), strict=True)
    return [r.T @ z for r, z in parts]


def _normal(moments: Sequence[Float[Tensor, "e e"]], groups: tuple[int, ...]) -> Normal:
    """Mean and pseudo-inverse covariance of the inputs of some groups."""
    total = torch.stack([moments[group] for group in groups]).sum(0)
    n = int(total[-1, -1])
    mean = total[:-1, -1] / max(n, 1)
    cov = total[:-1, :-1] / max(n, 1) - mean[:, None] * mean
    return Normal(groups, n, mean, _pseudo_inverse(mean, cov))


def _pseudo_inverse(mean: Float[Tensor, " d"], cov: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Inverse covariance: by Cholesky where the rank is full, else on its span alone."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    floor = torch.finfo(cov.dtype).eps * len(cov) * cov.diagonal().max()
    if not failed and factor.diagonal().min().square() > floor:
        return torch.cholesky_inverse(factor)
    spectrum = Moments.of_covariance(mean, cov)
    return spectrum.basis / spectrum.eigenvalues @ spectrum.basis.T


def _solve(cross: Sequence[Float[Tensor, "p e"]], normal: Normal) -> Float[Tensor, "p e"]:
    """Coefficients (V, c) of the fit r = V y + c on the groups of `normal`."""
    total = torch.stack([cross[group] for group in normal.groups]).sum(0) / max(normal.n, 1)
    mean = total[:, -1]
    slope = (total[:, :-1] - mean[:, None] * normal.mean) @ normal.inverse
    return torch.cat([slope, (mean - slope @ normal.mean)[:, None]], 1)
