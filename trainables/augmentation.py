r"""Geometric augmentation of training images, and the label that tells the denoiser of it.

The operations and their label are those of Karras et al. 2022 (EDM, arXiv 2206.00364, appendix
F.2, table 6), drawn for each image and step:

======================  ============================================  ======================
operation               parameters                                    label
======================  ============================================  ======================
mirror left-right       a0 in {0, 1}, for every image                 a0
mirror top-bottom       a1 in {0, 1}                                  a1
scale                   by 2^(.2 a2), a2 ~ N(0, 1)                    a2
rotate                  by a3 ~ U(-pi, pi)                            cos a3 - 1, sin a3
scale along an axis     by 2^(.2 a5) at angle a4, by its inverse      a5 cos a4, a5 sin a4
                        across it; a4 ~ U(-pi, pi), a5 ~ N(0, 1)
shift                   by (a6, a7)/8 of the image's width and        a6, a7
                        height, a6, a7 ~ N(0, 1)
======================  ============================================  ======================

All but the first happen with probability p each. A denoiser that is told the label, and asked
with zeros afterwards, does not leak the augmentation into its samples. Interpolation is bicubic
and images continue by reflection (EDM filters with wavelets at twice the resolution instead).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LABEL", "augmented", "drawn", "label_of"]

LABEL = 9
"""Numbers of the label."""
OCTAVES = 0.2
"""Standard deviation of a scale, in octaves."""
SHIFT = 0.125
"""Standard deviation of a shift, in widths."""
Parameters = Float[Tensor, "n 8"]


def drawn(n: int, p: float, generator: torch.Generator) -> Parameters:
    """Parameters a0 ... a7 of `n` images, zero where an operation is left out.

    >>> drawn(2, 0.0, torch.Generator().manual_seed(0))[:, 1:].abs().max()
    tensor(0.)
    """
    coins = torch.randint(2, (n, 2), generator=generator).float()
    angles = (2 * torch.rand(n, 2, generator=generator) - 1) * math.pi
    normals = torch.randn(n, 4, generator=generator)
    happens = (torch.rand(n, 5, generator=generator) < p).float()
    scale, stretch, shifts = normals[:, 0], normals[:, 1], normals[:, 2:]
    flip_y, scaled, turned, stretched, shifted = happens.unbind(1)
    return torch.stack(
        [
            coins[:, 0],
            coins[:, 1] * flip_y,
            scale * scaled,
            angles[:, 0] * turned,
            angles[:, 1] * stretched,
            stretch * stretched,
            *(shifts * shifted[:, None]).unbind(1),
        ],
        dim=1,
    )


def label_of(parameters: Parameters) -> Float[Tensor, "n 9"]:
    """What the denoiser is told: zeros for an image as it was."""
    a0, a1, a2, a3, a4, a5, a6, a7 = parameters.unbind(1)
    told = [a0, a1, a2, a3.cos() - 1, a3.sin(), a5 * a4.cos(), a5 * a4.sin(), a6, a7]
    return torch.stack(told, dim=1)


def augmented(x: Float[Tensor, "n c h w"], parameters: Parameters) -> Float[Tensor, "n c h w"]:
    """The images after their operations, in the order of the table.

    Mirrored images are exact; those that nothing else is done to are not interpolated.
    """
    flip_x, flip_y = (parameters[:, i].bool().view(-1, 1, 1, 1) for i in (0, 1))
    x = torch.where(flip_x, x.flip(3), x)
    x = torch.where(flip_y, x.flip(2), x)
    moved = (parameters[:, 2:] != 0).any(1)
    if not moved.any():
        return x
    rows = moved.nonzero()[:, 0]
    grid = F.affine_grid(_inverse(parameters[rows], x).to(x), [len(rows), *x.shape[1:]], False)
    warped = F.grid_sample(x[rows], grid, "bicubic", "reflection", align_corners=False)
    return x.index_copy(0, rows, warped)


def _inverse(parameters: Parameters, x: Float[Tensor, "_n c h w"]) -> Float[Tensor, "n 2 3"]:
    """Where each output pixel comes from, in the units of `affine_grid`: [-1, 1] on each axis."""
    _, _, scale, turn, angle, stretch, *shift = parameters.double().unbind(1)
    grown = 2 ** (OCTAVES * scale)
    linear = _diagonal(grown, grown)
    linear = _rotation(turn) @ linear
    along, across = 2 ** (OCTAVES * stretch), 2 ** (-OCTAVES * stretch)
    linear = _rotation(angle) @ _diagonal(along, across) @ _rotation(-angle) @ linear
    # Rotations are of pixels: an image that is not square has other units on each axis.
    _, _, h, w = x.shape
    units = torch.diag(torch.tensor([w / 2, h / 2], dtype=torch.float64, device=parameters.device))
    back = units.inverse() @ linear.inverse() @ units
    moved = 2 * SHIFT * torch.stack(shift, dim=1)[:, :, None]
    return torch.cat([back, -back @ moved], dim=2)


def _rotation(angle: Float[Tensor, " k"]) -> Float[Tensor, "k 2 2"]:
    rows = [angle.cos(), -angle.sin(), angle.sin(), angle.cos()]
    return torch.stack(rows, dim=1).view(-1, 2, 2)


def _diagonal(a: Float[Tensor, " k"], b: Float[Tensor, " k"]) -> Float[Tensor, "k 2 2"]:
    return torch.diag_embed(torch.stack([a, b], dim=1))
