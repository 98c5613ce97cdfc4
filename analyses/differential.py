r"""The derivative of a denoiser by its input, J = dD/dy, and what it says of the denoiser.

A product J v, by forward differentiation, or J^T u, by backward, costs no more than `PRODUCT`
evaluations of D, whatever the direction. The whole of J takes d products, its trace by
Hutchinson's estimator, :math:`E[v^T J v] = \mathrm{tr} J` for random signs v, takes one or more;
:math:`E|Mv|^2 = |M|_F^2` gives norms.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = [
    "FLOOR",
    "PRODUCT",
    "TAPED",
    "Linearize",
    "asymmetry",
    "asymmetry_probed",
    "effective_rank",
    "hutchinson",
    "jacobian",
    "jvp",
    "left_vectors",
    "patches",
    "posterior_variance",
    "sensitivity_sides",
    "signs",
    "trace",
    "vjp",
]

PRODUCT = 4
"""Evaluations that one product is counted as, D itself included (measured: 3.5 to 3.9, of a
network of convolutions; backwards 2 to 3)."""
TAPED = 8
"""Rows of one call backwards, which keeps the output of every layer."""
SHARE = 0.99
FLOOR = 1e-6
"""Below this share of the largest, singular values and sensitivities are rounding of a float32
network: they have no direction and no place."""
Denoise = Callable[[Tensor, float], Tensor]
Linearize = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""linearize(y "n d", v "n d", sigma) -> (D(y) "n d", J v "n d"), as `Specimen.linearize`."""


def jvp(
    denoiser: Denoise, y: Float[Tensor, "n d"], v: Float[Tensor, "n d"], sigma: float
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """D(y; sigma) and, row by row, the derivative of D at y along v, both in float64.

    RuntimeError if the output carries no derivative: a silent 0 would look like a constant D.

    >>> y = torch.tensor([[1.0, 2.0]])
    >>> jvp(lambda y, sigma: y**2, y, torch.tensor([[1.0, 0.0]]), 0.5)
    (tensor([[1., 4.]], dtype=torch.float64), tensor([[2., 0.]], dtype=torch.float64))
    """
    # Fused attention has no forward derivative; the plain products have.
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        # torch 2.13 deprecates what its own forward differentiation imports at the first call.
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        with forward_ad.dual_level():
            dual = denoiser(forward_ad.make_dual(y.contiguous(), v), sigma)
            out, along = forward_ad.unpack_dual(dual)
            if along is None:
                raise RuntimeError(
                    "jvp: the denoiser's output has no derivative by its input; it must compute "
                    "in torch, outside `torch.inference_mode`, and not detach."
                )
            return out.double(), along.double()


def vjp(
    denoiser: Denoise, y: Float[Tensor, "n d"], u: Float[Tensor, "n d"], sigma: float
) -> Float[Tensor, "n d"]:
    """Row by row J(y)^T u, the derivative of u . D(y; sigma) by y, in float64.

    RuntimeError if the output carries no derivative.

    >>> y = torch.tensor([[1.0, 2.0]])
    >>> vjp(lambda y, sigma: y.roll(1, 1) ** 2, y, torch.tensor([[1.0, 0.0]]), 0.5)
    tensor([[0., 4.]], dtype=torch.float64)
    """
    inputs = y.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = denoiser(inputs, sigma)
    known = out.requires_grad
    found = torch.autograd.grad(out, inputs, u.to(out.dtype), allow_unused=True) if known else ()
    if not found or found[0] is None:
        raise RuntimeError(
            "vjp: the denoiser's output has no derivative backwards; it must compute in torch, "
            "outside `torch.no_grad`, and not detach (`jacobian` with `trace_only` needs none)."
        )
    return found[0].double()


def jacobian(
    linearize: Linearize, y: Float[Tensor, "p d"], sigma: float
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p d d"]]:
    """D(y; sigma) and J[p, i, j] = dD_i/dy_j at each of the points `y`, from p d products.

    FloatingPointError if J is not finite.
    """
    p, d = y.shape
    directions = torch.eye(d, dtype=y.dtype).repeat(p, 1)
    out, columns = linearize(y.repeat_interleave(d, 0), directions, sigma)
    if not columns.isfinite().all():
        raise FloatingPointError(f"jacobian: not finite at sigma {sigma}.")
    return out[::d], columns.view(p, d, d).mT


def signs(generator: torch.Generator, n: int, d: int) -> Float[Tensor, "n d"]:
    """Independent +1 and -1: of all directions with E[v v^T] = I they estimate traces best."""
    return 2.0 * torch.randint(0, 2, (n, d), generator=generator).double() - 1


def hutchinson(
    linearize: Linearize, y: Float[Tensor, "n d"], v: Float[Tensor, "n d"], sigma: float
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    r"""D(y; sigma) and the unbiased estimate :math:`v^T J(y) v` of tr J(y), row by row.

    With signs v its variance is :math:`\sum_{i<j} (J_{ij} + J_{ji})^2` (Hutchinson 1989).
    """
    out, along = linearize(y, v, sigma)
    return out, (v * along).sum(1)


def trace(
    linearize: Linearize,
    y: Float[Tensor, "p d"],
    sigma: float,
    v: Float[Tensor, "n d"] | None,
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """D and tr J at the points `y`: exactly (n = p) without `v`, else one estimate for each of v.

    Row i of the answer is of point i mod p.
    """
    if v is None:
        out, whole = jacobian(linearize, y, sigma)
        return out, whole.diagonal(dim1=1, dim2=2).sum(1)
    return hutchinson(linearize, y[torch.arange(len(v)) % len(y)], v, sigma)


def asymmetry_probed(
    image: Float[Tensor, "p d b"], back: Float[Tensor, "p d b"]
) -> Float[Tensor, " p"]:
    r"""Estimate of |J - J^T|_F / |J|_F from J v and J^T v for the same random signs v.

    :math:`E|(J - J^T)v|^2 = |J - J^T|_F^2`, which is 2 (|J|_F^2 - tr J J), and :math:`E|Jv|^2 =
    E|J^Tv|^2 = |J|_F^2` (Hutchinson 1989). The difference is taken vector by vector: of a
    symmetric J the estimate is 0 whatever v. NaN where J v and J^T v are 0.
    """
    norm = (image.square() + back.square()).sum((1, 2)) / 2
    return ((image - back).square().sum((1, 2)) / norm).sqrt()


def effective_rank(energy: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """Smallest r with sqrt of the share of `energy` s_i^2, largest first, >= .99; 0 of zeros.

    >>> effective_rank(torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.01, 0.01, 0.0]]))
    tensor([3., 1.])
    """
    total = energy.sum(-1, keepdim=True)
    missing = energy.cumsum(-1) < SHARE**2 * total
    return missing.sum(-1).to(energy.dtype) + (total[..., 0] > 0)


def asymmetry(whole: Float[Tensor, "p d d"]) -> Float[Tensor, " p"]:
    """|J - J^T|_F / |J|_F, in [0, 2]; NaN where J is 0."""
    return (whole - whole.mT).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)


def left_vectors(
    whole: Float[Tensor, "p d d"],
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p d d"]]:
    """Squared singular values, largest first, and left singular vectors (columns) of J."""
    energy, vectors = torch.linalg.eigh(whole @ whole.mT)
    return energy.flip(1).clamp(min=0), vectors.flip(2)


def patches(h: int, w: int) -> tuple[list[int], Bool[Tensor, "r q q"]]:
    """Sides 1, 3, 5, ... of square patches and, [r, i, j], whether patch r of pixel i holds j.

    Pixels q = h w in row order. A patch is centred on its pixel; at the border it is moved inwards
    to stay whole, and it is never larger than the image.
    """
    sides, masks = [], []
    for radius in range(max(h, w) // 2 + 1):
        axes = []
        for n in (h, w):
            side = min(2 * radius + 1, n)
            at = torch.arange(n)
            start = (at - radius).clamp(0, n - side)[:, None]
            axes.append((start <= at) & (at < start + side))
        rows, columns = axes
        masks.append((rows[:, None, :, None] & columns[None, :, None, :]).view(h * w, h * w))
        sides.append(min(2 * radius + 1, max(h, w)))
    return sides, torch.stack(masks)


def sensitivity_sides(
    whole: Float[Tensor, "p d d"], shape: tuple[int, ...], percent: Sequence[int]
) -> Float[Tensor, "s p"]:
    """Sides of the smallest `patches` with each of the shares `percent` of |dD_i/dy_j|^2.

    Summed over the channels of i and j and averaged over those output pixels i that depend on the
    input (more than by rounding); NaN where none does. In [1, max(h, w)].
    """
    c, h, w = shape
    power = whole.view(-1, c, h * w, c, h * w).square().sum((1, 3))
    total = power.sum(2)
    seen = total > FLOOR**2 * total.amax(1, keepdim=True)
    sides, masks = patches(h, w)
    held = torch.stack([(power * mask).sum(2) for mask in masks])
    found = []
    for share in percent:
        # A share that is reached exactly must not be missed by rounding.
        enough = held >= share / 100 * (1 - 1e-9) * total
        side = torch.tensor(sides, dtype=whole.dtype)[enough.int().argmax(0)]
        found.append(side.where(seen, torch.nan).nanmean(1))
    return torch.stack(found)


def posterior_variance(
    train: Float[Tensor, "n d"], y: Float[Tensor, "p d"], out: Float[Tensor, "p d"], sigma: float
) -> Float[Tensor, " p"]:
    r"""tr Cov_w(a) :math:`= \sum_i w_i |a_i - D_M(y)|^2`, given `out` = D_M(y), in squared pixels.

    w are the posterior weights of the training points; D_M's Jacobian is Cov_w(a) / sigma^2.
    """
    weights = ((y @ train.T - (train * train).sum(1) / 2) / sigma**2).softmax(1)
    # Differences, not |a|^2 - |D|^2: that would cancel where one point has all the weight.
    apart = torch.cdist(out, train, compute_mode="donot_use_mm_for_euclid_dist")
    return (weights * apart.square()).sum(1)
