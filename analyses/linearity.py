r"""How far a denoiser is from commuting with mixing two of its inputs.

With :math:`\alpha = \beta = 1/\sqrt2` the mix :math:`\alpha y_1 + \beta y_2` keeps the noise at
sigma, and the *linearity score* is :math:`E|\cos(D(\alpha y_1 + \beta y_2), \alpha D(y_1) + \beta
D(y_2))|` (arXiv:2410.24060; eq 12 for the normalised error, a ratio of norms, not of squares).
That score is below 1 even for an affine denoiser, by its bias. The *centred* score takes the
same cosine on :math:`D_c(u) = D(\mu+u) - D(\mu)`, :math:`u_i = y_i - \mu`, with mu the training
mean: it is 1 for every affine D. The variant about the mean takes :math:`D(\mu+u) - \mu`, and is 1
for the Gaussian denoiser alone. Pairs are two different images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.estimates import mean_se
from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import INPUTS, Label, by_law, dataset, stack, suffixed, tagged
from analyses.specimen import Specimen, Subset

__all__ = [
    "Pairs",
    "cosine",
    "heldout_mixes",
    "linearity",
    "measure",
    "mixes",
    "nmse",
    "pair_up",
    "paired",
    "reference",
    "rows",
]

SAME = 1e-9
"""Differences below this share of the outputs are rounding and have no direction."""
DIMS = ("sigma", "inputs")
LABELS = {
    "linearity_cosine": Label("|cosine| of D(mix) and mix of D, mean over pairs", DIMS),
    "linearity_cosine_centred": Label(
        "|cosine| of D(mix) - D(mu) and mix of D - D(mu), mean over pairs", DIMS
    ),
    "linearity_cosine_mean": Label(
        "|cosine| of D(mix) - mu and mix of D - mu, mixed about the mean, mean over pairs", DIMS
    ),
    "linearity_nmse": Label("|D(mix) - mix of D| / |D(mix)|, mean over pairs", DIMS),
    "linearity_nmse_mix": Label("|D(mix) - mix of D| / |mix of D|, mean over pairs", DIMS),
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
    y1: Float[Tensor, "p d"],
    y2: Float[Tensor, "p d"],
    mu: Float[Tensor, " d"],
    alpha2: float = 0.5,
) -> Float[Tensor, "q d"]:
    """The p raw mixes, then the p mixes about mu; `alpha2` is alpha^2 = 1 - beta^2."""
    alpha, beta = math.sqrt(alpha2), math.sqrt(1 - alpha2)
    mix = alpha * y1 + beta * y2
    return torch.cat([mix, mix + (1 - alpha - beta) * mu])


def linearity(
    pairs: Pairs,
    mixed: Float[Tensor, "q d"],
    at_mean: Float[Tensor, " d"],
    mu: Float[Tensor, " d"],
    alpha2: float = 0.5,
) -> tuple[dict[str, Tensor], Float[Tensor, " p"]]:
    """Scores, standard errors and dropped pairs; and the centred |cosine| by pair (NaN: dropped).

    `mixed` is D on `mixes` of the same `alpha2`, `at_mean` is D(mu).
    """
    alpha, beta = math.sqrt(alpha2), math.sqrt(1 - alpha2)
    raw, centred = mixed.chunk(2)
    sum_of = alpha * pairs.out1 + beta * pairs.out2
    a, b = centred - at_mean, sum_of - (alpha + beta) * at_mean
    floor = SAME * torch.maximum(raw.norm(dim=1), at_mean.norm())
    keep = (a.norm(dim=1) > floor) & (b.norm(dim=1) > floor)
    cosines = torch.where(keep, cosine(a, b), torch.nan)
    about = centred - mu, sum_of - (alpha + beta) * mu
    values = {
        "linearity_cosine": (cosine(raw, sum_of), _nonzero(raw, sum_of)),
        "linearity_cosine_centred": (cosines, keep),
        "linearity_cosine_mean": (cosine(*about), _nonzero(*about)),
        "linearity_nmse": (nmse(raw, sum_of), _nonzero(raw, raw)),
        "linearity_nmse_mix": (nmse(sum_of, raw), _nonzero(sum_of, sum_of)),
        "linearity_nmse_centred": (nmse(a, b), keep),
    }
    scores = {}
    for name, (value, kept) in values.items():
        scores[name], scores[f"{name}_se"] = mean_se(value, pairs.n_points, kept)
    scores["linearity_dropped"] = (~keep).sum().double()
    return scores, cosines


def rows(size: Size, *, laws: Sequence[str] = INPUTS) -> Rows:
    """Evaluations: the first draw of each law, both mixes of each pair, and the mean.

    The held-out mixes are evaluated in any case: their call is shared with `mixing`.
    """
    laws = {*laws, "heldout"}
    paths = min(size.inputs, size.sampler.samples)
    pairs = sum((paths if law == "path" else size.inputs) // 2 for law in laws)
    return of_laws(size, laws) | {"mixes": size.levels * (2 * pairs + 1)}


def measure(specimen: Specimen, *, laws: Sequence[str] = INPUTS) -> xr.Dataset:
    """Linearity scores of the denoiser on pairs of noisy inputs of each of `laws`."""
    cells, by_pair = [], []
    for sigma in specimen.sigmas:
        scores = _scores(specimen, laws, sigma)
        cells.append(by_law(laws, lambda law, found=scores: found[law][0]))
        if "heldout" in laws:
            by_pair.append(scores["heldout"][1].float())
    values = stack(cells) | (
        {"linearity_cosine_centred_pair": torch.stack(by_pair)} if by_pair else {}
    )
    return dataset(specimen.sigmas, values, LABELS | PAIR)


def reference(subset: Subset, *, laws: Sequence[str] = INPUTS) -> xr.Dataset:
    """The same scores of D_G (1 when centred) and of D_M.

    The first is a ceiling; the second is where a network that memorizes everything ends, and no
    bound for one that is not trained at a noise level.
    """
    values, labels = {}, {}
    for name in ORACLES:
        oracle, cells = Specimen.of_oracle(subset, name), []
        for sigma in subset.sigmas:
            scores = _scores(oracle, laws, sigma)
            cells.append(by_law(laws, lambda law, found=scores: found[law][0]))
        values |= tagged(stack(cells), name)
        labels |= suffixed(LABELS, name, f"of the {name} oracle")
    return dataset(subset.sigmas, values, labels)


def _scores(
    specimen: Specimen, laws: Sequence[str], sigma: float
) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Scores by law. One call evaluates the mixes of all other laws than held-out images."""
    mu = specimen.moments.mean
    heldout, at_mean = heldout_mixes(specimen, sigma)
    pairs = {law: paired(specimen, law, sigma) for law in INPUTS if law in laws}
    mixed = {law: mixes(pair.y1, pair.y2, mu) for law, pair in pairs.items() if law != "heldout"}
    parts = {"heldout": heldout}
    if mixed:
        out = specimen.apply(torch.cat([*mixed.values()]), sigma)
        split = out.split([len(part) for part in mixed.values()])
        parts |= dict(zip(mixed, split, strict=True))
    return {law: linearity(pair, parts[law], at_mean, mu) for law, pair in pairs.items()}


def heldout_mixes(
    specimen: Specimen, sigma: float
) -> tuple[Float[Tensor, "q d"], Float[Tensor, " d"]]:
    """D on the even `mixes` of held-out inputs and D(mu), once for all analyses of mixes.

    They are always one call of the same rows: neither a lone row, nor one whose last bits depend
    on which other laws or analyses were asked for.
    """

    def build() -> tuple[Tensor, Tensor]:
        pair, mu = paired(specimen, "heldout", sigma), specimen.moments.mean
        out = specimen.apply(torch.cat([mixes(pair.y1, pair.y2, mu), mu[None]]), sigma)
        return out[:-1], out[-1]

    return specimen.once(("mixes", sigma), build)


def paired(specimen: Specimen, law: str, sigma: float) -> Pairs:
    """Draw 0 of the inputs and outputs of one law, paired."""
    _, y, out = specimen.evaluate(law, sigma)
    i, j = pair_up(y.shape[1], specimen.n_points(law))
    return Pairs(y[0, i], y[0, j], out[0, i], out[0, j], specimen.n_points(law))


def _nonzero(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    return (a.norm(dim=1) > 0) & (b.norm(dim=1) > 0)
