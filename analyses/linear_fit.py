r"""The affine map that is closest to a denoiser at one noise level, in closed form.

:math:`W_L, b_L = \arg\min E|Wy + b - D(y;\sigma)|^2` over noisy inputs of a stated law
(kernels: `analyses.affine`). *Affine R2* is :math:`1 - E|D-fit|^2/E|D-ED|^2`, cross-fitted: the
images are split in two folds and each is scored by the fit of the other, over all noise draws.
A weight near W_G (arXiv:2410.24060) is no sign of linearity: it holds for every posterior mean on
its own training law, so R2 and the residual stand beside it.
"""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.affine import Design, Fit, affine_fit, design, directions, distance_to_best
from analyses.cache import SHARED
from analyses.estimates import ratio_se
from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import INPUTS, Label, by_law, dataset, stack, suffixed, tagged
from analyses.oracles import GaussianDenoiser
from analyses.specimen import Specimen, Subset
from analyses.weight import Weight

__all__ = ["affine_map", "distil", "measure", "reference", "rows", "weights"]

DIMS = ("sigma", "inputs")
LABELS = {
    "affine_r2": Label("variance explained by an affine map, 2-fold cross-fitted by image", DIMS),
    "affine_residual_rmse": Label(
        "root of the mean squared residual of the cross-fitted affine map", DIMS, "pixel"
    ),
    "weight_distance": Label("|W_L - W_G|_F / |W_G|_F, W_L fitted on all inputs", DIMS),
    "weight_distance_se": Label(
        "Monte Carlo error of W_L in the norm of weight_distance, from two batches", DIMS
    ),
    "weight_distance_bound": Label(
        "how far weight_distance may be, but for Monte Carlo errors, from that of a fit along all "
        "directions: root of the squared residual over sigma |W_G|_F; 0 if all are fitted, NaN on "
        "paths",
        DIMS,
    ),
    "subspace_overlap": Label(
        "mean squared cosine of the principal angles of the leading modes of W_L and W_G", DIMS
    ),
    "weight_asymmetry": Label("|W_L - W_L^T|_F / |W_L|_F", DIMS),
}
IMAGE = {
    "affine_residual_image": Label(
        "squared residual per pixel of the cross-fitted affine map, mean over draws, held-out",
        ("sigma", "image"),
        "pixel2",
    ),
    "affine_variance_image": Label(
        "|D - mean D|^2 per pixel, mean over draws, held-out", ("sigma", "image"), "pixel2"
    ),
}


def weights(
    weight: Weight, error: Float[Tensor, ""], wiener: GaussianDenoiser, sigma: float, modes: int
) -> dict[str, Float[Tensor, ""]]:
    """How a fitted weight compares with the Wiener filter and its leading modes."""
    basis, size = wiener.moments.basis[:, :modes], wiener.gains(sigma).norm()
    leading = weight.axes(basis.shape[1])
    return {
        "weight_distance": weight.distance(wiener, sigma) / size,
        "weight_distance_se": error / size,
        "subspace_overlap": (leading.T @ basis).square().sum() / basis.shape[1],
        "weight_asymmetry": weight.asymmetry() / weight.norm(),
    }


def distil(specimen: Specimen, law: str, sigma: float, draws: int) -> Fit:
    """The fit of the specimen's denoiser, once per specimen: other analyses compare with it."""

    def build() -> Fit:
        _, y, out = specimen.evaluate(law, sigma, draws)
        found = affine_fit(_design(specimen, law, sigma, draws), y, out)
        if law == "heldout" and not specimen.name:  # outlives this noise level: `affine_map`
            specimen.keep(("affine", sigma, draws), lambda: (found.weight, found.bias))
        return found

    return specimen.once(("linear_fit", law, sigma, draws), build)


def affine_map(specimen: Specimen, sigma: float, draws: int) -> tuple[Weight, Float[Tensor, " d"]]:
    """W_L and b_L on the held-out law, fitted at most once per snapshot."""

    def build() -> tuple[Weight, Tensor]:
        # Only this noise level's evaluations are in memory, and not for long.
        fit = distil(specimen.only(sigma), "heldout", sigma, draws)
        return fit.weight, fit.bias

    return specimen.keep(("affine", sigma, draws), build)


def rows(size: Size, *, draws: int = 16, modes: int = 10, laws: Sequence[str] = INPUTS) -> Rows:
    """Evaluations: `draws` noisy versions of every input of each law."""
    return of_laws(size, laws, draws)


def measure(
    specimen: Specimen, *, draws: int = 16, modes: int = 10, laws: Sequence[str] = INPUTS
) -> xr.Dataset:
    """Affine fit of the denoiser on `draws` noisy versions of each input of each of `laws`.

    `modes` is the number of leading modes compared, at most the rank of the training points.
    """
    cells, images = [], []
    for sigma in specimen.sigmas:
        cells.append(by_law(laws, lambda law, s=sigma: _cell(specimen, law, s, draws, modes)))
        if "heldout" in laws:
            fit = distil(specimen, "heldout", sigma, draws)
            images.append(
                {
                    "affine_residual_image": fit.residual.float(),
                    "affine_variance_image": fit.variance.float(),
                }
            )
    values = stack(cells) | (stack(images) if images else {})
    return dataset(specimen.sigmas, values, LABELS | IMAGE)


def reference(
    subset: Subset, *, draws: int = 16, modes: int = 10, laws: Sequence[str] = INPUTS
) -> xr.Dataset:
    """The same numbers of D_M, the denoiser that has memorized its points completely."""
    oracle = Specimen.of_oracle(subset, "empirical")
    cells = [
        by_law(laws, lambda law, s=sigma: _cell(oracle, law, s, draws, modes))
        for sigma in subset.sigmas
    ]
    labels = suffixed(LABELS, "empirical", "of the empirical oracle")
    return dataset(subset.sigmas, tagged(stack(cells), "empirical"), labels)


def _design(specimen: Specimen, law: str, sigma: float, draws: int) -> Design:
    def build() -> Design:
        y = specimen.inputs(law, sigma, draws)[1]
        seen = specimen.moments if law == "train" else specimen.pool
        basis = directions(seen, draws * specimen.n_inputs)
        return design(y, specimen.n_points(law), basis)

    if law == "path":  # every denoiser has its own
        return build()
    points = specimen.key[INPUTS.index(law)] if law in ("train", "heldout") else specimen.dim
    key = ("design", points, specimen.stream, law, specimen.n_inputs, sigma.hex(), draws)
    return SHARED.get(key, build)


def _cell(specimen: Specimen, law: str, sigma: float, draws: int, modes: int) -> dict[str, Tensor]:
    """All numbers of one noise level and law."""
    if modes < 1:
        raise ValueError(f"linear_fit: `modes` must be at least 1, got {modes}.")
    fit, points = distil(specimen, law, sigma, draws), specimen.n_points(law)
    share, share_se = ratio_se(fit.residual, fit.variance, points)
    square, square_se = ratio_se(fit.residual, torch.ones_like(fit.residual), points)
    bound = distance_to_best(fit, sigma) / specimen.gaussian.gains(sigma).norm()
    if law == "path" and bound > 0:  # the noise that is left there is not independent
        bound = torch.full_like(bound, torch.nan)
    return {
        "affine_r2": 1 - share,
        "affine_r2_se": share_se,
        "affine_residual_rmse": square.sqrt(),
        "affine_residual_rmse_se": square_se / (2 * square.sqrt()),
        "weight_distance_bound": bound,
    } | weights(fit.weight, fit.weight_error, specimen.gaussian, sigma, modes)
