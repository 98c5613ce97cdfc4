r"""Distance of a denoiser to the oracles, above all to the Gaussian one.

Between outputs D of the denoiser and R of a reference: RMSE :math:`= E\sqrt{|D-R|^2/d}`, a mean
of roots (arXiv:2410.24060 eq 10), NMSE :math:`= E|D-R|/|D|` (eq 53), and *explained variance*
:math:`1 - E|D-R|^2/E|D|^2` of outputs and of scores :math:`(D-y)/\sigma^2` (arXiv:2311.10892).
References are D_G of the training points and of the pool, D_kappa, D_M, and the denoiser's own
affine fit, cross-fitted.
"""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import mean_se, ratio_se
from analyses.labels import INPUTS, REFERENCES, Label, dataset, stack
from analyses.linear_fit import distil
from analyses.oracles import kappa
from analyses.specimen import Specimen, Subset

__all__ = ["distances", "measure", "reference"]

DIMS = ("sigma", "reference", "inputs")
LABELS = {
    "denoiser_rmse": Label("distance per pixel to the reference, mean of roots", DIMS, "pixel"),
    "denoiser_nmse": Label("|D - R| / |D|, mean over inputs", DIMS),
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
    """The four distances with standard errors, and the root of each input "r m" in pixels."""
    squared = (references - out).square().sum(2)
    energy, score = out.square().sum(1), (out - y).square().sum(1)
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
    ):
        share, se = ratio_se(squared, power.expand_as(squared), n_points)
        values[name] = (1 - share, se)
    named = {name: value for name, (value, _) in values.items()}
    return named | {f"{name}_se": se for name, (_, se) in values.items()}, root


def measure(specimen: Specimen, *, draws: int = 16) -> xr.Dataset:
    """Distances to the references at the first noisy version of each input.

    The affine fit among them is fitted on `draws` noisy versions, as in `linear_fit`.
    """
    cells, by_image = [], []
    for sigma in specimen.sigmas:
        laws = []
        for law in INPUTS:
            _, y, out = specimen.evaluate(law, sigma)
            known = [specimen.reference(name, law, sigma)[0] for name in REFERENCES[:-1]]
            fitted = distil(specimen, law, sigma, draws).predicted
            values, root = distances(
                out[0], y[0], torch.stack([*known, fitted]), specimen.n_points(law)
            )
            laws.append(values)
        cells.append({name: value.T for name, value in stack(laws).items()})
        # The last law is the held-out one.
        by_image.append(root[REFERENCES.index("gaussian")].float())
    values = stack(cells) | {"denoiser_rmse_image": torch.stack(by_image)}
    return dataset(specimen.sigmas, values, LABELS)


def reference(subset: Subset, *, draws: int = 16) -> xr.Dataset:
    """What the training points alone decide: kappa, posterior entropy, distance of D_M to D_G.

    `draws` is accepted for symmetry with `measure`; nothing here depends on it.
    """
    cells = []
    for sigma in subset.sigmas:
        laws = []
        for law in INPUTS:
            memory, filtered = (
                subset.reference(name, law, sigma)[0] for name in ("empirical", "gaussian")
            )
            root = (memory - filtered).square().mean(1).sqrt()
            rmse, se = mean_se(root, subset.n_points(law))
            laws.append({"empirical_gaussian_rmse": rmse, "empirical_gaussian_rmse_se": se})
        _, y = subset.inputs("heldout", sigma)
        shared, shared_se = mean_se(subset.empirical.n_eff(y[0], sigma), subset.n_inputs)
        level = kappa(subset.pool.eigenvalues, len(subset.train), sigma)
        cells.append(
            stack(laws)
            | {
                "kappa": torch.tensor(level, dtype=torch.float64),
                "n_eff": shared,
                "n_eff_se": shared_se,
            }
        )
    spectrum = torch.zeros(subset.dim, dtype=torch.float64)
    spectrum[: subset.moments.rank] = subset.moments.eigenvalues
    values = stack(cells) | {"train_eigenvalues": spectrum}
    return dataset(subset.sigmas, values, REFERENCE_LABELS)
