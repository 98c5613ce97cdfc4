r"""How far a denoiser is from commuting with mixing two of its inputs.

With :math:`\alpha = \beta = 1/\sqrt2` the mix :math:`\alpha y_1 + \beta y_2` keeps the noise at
sigma, and the *linearity score* is :math:`E|\cos(D(\alpha y_1 + \beta y_2), \alpha D(y_1) + \beta
D(y_2))|` (arXiv:2410.24060; eq 12 for the normalised error, a ratio of norms, not of squares).
That score is below 1 even for an affine denoiser, by its bias. The *centred* score takes the
same cosine on :math:`D_c(u) = D(\mu+u) - D(\mu)`, :math:`u_i = y_i - \mu`, with mu the training
mean: it is 1 for every affine D. Pairs are two different images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.estimates import mean_se
from analyses.labels import INPUTS, Label, dataset, stack, suffixed, tagged
from analyses.specimen import Denoiser, Specimen, Subset

__all__ = ["Pairs", "cosine", "linearity", "measure", "mixes", "nmse", "pair_up", "reference"]

HALF = 1 / math.sqrt(2)
SAME = 1e-9
"""Differences below this share of the outputs are rounding and have no direction."""
DIMS = ("sigma", "inputs")
LABELS = {
    "linearity_cosine": Label("|cosine| of D(mix) and mix of D, mean over pairs", DIMS),
    "linearity_cosine_centred": Label(
        "|cosine| of D(mix) - D(mu) and mix of D - D(mu), mean over pairs", DIMS
    ),
    "linearity_nmse": Label("|D(mix) - mix of D| / |D(mix)|, mean over pairs", DIMS),
    "linearity_nmse_centred": Label(
        "|D(mix) - mix of D| / |D(mix) - D(mu)|, mixed about the mean, mean over pairs", DIMS
    ),
    "linearity_dropped": Label("pairs whose centred outputs vanish, left out of the means", DIMS),
}
PAIR = {
    "linearity_cosine_centred_pair": Label(
        "|cosine| of D(mix) - D(mu) and mix of D - D(mu), held-out inputs", ("sigma", "pair")
    )
}
ORACLES = ("gaussian", "empirical")


class Pairs(NamedTuple):
    """The noisy inputs of one law that are mixed, and what is known of them."""

    y1: Float[Tensor, "p d"]
    y2: Float[Tensor, "p d"]
    out1: Float[Tensor, "p d"]
    out2: Float[Tensor, "p d"]
    n_points: int


def pair_up(n_inputs: int, n_points: int) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Indices of the two inputs of each pair, floor(n_inputs / 2) pairs of different images.

    Input i shows image i mod `n_points`. Pairs are (i, i + n_inputs // 2) where images do not
    repeat; where they do, that would often pair an image with itself, so input i of the first half
    gets the image 1, 2, ... places further on, one more at each round through the images.
    """
    half = n_inputs // 2
    first = torch.arange(half)
    if n_points > half:
        return first, first + half
    turn, image = first // n_points, first % n_points
    other = (image + 1 + turn % (n_points - 1)) % n_points
    # A round of images that the second half holds only in part is taken from its first round.
    turn = torch.where((turn + 1) * n_points <= half, turn, 0)
    return first, half + turn * n_points + (other - half) % n_points


def cosine(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """|cos(a, b)| by row, in [0, 1]; NaN where a row is 0."""
    return ((a * b).sum(1).abs() / (a.norm(dim=1) * b.norm(dim=1))).clamp(max=1)


def nmse(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """|a - b| / |a| by row (arXiv:2410.24060, eq 12)."""
    return (a - b).norm(dim=1) / a.norm(dim=1)


def mixes(
    y1: Float[Tensor, "p d"], y2: Float[Tensor, "p d"], mu: Float[Tensor, " d"]
) -> Float[Tensor, "q d"]:
    """The p raw mixes, then the p mixes about mu."""
    mix = HALF * (y1 + y2)
    return torch.cat([mix, mix + (1 - 2 * HALF) * mu])


def linearity(
    pairs: Pairs, mixed: Float[Tensor, "q d"], at_mean: Float[Tensor, " d"]
) -> tuple[dict[str, Tensor], Float[Tensor, " p"]]:
    """Scores, standard errors and dropped pairs; and the centred |cosine| by pair (NaN: dropped).

    `mixed` is D on `mixes`, `at_mean` is D(mu).
    """
    raw, centred = mixed.chunk(2)
    sum_of = HALF * (pairs.out1 + pairs.out2)
    a, b = centred - at_mean, sum_of - 2 * HALF * at_mean
    floor = SAME * torch.maximum(raw.norm(dim=1), at_mean.norm())
    keep = (a.norm(dim=1) > floor) & (b.norm(dim=1) > floor)
    cosines = torch.where(keep, cosine(a, b), torch.nan)
    values = {
        "linearity_cosine": (cosine(raw, sum_of), _nonzero(raw, sum_of)),
        "linearity_cosine_centred": (cosines, keep),
        "linearity_nmse": (nmse(raw, sum_of), _nonzero(raw, raw)),
        "linearity_nmse_centred": (nmse(a, b), keep),
    }
    scores = {}
    for name, (value, kept) in values.items():
        scores[name], scores[f"{name}_se"] = mean_se(value, pairs.n_points, kept)
    scores["linearity_dropped"] = (~keep).sum().int()
    return scores, cosines


def measure(specimen: Specimen) -> xr.Dataset:
    """Linearity scores of the denoiser on pairs of noisy inputs."""
    cells, by_pair = [], []
    for sigma in specimen.sigmas:
        laws = [_pairs(specimen, law, specimen.evaluate(law, sigma)) for law in INPUTS]
        scores = _scores(laws, specimen.moments.mean, sigma, specimen.apply)
        cells.append(stack([score for score, _ in scores]))
        by_pair.append(scores[INPUTS.index("heldout")][1].float())
    values = stack(cells) | {"linearity_cosine_centred_pair": torch.stack(by_pair)}
    return dataset(specimen.sigmas, values, LABELS | PAIR)


def reference(subset: Subset) -> xr.Dataset:
    """The same scores of D_G (1 when centred) and of D_M.

    The first is a ceiling; the second is where a network that memorizes everything ends, and no
    bound for one that is not trained at a noise level.
    """
    values, labels = {}, {}
    for name in ORACLES:
        oracle, cells = subset.oracle(name), []
        for sigma in subset.sigmas:
            laws = [
                _pairs(
                    subset,
                    law,
                    (*subset.inputs(law, sigma), subset.reference(name, law, sigma)),
                )
                for law in INPUTS
            ]
            scores = _scores(laws, subset.moments.mean, sigma, oracle)
            cells.append(stack([score for score, _ in scores]))
        values |= tagged(stack(cells), name)
        labels |= suffixed(LABELS, name, f"of the {name} oracle")
    return dataset(subset.sigmas, values, labels)


def _pairs(subset: Subset, law: str, evaluated: tuple[Tensor, Tensor, Tensor]) -> Pairs:
    """Draw 0 of the inputs and outputs of one law, paired."""
    _, y, out = evaluated
    i, j = pair_up(subset.n_inputs, subset.n_points(law))
    return Pairs(y[0, i], y[0, j], out[0, i], out[0, j], subset.n_points(law))


def _scores(
    laws: Sequence[Pairs], mu: Float[Tensor, " d"], sigma: float, denoise: Denoiser
) -> list[tuple[dict[str, Tensor], Tensor]]:
    """One call evaluates the mixes of all laws and the mean, which is then never a lone row."""
    mixed = [mixes(pairs.y1, pairs.y2, mu) for pairs in laws]
    out = denoise(torch.cat([*mixed, mu[None]]), sigma)
    parts = out[:-1].split([len(part) for part in mixed])
    return [linearity(pairs, part, out[-1]) for pairs, part in zip(laws, parts, strict=True)]


def _nonzero(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    return (a.norm(dim=1) > 0) & (b.norm(dim=1) > 0)
