r"""Distance of a denoiser to the oracles, above all to the Gaussian one.

Between outputs D of the denoiser and R of a reference: RMSE :math:`= E\sqrt{|D-R|^2/d}`, a mean
of roots (arXiv:2410.24060 eq 10), NMSE :math:`= E|D-R|/|D|` (eq 53), and *explained variance*
:math:`1 - E|D-R|^2/E|D|^2` of outputs and of scores :math:`(D-y)/\sigma^2` (arXiv:2311.10892),
also in the reverse direction, relative to R.
References are D_G of the training points and of the pool, D_kappa, D_M, and the denoiser's own
affine fit, cross-fitted.
"""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import mean_se, named_mean, ratio_se, with_se
from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import INPUTS, REFERENCES, Label, by_law, dataset, stack
from analyses.linear_fit import distil
from analyses.oracles import kappa
from analyses.specimen import Specimen, Subset

__all__ = ["distances", "measure", "rank_floor", "reference", "rows"]

DIMS = ("sigma", "reference", "inputs")
LABELS = {
    "denoiser_rmse": Label("distance per pixel to the reference, mean of roots", DIMS, "pixel"),
    "denoiser_nmse": Label("|D - R| / |D|, mean over inputs", DIMS),
    "denoiser_explained_variance_reverse": Label("1 - E|D - R|^2 / E|R|^2 of the outputs", DIMS),
    "score_explained_variance_reverse": Label(
        "1 - E|D - R|^2 / E|R - y|^2, of the scores, relative to the reference's", DIMS
    ),
    "identity_distance": Label("|D(y) - y| / |y|, mean over inputs", ("sigma", "inputs")),
    "identity_cosine": Label("cosine of D(y) and y, mean over inputs", ("sigma", "inputs")),
    "linear_gaussian_rmse": Label(
        "distance per pixel of the denoiser's affine fit to the Gaussian denoiser, mean of roots",
        ("sigma", "inputs"),
        "pixel",
    ),
    "denoiser_explained_variance": Label("1 - E|D - R|^2 / E|D|^2 of the outputs", DIMS),
    "score_explained_variance": Label("1 - E|D - R|^2 / E|D - y|^2, of the scores", DIMS),
    "denoiser_rmse_image": Label(
        "distance per pixel to the Gaussian denoiser of the training points, held-out inputs",
        ("sigma", "image"),
        "pixel",
    ),
}
REFERENCE_LABELS = {
    "kappa": Label("effective noise variance of the finite sample", ("sigma",), "pixel2"),
    "n_eff": Label(
        "training points that share an output of D_M, exp of the entropy, held-out inputs",
        ("sigma",),
    ),
    "empirical_gaussian_rmse": Label(
        "distance per pixel of D_M and D_G, mean of roots", ("sigma", "inputs"), "pixel"
    ),
    "rank_floor": Label(
        "distance per pixel of the identity to the Gaussian denoiser as sigma goes to 0, mean of "
        "roots over held-out images: 0 once the training points span the images",
        units="pixel",
    ),
    "train_eigenvalues": Label(
        "variance of the training points along their principal axes", ("mode",), "pixel2"
    ),
}


def distances(
    out: Float[Tensor, "m d"],
    y: Float[Tensor, "m d"],
    references: Float[Tensor, "r m d"],
    n_points: int,
) -> tuple[dict[str, Float[Tensor, " r"]], Float[Tensor, "r m"]]:
    """The distances with standard errors, and the root of each input "r m" in pixels."""
    squared = (references - out).square().sum(2)
    energy, score = out.square().sum(1), (out - y).square().sum(1)
    theirs, their_score = references.square().sum(2), (references - y).square().sum(2)
    root = (squared / out.shape[1]).sqrt()
    values = {
        "denoiser_rmse": mean_se(root, n_points),
        "denoiser_nmse": mean_se(
            (squared / energy).sqrt(), n_points, (energy > 0).expand_as(squared)
        ),
    }
    for name, power in (
        ("denoiser_explained_variance", energy),
        ("score_explained_variance", score),
        ("denoiser_explained_variance_reverse", theirs),
        ("score_explained_variance_reverse", their_score),
    ):
        share, se = ratio_se(squared, power.expand_as(squared), n_points)
        values[name] = (1 - share, se)
    return with_se(values), root


def rows(size: Size, *, draws: int = 16, laws: Sequence[str] = INPUTS) -> Rows:
    """Evaluations: `draws` noisy versions of every input of each law."""
    return of_laws(size, laws, draws)


def measure(specimen: Specimen, *, draws: int = 16, laws: Sequence[str] = INPUTS) -> xr.Dataset:
    """Distances to the references at the first noisy version of each input of each of `laws`.

    The affine fit among them is fitted on `draws` noisy versions, as in `linear_fit`.
    """
    cells, by_image = [], []
    for sigma in specimen.sigmas:
        roots = {}

        def of_law(law: str, sigma: float = sigma, roots: dict = roots) -> dict[str, Tensor]:
            _, y, out = specimen.evaluate(law, sigma)
            known = [specimen.reference(name, law, sigma)[0] for name in REFERENCES[:-1]]
            fitted = distil(specimen, law, sigma, draws).predicted
            points = specimen.n_points(law)
            values, roots[law] = distances(out[0], y[0], torch.stack([*known, fitted]), points)
            apart = (fitted - known[0]).square().mean(1).sqrt()
            size = y[0].norm(dim=1)
            aligned = (out[0] * y[0]).sum(1) / (out[0].norm(dim=1) * size)
            return (
                values
                | named_mean("linear_gaussian_rmse", apart, points)
                | named_mean("identity_distance", (out[0] - y[0]).norm(dim=1) / size, points)
                | named_mean("identity_cosine", aligned, points)
            )

        # (inputs, reference) as `stack` makes it, to the order of `DIMS`.
        cells.append(
            {name: value.transpose(0, -1) for name, value in by_law(laws, of_law).items()}
        )
        if "heldout" in roots:
            by_image.append(roots["heldout"][REFERENCES.index("gaussian")].float())
    values = stack(cells) | ({"denoiser_rmse_image": torch.stack(by_image)} if by_image else {})
    return dataset(specimen.sigmas, values, LABELS)


def reference(subset: Subset, *, draws: int = 16, laws: Sequence[str] = INPUTS) -> xr.Dataset:
    """What the training points alone decide: kappa, posterior entropy, distance of D_M to D_G.

    `draws` is accepted for symmetry with `measure`; nothing here depends on it.
    """
    memory = Specimen.of_oracle(subset, "empirical")
    cells = []
    for sigma in subset.sigmas:

        def of_law(law: str, sigma: float = sigma) -> dict[str, Tensor]:
            out = memory.evaluate(law, sigma)[2][0]
            apart = (out - memory.reference("gaussian", law, sigma)[0]).square().mean(1).sqrt()
            return named_mean("empirical_gaussian_rmse", apart, subset.n_points(law))

        _, y = subset.inputs("heldout", sigma)
        level = kappa(subset.pool.eigenvalues, len(subset.train), sigma)
        cells.append(
            by_law(laws, of_law)
            | named_mean("n_eff", subset.empirical.n_eff(y[0], sigma), subset.n_inputs)
            | {"kappa": torch.tensor(level, dtype=torch.float64)}
        )
    spectrum = torch.zeros(subset.dim, dtype=torch.float64)
    spectrum[: subset.moments.rank] = subset.moments.eigenvalues
    values = stack(cells) | {"train_eigenvalues": spectrum}
    values |= named_mean("rank_floor", rank_floor(subset), subset.n_inputs)
    return dataset(subset.sigmas, values, REFERENCE_LABELS)


def rank_floor(subset: Subset) -> Float[Tensor, " m"]:
    r"""Root :math:`|(I - UU^T)(x - \mu)|/\sqrt{d}` of each held-out image, in pixels.

    U are the principal axes of the training points, mu their mean: at noise 0 D_G projects on
    them, so that no denoiser near the identity can come nearer to it than this.
    """
    centred = subset.heldout - subset.moments.mean
    basis = subset.moments.basis
    return (centred - centred @ basis @ basis.T).square().mean(1).sqrt()
