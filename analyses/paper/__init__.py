"""The figures of arXiv:2410.24060 from a cube, in the paper's layout, with what it left out.

`draw(number, cube, phase)` gives the picture and the table of exactly its numbers. Beside the
paper's curves stand the oracles that bracket them, intervals or ranges over replicates, the
distance to the finite-sample Gaussian denoiser D_kappa, and the linearity of the affine fit beside
its weight; noise levels that training hardly draws are shaded. "Channels", "epochs" and "N" of the
paper are `width`, `kimg` and `n_train`. Which cells are shown is in `analyses.paper.cells`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.paper import comparisons, distances, pictures, weights
from analyses.paper.cells import Builder, Request, Train
from analyses.paper.compose import compose, tabulate
from analyses.paper.needs import Needs
from analyses.paper.sheets import Mosaic, Sheet
from analyses.wording import subject

__all__ = ["FIGURES_OF_PAPER", "PaperFigure", "draw", "needs", "title"]

LINEARITY = (
    *("linearity_cosine", "linearity_cosine_gaussian", "linearity_cosine_empirical"),
    *(
        "linearity_cosine_centred",
        "linearity_cosine_centred_gaussian",
        "linearity_cosine_centred_empirical",
    ),
)
MIXING = tuple(name.replace("linearity", "mixing") for name in LINEARITY)
RMSE = ("denoiser_rmse", "empirical_gaussian_rmse")
GAPS = (*RMSE, "linear_gaussian_rmse")
FIT = (
    *("weight_distance", "affine_r2"),
    *("weight_distance_empirical", "affine_r2_empirical"),
)
MODEL = ("training_preconditioning", "backbone")


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper."""

    title: str
    needs: Needs
    build: Builder


GAUSSIAN = {"gaussian": RMSE}
TWINS = PaperFigure(
    "Trainings on disjoint data, same noise",
    Needs(
        {"samples": ("samples",), "twin": ("twin_mse", "twin_to_train_ratio")},
        {"n_train": 2, "width": 2, "kimg": 2, "split": 2},
        images=True,
    ),
    pictures.twins,
)
MODELS = PaperFigure(
    "Samples of other models from the same noise",
    Needs({"trajectories": ("trajectory",)}, any_axis=MODEL, images=True),
    pictures.samples_by_model,
)


def _distance(what: str, axis: str, sigma: tuple[float, float] | None = None) -> PaperFigure:
    """Distance to the Gaussian denoiser along an axis."""
    return PaperFigure(
        f"Distance to the Gaussian denoiser by {what}",
        Needs(GAUSSIAN, {axis: 2}, levels=sigma),
        distances.distance_by_axis(axis, sigma),
    )


FIGURES_OF_PAPER: dict[str, PaperFigure] = {
    "1": PaperFigure(
        "Linearity by size of the training set",
        Needs({"linearity": LINEARITY}, {"n_train": 2}),
        distances.linearity_by_n,
    ),
    "2": PaperFigure(
        "How close the denoisers are",
        Needs({"gaussian": GAPS, "trajectories": ("trajectory",)}, images=True),
        distances.closeness,
    ),
    "3": PaperFigure(
        "Samples of the four denoisers from the same noise",
        Needs({"trajectories": ("trajectory",)}, images=True),
        pictures.final_samples,
    ),
    "4": PaperFigure(
        "The affine fit's weights against the Wiener filter's",
        Needs({"linear_fit": FIT, "weight_modes": ("singular_correlation",)}),
        weights.weights_and_vectors,
    ),
    "5": PaperFigure(
        "Memorizing against generalizing",
        Needs(
            {"gaussian": GAPS, "outputs": ("outputs", "outputs_noise")},
            {"n_train": 2},
            level=4.0,
            images=True,
        ),
        distances.memorizing_and_generalizing,
    ),
    "6": _distance("size of the training set", "n_train"),
    "7": _distance("width", "width"),
    "8": _distance("training time", "kimg"),
    "9": TWINS,
    "10": PaperFigure(
        "Linearity by share of the mix",
        Needs({"mixing": MIXING}, {"alpha2": 2}),
        distances.mixing,
    ),
    "11": PaperFigure(
        "Linearity by preconditioning",
        Needs({"linearity": LINEARITY}, {"training_preconditioning": 2}),
        distances.linearity_by_preconditioning,
    ),
    "12": PaperFigure(
        "Samples by size of the training set, and what they are nearest to",
        Needs(
            {"samples": ("samples",), "memorization": ("nearest_distance",)},
            {"n_train": 2},
            images=True,
        ),
        pictures.samples_with_neighbours,
    ),
    "13": PaperFigure(
        "Generalization and linearity by size of the training set",
        Needs(
            {
                "memorization": ("generalization_score",),
                "linearity": tuple(
                    f"linearity_{score}{tail}"
                    for score in ("cosine", "nmse")
                    for tail in ("", "_gaussian", "_empirical")
                ),
            },
            {"n_train": 2},
        ),
        distances.scores,
    ),
    "14": PaperFigure(
        "Symmetry and singular values of the affine fit",
        Needs(
            {
                "linear_fit": ("weight_asymmetry", "weight_asymmetry_empirical"),
                "weight_modes": (
                    *("weight_singular_value", "singular_vector_cosine", "principal_cosine"),
                ),
                "gaussian": ("train_eigenvalues",),
            },
            level=4.0,
        ),
        weights.singular_values,
    ),
    "15": PaperFigure(
        "Distance of the denoiser to the identity",
        Needs({"gaussian": ("identity_distance", "identity_cosine")}, {"n_train": 2}),
        distances.identity,
    ),
    "16": PaperFigure(
        "Distance to the Gaussian denoiser as the noise vanishes",
        Needs(GAUSSIAN, {"n_train": 2, "width": 2}, levels=(0.0, 1.0)),
        distances.low_noise,
    ),
    "17": PaperFigure(
        "Outputs at high noise",
        Needs(
            {"trajectories": ("trajectory",)},
            any_axis=("n_train", "width", "kimg"),
            level=60.0,
            images=True,
        ),
        pictures.high_noise,
    ),
    "18": PaperFigure(
        "Outputs at intermediate noise",
        Needs(
            {"outputs": ("outputs", "outputs_noise")},
            any_axis=("n_train", "width", "kimg"),
            level=4.0,
            images=True,
        ),
        pictures.intermediate_noise,
    ),
    "19": _distance("size of the training set", "n_train", (0.1, 10.0)),
    "20": _distance("width", "width", (0.1, 10.0)),
    "21": _distance("training time", "kimg", (0.1, 10.0)),
    "22": PaperFigure(
        "The affine fit's weights by size of the training set",
        Needs({"linear_fit": FIT}, {"n_train": 2}),
        weights.weight_distance,
    ),
    "23": MODELS,
    "24": PaperFigure(
        "Distance to the Gaussian denoiser by kind of denoiser",
        Needs(GAUSSIAN, any_axis=("training_sigma", *MODEL)),
        comparisons.distances,
    ),
    "25": MODELS,
    "26": TWINS,
    "27": PaperFigure(
        "Absolute and relative distance to the Gaussian denoiser",
        Needs({"gaussian": (*RMSE, "denoiser_nmse")}),
        comparisons.errors,
    ),
    "28": PaperFigure(
        "Singular vectors of the Jacobian",
        Needs({"jacobian": ("jacobian_mode_overlap",)}),
        weights.jacobian_modes,
    ),
    "29": PaperFigure(
        "Leading subspace and asymmetry of the Jacobian",
        Needs({"jacobian": ("jacobian_subspace_overlap", "jacobian_asymmetry")}),
        weights.jacobian_subspace,
    ),
    "30": PaperFigure(
        "Outputs along the leading direction of the Jacobian",
        Needs({"jacobian": ("jacobian_perturbation",)}, images=True),
        pictures.perturbations,
    ),
}
"""The figures by number; two of other data sets are drawn as their first is."""


def title(number: str) -> str:
    """What figure `number` shows."""
    return _figure(number).title


def needs(number: str) -> str:
    """What figure `number` needs of a sweep, in words."""
    return _figure(number).needs.words()


def draw(
    number: str, cube: xr.Dataset, phase: xr.Dataset, train: Train | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Figure `number` of the paper, and the numbers that it shows, one row a point or pixel.

    Args:
        phase: the `phase` group of the cube; without `tau_gauss`, "early" is the first snapshot.
        train: training images "n d" of the trial with given coordinates; they are shown beside
            the samples that are nearest to them.

    Raises:
        ValueError: there is no such figure, or the cube lacks what it needs: the sentence names
            the axis, the analysis and the variables.
    """
    figure = _figure(number)
    lacking = figure.needs.lacking(cube)
    if lacking:
        raise ValueError(
            f"paper/{number} needs {figure.needs.words()}; this cube has {'; '.join(lacking)}."
        )
    try:
        sheet = figure.build(Request(cube, phase, train))
    except ValueError as error:
        raise ValueError(f"paper/{number}: {error}") from error
    if not _measured(sheet):
        raise ValueError(f"paper/{number}: none of its cells is measured yet ({sheet.where}).")
    source = f"As figure {number} of arXiv:2410.24060."
    return compose(sheet, f"{figure.title}: {subject(cube)}", source), tabulate(sheet)


def _measured(sheet: Sheet) -> bool:
    """Whether there is a number to draw, apart from those of the oracles."""
    arrays = [each.images if isinstance(each, Mosaic) else each.values for each in sheet.pictures]
    seen = any(np.isfinite(array).any() for array in arrays)
    return seen or any(each.measured for one in sheet.panels for each in one.lines)


def _figure(number: str) -> PaperFigure:
    if number not in FIGURES_OF_PAPER:
        raise ValueError(
            f"Unknown figure {number!r} of the paper: choose from {', '.join(FIGURES_OF_PAPER)}."
        )
    return FIGURES_OF_PAPER[number]
