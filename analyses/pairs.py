r"""Two cells compared through what they have stored: samples from common latents, and outputs.

With samples :math:`x_A, x_B` of two denoisers from the same latents: :math:`E|x_A-x_B|^2/d`, the
cosine after removing each image's mean pixel, and :math:`\rho = \mathrm{med}|x_A-x_B| /
\mathrm{med}|x_A-a_1|`, a_1 the nearest training point of A (arXiv:2310.02557, 2602.02908); the
*reproducibility* P(cosine > 0.6), here of pixels, and P(mean |x_A-x_B| < 15/255 of the range)
(arXiv:2310.05264); the flow distance :math:`\sqrt{E|x_A-x_B|^2}` (arXiv:2505.20123). With outputs
on the same noisy inputs: their mean squared difference at each sigma. Which two cells, say
`analyses.relations`. Denoisers that are blurry, untrained or share a covariance agree as well:
quality and the prediction for two Gaussian denoisers belong beside these numbers.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cross_split import cross_split_mse
from analyses.estimates import ends, mean_se, named_mean, named_share, root_mean_se, with_se
from analyses.flows import centred_cosine
from analyses.labels import Label, dataset
from analyses.moments import Moments
from analyses.nearest import nearest_two
from analyses.relations import RELATIONS
from analyses.specimen import Subset
from analyses.statistics import RESAMPLES, percentile_interval

__all__ = [
    "Side",
    "agreement",
    "compare",
    "measure_pair",
    "median_ratio",
    "nearest_sample",
    "output_distance",
    "predicted_mse",
]

ALIKE = 0.6
"""Centred cosine above which two images count as the same."""
NEAR = 15 / 127.5
"""Mean absolute difference below which they do: 15/255 of the range of pixels in [-1, 1]."""
ELEMENTS = 2**24
WILSON = "end of its 95% Wilson interval"
BOOTSTRAP = "end of its 95% interval, samples resampled"
LABELS = {
    "mse": Label("squared distance per pixel of samples from the same latents", (), "pixel2"),
    "cosine": Label("cosine of samples from the same latents, each less its mean pixel"),
    "to_train_ratio": Label(
        "median distance of samples from the same latents over that of the own samples to their "
        "nearest training point"
    ),
    "to_train_ratio_low": Label(f"to_train_ratio, lower {BOOTSTRAP}"),
    "to_train_ratio_high": Label(f"to_train_ratio, upper {BOOTSTRAP}"),
    "reproducibility": Label(
        f"share of samples whose pixels, less each image's mean, have a cosine above {ALIKE:g}"
    ),
    "reproducibility_low": Label(f"reproducibility, lower {WILSON}"),
    "reproducibility_high": Label(f"reproducibility, upper {WILSON}"),
    "reproducibility_pixel": Label(
        "share of samples with a mean absolute difference below 15/255 of the pixel range"
    ),
    "reproducibility_pixel_low": Label(f"reproducibility_pixel, lower {WILSON}"),
    "reproducibility_pixel_high": Label(f"reproducibility_pixel, upper {WILSON}"),
    "flow_distance": Label(
        "root of the mean squared distance of samples from the same latents", (), "pixel"
    ),
    "denoiser_mse": Label(
        "squared distance per pixel of outputs on the same noisy held-out images",
        ("sigma",),
        "pixel2",
    ),
    "denoiser_mse_predicted": Label(
        "denoiser_mse that two Gaussian denoisers of independent training sets of this size have "
        "on average, on the same inputs",
        ("sigma",),
        "pixel2",
    ),
    "point_closeness": Label(
        "distance of the nearest own sample minus that of the nearest sample of the other cell",
        ("point",),
        "pixel",
    ),
}
OF = {
    "twin": "of trainings on the disjoint splits a and b",
    "rerun": "of trainings on the same data with this seed and the next",
    "largest": "of trainings with this and with the largest n_train",
}
"""What the two cells are, by the name of their relation."""


@dataclass(frozen=True)
class Side:
    """What one cell has stored."""

    samples: Float[Tensor, "s d"]
    """Samples from the common latents."""
    outputs: Float[Tensor, "k i d"] | None
    """D on the first i noisy held-out inputs at each of k noise levels, if stored."""

    @classmethod
    def of(cls, pieces: xr.Dataset) -> "Side":
        """`samples` (sample, pixel) and, where stored, `outputs` (sigma, input, pixel)."""
        samples, outputs = (
            torch.from_numpy(pieces[name].transpose(*dims).values.astype(np.float64))
            if name in pieces
            else None
            for name, dims in (
                ("samples", ("sample", "pixel")),
                ("outputs", ("sigma", "input", "pixel")),
            )
        )
        if samples is None:
            raise ValueError(f"pairs: needs `samples`, got {', '.join(map(str, pieces))}.")
        return cls(samples, outputs)


def median_ratio(
    numerator: Float[np.ndarray, " s"],
    denominator: Float[np.ndarray, " s"],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """median(numerator) / median(denominator), 95 % interval: (estimate, low, high).

    The items of both are the same and are resampled together. NaN where the denominator's median
    is 0.

    >>> median_ratio(np.array([2.0, 4.0, 6.0]), np.array([2.0, 2.0, 2.0]))
    (2.0, 1.0, 3.0)
    """
    n = len(numerator)
    drawn = np.random.default_rng([seed, n, resamples]).integers(n, size=(resamples, n))
    both = np.stack([numerator, denominator])
    upper, lower = np.median(both[:, np.concatenate([np.arange(n)[None], drawn])], axis=2)
    ratio = upper / np.where(lower > 0, lower, np.nan)
    low, high = percentile_interval(ratio[1:])
    return float(ratio[0]), float(low), float(high)


def agreement(
    xa: Float[Tensor, "s d"], xb: Float[Tensor, "s d"], to_train: Float[Tensor, " s"]
) -> dict[str, Tensor]:
    """How far samples from the same latents agree, with `_se` or `_low` and `_high`.

    `to_train` is the distance of each of `xa` to its nearest training point. Images without
    contrast have no cosine and are left out of it and of the reproducibility.
    """
    s, d = xa.shape
    square = (xa - xb).square().sum(1)
    cosine = centred_cosine(xa, xb)
    known = ~cosine.isnan()
    values = {
        "mse": mean_se(square / d, s),
        "cosine": mean_se(cosine, s, known),
        "flow_distance": root_mean_se(square, s),
    }
    found = with_se(values) | named_share(
        "reproducibility", int((cosine > ALIKE).sum()), int(known.sum())
    )
    near = (xa - xb).abs().mean(1) < NEAR
    found |= named_share("reproducibility_pixel", int(near.sum()), s)
    ratio = median_ratio(square.sqrt().numpy(), to_train.numpy())
    return found | ends("to_train_ratio", *ratio)


def output_distance(a: Float[Tensor, "k i d"], b: Float[Tensor, "k i d"]) -> dict[str, Tensor]:
    """Mean over inputs of |D_A(y) - D_B(y)|^2 / d at each noise level, and its standard error."""
    return named_mean("denoiser_mse", (a - b).square().mean(2), a.shape[1])


def predicted_mse(
    pool: Moments, n: int, sigma: float, y: Float[Tensor, "i d"]
) -> Float[Tensor, " i"]:
    """E|D_A(y) - D_B(y)|^2 / d of the Gaussian denoisers of two independent sets of n points.

    See `analyses.cross_split`; each estimates its own mean too.
    """
    coordinates = (y - pool.mean) @ pool.basis
    summed = cross_split_mse(pool.eigenvalues, n, sigma, coordinates, known_mean=False)
    return summed / pool.dim


def nearest_sample(
    points: Float[Tensor, "n d"], samples: Float[Tensor, "s d"]
) -> Float[Tensor, " n"]:
    """Distance of each point to the nearest of `samples`."""
    # Differences, not |a|^2 - 2ab + |b|^2: a copy would otherwise lie at 1e-7 instead of 0.
    exact = "donot_use_mm_for_euclid_dist"
    rows = max(1, ELEMENTS // len(samples))
    parts = [torch.cdist(part, samples, compute_mode=exact) for part in points.split(rows)]
    return torch.cat([part.amin(1) for part in parts])


def compare(own: Side, other: Side, subset: Subset, prefix: str) -> xr.Dataset:
    """Agreement of two cells under `<prefix>_<name>`; `subset` is the training set of `own`.

    Outputs are compared where both have them. The relation `twin` adds what disjoint training
    sets allow: the prediction for two Gaussian denoisers, and for each training point whether
    having been trained on it draws samples near it (arXiv:2606.14390).
    """
    _check(own, other, subset, prefix)
    nearest = nearest_two(own.samples, subset.train).first
    values = agreement(own.samples, other.samples, nearest)
    if own.outputs is not None and other.outputs is not None:
        values |= output_distance(own.outputs, other.outputs)
        if prefix == "twin":
            values["denoiser_mse_predicted"] = _predicted(subset, own.outputs.shape[1])
    if prefix == "twin":
        near, far = (nearest_sample(subset.train, side.samples) for side in (own, other))
        values["point_closeness"] = near - far
    labels = {
        f"{prefix}_{name}": replace(label, long_name=f"{label.long_name}, {OF[prefix]}")
        for name, label in LABELS.items()
    }
    named = {f"{prefix}_{name}": value for name, value in values.items()}
    return dataset(subset.sigmas, named, labels)


def measure_pair(relation: str, own: xr.Dataset, other: xr.Dataset, subset: Subset) -> xr.Dataset:
    """`compare` for the stored pieces of two cells (see `Side.of`); `subset` is that of `own`."""
    return compare(Side.of(own), Side.of(other), subset, relation)


def _predicted(subset: Subset, n: int) -> Float[Tensor, " k"]:
    """Predicted distance per pixel of two Gaussian denoisers, mean over the first n inputs."""
    levels = []
    for sigma in subset.sigmas:
        y = subset.inputs("heldout", sigma)[1][0, :n]
        levels.append(predicted_mse(subset.pool, len(subset.train), sigma, y).mean())
    return torch.stack(levels)


def _check(own: Side, other: Side, subset: Subset, prefix: str) -> None:
    if prefix not in RELATIONS:
        raise ValueError(f"Unknown relation {prefix!r}: choose from {', '.join(RELATIONS)}.")
    for name in ("samples", "outputs"):
        a, b = (getattr(side, name) for side in (own, other))
        if a is not None and b is not None and a.shape != b.shape:
            raise ValueError(
                f"pairs: both cells need as many {name}, got {tuple(a.shape)} and "
                f"{tuple(b.shape)}."
            )
    if own.outputs is not None and len(own.outputs) != len(subset.sigmas):
        raise ValueError(
            f"pairs: `outputs` has {len(own.outputs)} noise levels, the subset "
            f"{len(subset.sigmas)}."
        )
