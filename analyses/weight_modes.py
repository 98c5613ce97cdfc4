r"""Singular values and vectors of a denoiser's affine fit, beside those of the Wiener filter.

With :math:`W_L = U_L S V_L^T` fitted on held-out inputs (`analyses.linear_fit`) and training
moments :math:`\Sigma = U \mathrm{diag}(\lambda) U^T`, a Gaussian denoiser has :math:`S_k =
\lambda_k/(\lambda_k+\sigma^2)` and :math:`|u_{L,k} \cdot u_k| = 1` (arXiv:2410.24060, Figs. 4
and 14). Singular vectors have free signs and mix where singular values nearly agree, so every
number here is free of signs, and the principal angles of the leading modes are free of mixing too.
"""

from typing import NamedTuple

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import Label, dataset, stack
from analyses.linear_fit import distil
from analyses.specimen import Specimen

__all__ = ["Modes", "measure", "principal_cosines", "rows"]

LABELS = {
    "weight_singular_value": Label(
        "singular values of W_L, the largest first, held-out inputs", ("sigma", "mode")
    ),
    "singular_vector_cosine": Label(
        "|cosine| of the k-th left singular vector of W_L and the k-th principal axis",
        ("sigma", "mode"),
    ),
    "principal_cosine": Label(
        "cosine of the k-th principal angle of the {matrix} leading left singular vectors of W_L "
        "and principal axes",
        ("sigma", "mode"),
    ),
    "singular_correlation": Label(
        "|cosine| of left singular vectors of W_L and principal axes",
        ("sigma", "fit_mode", "wiener_mode"),
    ),
}


class Modes(NamedTuple):
    """The leading singular modes of a weight."""

    values: Float[Tensor, " k"]
    """Singular values, the largest first."""
    vectors: Float[Tensor, "d k"]
    """Left singular vectors."""


def principal_cosines(a: Float[Tensor, "d k"], b: Float[Tensor, "d q"]) -> Float[Tensor, " r"]:
    """Cosines of the min(k, q) principal angles of two spans, in [0, 1], the largest first.

    `a` and `b` have orthonormal columns; the cosines are the singular values of a^T b.
    """
    return torch.linalg.svdvals(a.T @ b).clamp(max=1)


def rows(size: Size, *, draws: int = 16, modes: int = 64, matrix: int = 16) -> Rows:
    """Evaluations: `draws` noisy versions of each held-out input."""
    return of_laws(size, ("heldout",), draws)


def measure(
    specimen: Specimen, *, draws: int = 16, modes: int = 64, matrix: int = 16
) -> xr.Dataset:
    """Leading `modes` of the affine fit, and the angles between the leading `matrix` of them.

    The fit uses `draws` noisy versions of each held-out input, as in `linear_fit`, and is shared
    with it. Principal axes without variance do not exist: NaN there.
    """
    if modes < 1 or matrix < 1:
        raise ValueError(
            f"weight_modes: `modes` and `matrix` must be at least 1, got {modes} and {matrix}."
        )
    k = min(modes, specimen.dim)
    cells = [_cell(specimen, sigma, draws, k, min(matrix, k)) for sigma in specimen.sigmas]
    label = LABELS["principal_cosine"]
    named = Label(label.long_name.format(matrix=min(matrix, k)), label.dims)
    return dataset(specimen.sigmas, stack(cells), LABELS | {"principal_cosine": named})


def _cell(specimen: Specimen, sigma: float, draws: int, k: int, matrix: int) -> dict[str, Tensor]:
    """All numbers of one noise level."""
    fitted = Modes(*distil(specimen, "heldout", sigma, draws).weight.leading(k))
    axes = specimen.moments.basis[:, :k]
    leading, known = fitted.vectors[:, :matrix], axes[:, :matrix]
    diagonal = (fitted.vectors[:, : axes.shape[1]] * axes).sum(0).abs()
    # As many of the fit's as there are axes, or the angles would be those of unequal spans.
    angles = principal_cosines(leading[:, : known.shape[1]], known)
    return {
        "weight_singular_value": fitted.values,
        "singular_vector_cosine": _padded(diagonal, k),
        "principal_cosine": _padded(angles, k),
        "singular_correlation": _padded((leading.T @ known).abs(), matrix).float(),
    }


def _padded(values: Float[Tensor, "... r"], k: int) -> Float[Tensor, "... k"]:
    """`values` with NaN up to length k of the last axis."""
    return torch.nn.functional.pad(values, (0, k - values.shape[-1]), value=torch.nan)
