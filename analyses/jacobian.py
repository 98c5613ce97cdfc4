r"""The Jacobian J = dD/dy of a denoiser at noisy held-out images.

At the optimum :math:`J = \mathrm{Cov}[x|y]/\sigma^2` is symmetric and positive semidefinite, and
:math:`E|D-x|^2 = \sigma^2 E\,\mathrm{tr} J` (arXiv:2310.02557); D_G has J = W_G everywhere. Any
denoiser obeys Stein's identity (SURE): :math:`E|D-x|^2 = E|D-y|^2 + 2\sigma^2 E\,\mathrm{tr} J -
d\sigma^2`. The *effective rank* is the smallest r with :math:`\sqrt{\sum_{i \le r} s_i^2 / \sum_i
s_i^2} \ge 0.99` (singular values s_i; arXiv:2310.05264). The *sensitivity side* is that of the
square patch of the input that decides an output pixel (arXiv:2411.19339).

The whole J is taken at the first `points` inputs where d <= `full`. Trace and SURE also come from
Hutchinson's estimator, over more inputs. For larger images products of J and its transpose with
few directions at the same points give the asymmetry (Hutchinson's estimator with `BLOCK` probes
at each point, whose noise is part of the spread over points) and the leading left singular vectors
(block Krylov space of `depth` such blocks). A vector is counted where :math:`|JJ^Tu - s^2u|` over
the distance of :math:`s^2` to its neighbours, a bound on the sine of its angle to the true one
(Davis & Kahan 1970; the neighbours are those that were found), is at most `SETTLED`: singular
values that nearly agree, as all do at small noise, leave their vectors unknown. Exact trace,
effective rank, least eigenvalue and sensitivity stay NaN there.
"""

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from analyses.differential import (
    FLOOR,
    PRODUCT,
    asymmetry,
    asymmetry_probed,
    effective_rank,
    hutchinson,
    jacobian,
    left_vectors,
    posterior_variance,
    sensitivity_sides,
    signs,
)
from analyses.estimates import mean_se, named_mean
from analyses.evaluations import Rows, Size
from analyses.krylov import leading_modes, on_blocks, sines
from analyses.labels import STEPS, Label, dataset, stack
from analyses.specimen import Specimen, Subset

__all__ = ["measure", "reference", "rows", "sure"]

SIDES = (50, 75, 95)
MODES = 10
BLOCK = 8
"""Directions at each point of a block, where the whole J is not taken."""
SETTLED = 0.25
"""Largest sine of the angle between a vector, or a span, and the true one that is counted."""
LABELS = {
    "jacobian_trace": Label("trace of J, exact, mean over points", ("sigma",)),
    "jacobian_trace_hutchinson": Label(
        "trace of J, Hutchinson's estimator, mean over inputs and probes", ("sigma",)
    ),
    "jacobian_rank": Label(
        "effective rank of J: singular values that hold .99 of its norm, mean over points",
        ("sigma",),
    ),
    "jacobian_asymmetry": Label(
        f"|J - J^T|_F / |J|_F, for large images from {BLOCK} random vectors at each point by "
        "Hutchinson's estimator, mean over points",
        ("sigma",),
    ),
    "jacobian_least_eigenvalue": Label(
        "least eigenvalue of (J + J^T) / 2, mean over points", ("sigma",)
    ),
    "jacobian_mode_overlap": Label(
        "|left singular vector k of J . principal axis k of the training points|, mean over "
        f"points; for large images the first {MODES}, at points where they are known to the sine "
        f"{SETTLED:g} of an angle",
        ("sigma", "mode"),
    ),
    "jacobian_mode_error": Label(
        "bound on the sine of the angle between left singular vector k of J and the true one, mean"
        " over the points that are counted; 0 where the whole J is taken",
        ("sigma", "mode"),
    ),
    "jacobian_subspace_overlap": Label(
        f"mean squared cosine of the principal angles of the {MODES} leading left singular vectors"
        " of J and principal axes of the training points, mean over points (for large images those"
        f" where the span is known to the sine {SETTLED:g} of an angle)",
        ("sigma",),
    ),
    "jacobian_perturbation": Label(
        "D(y + step sigma u), u the first left singular vector of J (for large images as far as it"
        " is known) at the first held-out input y, its largest entry positive, CHW order",
        ("sigma", "step", "pixel"),
        "pixel",
    ),
    "sure_loss": Label(
        "held-out denoising error per pixel by SURE: |D - y|^2 + 2 sigma^2 tr J - d sigma^2",
        ("sigma",),
        "pixel2",
    ),
    "sure_residual": Label(
        "held-out denoising error per pixel minus its estimate by SURE, paired by input, with the "
        "noise's own energy for d sigma^2",
        ("sigma",),
        "pixel2",
    ),
} | {
    f"sensitivity_side_{share}": Label(
        f"side, in pixels, of the patch of the input that holds {share}% of |dD_i/dy_j|^2, mean "
        "over output pixels and points",
        ("sigma",),
    )
    for share in SIDES
}
REFERENCE_LABELS = {
    "jacobian_trace_gaussian": Label("trace of J of the Gaussian oracle", ("sigma",)),
    "jacobian_rank_gaussian": Label("effective rank of J of the Gaussian oracle", ("sigma",)),
    "jacobian_trace_empirical": Label(
        "trace of J of the empirical oracle, mean over the same points", ("sigma",)
    ),
}


def sure(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    out: Float[Tensor, "n d"],
    traces: Float[Tensor, " n"],
    sigma: float,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""The loss by SURE and its residual, per pixel, row by row, at y = x + sigma eps.

    SURE is :math:`|D-y|^2 + 2\sigma^2 \mathrm{tr} J - d\sigma^2`, whose expectation over the noise
    is that of :math:`|D-x|^2` (Stein 1981). The residual is :math:`|D-x|^2` minus that, with
    :math:`|y-x|^2` for its mean :math:`d\sigma^2`, or :math:`2 ((D-x) \cdot (y-x) - \sigma^2
    \mathrm{tr} J)`: the energy of the noise has nothing to do with D and would drown it.
    """
    d = y.shape[1]
    estimate = (out - y).square().mean(1) + sigma**2 * (2 * traces / d - 1)
    residual = 2 * (((out - x) * (y - x)).sum(1) - sigma**2 * traces) / d
    return estimate, residual


def rows(
    size: Size,
    *,
    points: int = 16,
    probes: int = 16,
    full: int = 256,
    depth: int = 8,
    trace_only: bool = False,
) -> Rows:
    """Evaluations of D: `PRODUCT` for each product with J, and the steps; none of them shared."""
    products = size.dim
    if size.dim > full:
        block, blocks, modes = _space(size.dim, depth)
        products = 0 if trace_only else block * (2 * blocks + 1) + modes
    steps = len(STEPS) if products else 0
    return {"jacobian": size.levels * (PRODUCT * points * (probes + products) + steps)}


def _space(d: int, depth: int) -> tuple[int, int, int]:
    """Columns of a block, blocks, and modes that are asked of the space that they span.

    One more than is wanted: it tells how well the last is known.
    """
    block = min(BLOCK, d)
    blocks = min(depth, d // block)
    return block, blocks, min(MODES + 1, block * blocks)


def measure(
    specimen: Specimen,
    *,
    points: int = 16,
    probes: int = 16,
    full: int = 256,
    depth: int = 8,
    trace_only: bool = False,
) -> xr.Dataset:
    """The Jacobian at the first `points` held-out inputs, and its trace by points x probes probes.

    Those fall on as many inputs as there are, one each before any has a second. `full`: pixels up
    to which J is taken whole; above, its modes are sought with `depth` blocks of directions at
    each point, unless `trace_only`: for a denoiser that has no derivative backwards.
    """
    _check(points, probes, depth)
    d, cells = specimen.dim, []
    for sigma in specimen.sigmas:
        if d <= full:
            cell = _whole(specimen, sigma, points)
        else:
            cell = _blank(d)
            cell |= {} if trace_only else _searched(specimen, sigma, points, depth)
        cells.append(cell | _probed(specimen, sigma, points * probes))
    return dataset(specimen.sigmas, stack(cells), LABELS)


def reference(
    subset: Subset,
    *,
    points: int = 16,
    probes: int = 16,
    full: int = 256,
    depth: int = 8,
    trace_only: bool = False,
) -> xr.Dataset:
    """Trace and effective rank of D_G, the same at every input, and trace of D_M at the points.

    All but `points` are accepted for symmetry with `measure`; nothing here depends on them.
    """
    _check(points, probes, depth)
    cells = []
    for sigma in subset.sigmas:
        gain = subset.gaussian.gains(sigma)
        y, out = (
            each[0, :points]
            for each in (
                subset.inputs("heldout", sigma)[1],
                subset.reference("empirical", "heldout", sigma),
            )
        )
        memory = posterior_variance(subset.train, y, out, sigma) / sigma**2
        none = torch.zeros((), dtype=torch.float64)
        cells.append(
            {
                "jacobian_trace_gaussian": gain.sum(),
                "jacobian_trace_gaussian_se": none,
                "jacobian_rank_gaussian": effective_rank(gain.square()),
                "jacobian_rank_gaussian_se": none,
            }
            | named_mean("jacobian_trace_empirical", memory, len(y))
        )
    return dataset(subset.sigmas, stack(cells), REFERENCE_LABELS)


def _whole(specimen: Specimen, sigma: float, points: int) -> dict[str, Tensor]:
    """What the whole Jacobian says."""
    d, k = specimen.dim, min(MODES, specimen.moments.rank)
    y = specimen.inputs("heldout", sigma)[1][0, :points]
    _, whole = jacobian(specimen.linearize, y, sigma)
    energy, vectors = left_vectors(whole)
    axes = specimen.moments.basis[:, :k]
    cosines = vectors[:, :, :k].mT @ axes
    values = {
        "jacobian_trace": whole.diagonal(dim1=1, dim2=2).sum(1),
        "jacobian_rank": effective_rank(energy),
        "jacobian_asymmetry": asymmetry(whole),
        "jacobian_least_eigenvalue": torch.linalg.eigvalsh((whole + whole.mT) / 2)[:, 0],
        "jacobian_subspace_overlap": torch.where(
            energy[:, 0] > 0, cosines.square().sum((1, 2)) / k, torch.nan
        ),
    }
    sides = sensitivity_sides(whole, specimen.shape, SIDES)
    values |= {f"sensitivity_side_{s}": side for s, side in zip(SIDES, sides, strict=True)}
    cell: dict[str, Tensor] = {}
    for name, value in values.items():
        cell |= named_mean(name, value, len(whole), ~value.isnan())  # NaN where J is 0
    seen = energy[:, :k] > FLOOR**2 * energy[:, :1]
    cell |= _modes(cosines, torch.zeros_like(energy[:, :k]), seen, d)
    return cell | {"jacobian_perturbation": _perturbed(specimen, y[0], vectors[0, :, 0], sigma)}


def _modes(
    cosines: Float[Tensor, "p k k"],
    error: Float[Tensor, "p k"],
    seen: Bool[Tensor, "p k"],
    d: int,
) -> dict[str, Tensor]:
    """Modes one by one: as many as pixels, for all variables that have modes."""
    p, k = error.shape
    values = named_mean(
        "jacobian_mode_overlap", cosines.diagonal(dim1=1, dim2=2).abs().T, p, seen.T
    )
    values["jacobian_mode_error"], _ = mean_se(error.T, p, seen.T)
    return {name: pad(value, (0, d - k), value=torch.nan) for name, value in values.items()}


def _searched(specimen: Specimen, sigma: float, points: int, depth: int) -> dict[str, Tensor]:
    """What products of the Jacobian with few directions say."""
    d = specimen.dim
    y = specimen.inputs("heldout", sigma)[1][0, :points]
    p, (block, blocks, modes) = len(y), _space(d, depth)
    push = on_blocks(lambda *rows: specimen.linearize(*rows)[1], y, sigma)
    pull = on_blocks(specimen.pull, y, sigma)
    stream = specimen.stream("probe", "jacobian", "block", sigma.hex())
    start = signs(stream, p * block, d).view(p, block, d).mT
    image = push(start)
    asymmetry = asymmetry_probed(image, pull(start))
    found = leading_modes(push, pull, image, blocks, modes)
    r = min(MODES, specimen.moments.rank, modes - (block * blocks < d))
    cosines = found.vectors[:, :, :r].mT @ specimen.moments.basis[:, :r]
    error, span = sines(found, r)
    seen = (error <= SETTLED) & (found.energy[:, :r] > FLOOR**2 * found.energy[:, :1])
    overlap = cosines.square().sum((1, 2)) / r
    return (
        named_mean("jacobian_asymmetry", asymmetry, p, ~asymmetry.isnan())
        | named_mean("jacobian_subspace_overlap", overlap, p, span <= SETTLED)
        | _modes(cosines, error, seen, d)
        | {"jacobian_perturbation": _perturbed(specimen, y[0], found.vectors[0, :, 0], sigma)}
    )


def _blank(d: int) -> dict[str, Tensor]:
    """NaN for all that takes more than the trace."""
    blank = torch.full((), torch.nan, dtype=torch.float64)
    names = [name for name in LABELS if name.startswith(("jacobian", "sensitivity"))]
    beside = ("jacobian_trace_hutchinson", "jacobian_perturbation", "jacobian_mode_error")
    values = {name: blank for name in names if name not in beside}
    values["jacobian_mode_overlap"] = blank.expand(d)
    errors = {f"{name}_se": value for name, value in values.items()}
    values["jacobian_mode_error"] = blank.expand(d)
    return values | errors | {"jacobian_perturbation": blank.float().expand(len(STEPS), d)}


def _perturbed(
    specimen: Specimen, y: Float[Tensor, " d"], u: Float[Tensor, " d"], sigma: float
) -> Float[Tensor, "steps d"]:
    """Outputs along `u`, whose sign is free: its largest entry is made positive."""
    u = u * u[u.abs().argmax()].sign()
    steps = torch.tensor(STEPS, dtype=y.dtype)[:, None]
    return specimen.apply(y + sigma * steps * u, sigma).float()


def _probed(specimen: Specimen, sigma: float, probes: int) -> dict[str, Tensor]:
    """What needs the trace alone, at `probes` probes of the held-out inputs."""
    x, y = specimen.inputs("heldout", sigma)
    m = min(probes, len(x))
    at = torch.arange(probes) % m
    v = signs(specimen.stream("probe", "jacobian", sigma.hex()), probes, specimen.dim)
    out, traces = hutchinson(specimen.linearize, y[0, at], v, sigma)
    estimate, residual = sure(x[at], y[0, at], out, traces, sigma)
    return (
        named_mean("jacobian_trace_hutchinson", traces, m)
        | named_mean("sure_loss", estimate, m)
        | named_mean("sure_residual", residual, m)
    )


def _check(points: int, probes: int, depth: int) -> None:
    if points < 2 or probes < 1 or depth < 1:
        raise ValueError(
            f"jacobian: needs `points` >= 2, `probes` >= 1 and `depth` >= 1, got {points}, "
            f"{probes} and {depth}."
        )
