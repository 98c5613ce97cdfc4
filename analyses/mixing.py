r"""Linearity at unequal mixes: how the score depends on the share of each input.

As `analyses.linearity`, with :math:`\alpha^2 + \beta^2 = 1` so that the mix :math:`\alpha y_1 +
\beta y_2` keeps the noise at sigma, over several :math:`\alpha^2` and on pairs of held-out inputs
(arXiv:2410.24060, Fig. 10). At :math:`\alpha^2 = 1/2` the numbers are those of `linearity`, from
the same evaluations.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import Label, dataset, stack, suffixed, tagged
from analyses.linearity import ORACLES, heldout_mixes, linearity, mixes, paired
from analyses.specimen import Specimen, Subset

__all__ = ["ALPHA2", "measure", "reference", "rows"]

ALPHA2 = (0.99, 0.8675, 0.745, 0.6225, 0.5)
"""alpha^2 of the paper's figure: five equal steps from 0.99 to 0.5."""
SCORES = ("cosine", "cosine_se", "cosine_centred", "cosine_centred_se")
DIMS = ("sigma", "alpha2")
LABELS = {
    "mixing_cosine": Label(
        "|cosine| of D(mix) and mix of D, mean over pairs of held-out inputs", DIMS
    ),
    "mixing_cosine_centred": Label(
        "|cosine| of D(mix) - D(mu) and mix of D - D(mu), mean over pairs of held-out inputs", DIMS
    ),
    "mixing_dropped": Label("pairs whose centred outputs vanish, left out of the means", DIMS),
}


def rows(size: Size, *, alpha2: Sequence[float] = ALPHA2) -> Rows:
    """Evaluations: the inputs, the even mixes and the mean, the mixes at each other alpha^2."""
    mixed = 2 * size.levels * (size.inputs // 2)
    uneven = sum(share != 0.5 for share in alpha2)
    shared = {"mixes": mixed + size.levels, "uneven mixes": mixed * uneven}
    return of_laws(size, ("heldout",)) | shared


def measure(specimen: Specimen, *, alpha2: Sequence[float] = ALPHA2) -> xr.Dataset:
    """Linearity of the denoiser at each alpha^2 of `alpha2`, all inside (0, 1).

    At the ends the mix would be one of the two inputs, and every denoiser linear.
    """
    _check(alpha2)
    values = stack([_cell(specimen, alpha2, sigma) for sigma in specimen.sigmas])
    return _labelled(specimen, values, LABELS, alpha2)


def reference(subset: Subset, *, alpha2: Sequence[float] = ALPHA2) -> xr.Dataset:
    """The same of D_G (1 when centred) and of D_M."""
    _check(alpha2)
    values, labels = {}, {}
    for name in ORACLES:
        oracle = Specimen.of_oracle(subset, name)
        cells = stack([_cell(oracle, alpha2, sigma) for sigma in subset.sigmas])
        values |= tagged(cells, name)
        labels |= suffixed(LABELS, name, f"of the {name} oracle")
    return _labelled(subset, values, labels, alpha2)


def _cell(specimen: Specimen, alpha2: Sequence[float], sigma: float) -> dict[str, Tensor]:
    """Scores of one noise level, by alpha^2; one call evaluates all mixes but the even ones."""
    pair, mu = paired(specimen, "heldout", sigma), specimen.moments.mean
    even, at_mean = heldout_mixes(specimen, sigma)
    mixed = {share: mixes(pair.y1, pair.y2, mu, share) for share in alpha2 if share != 0.5}
    parts = {0.5: even}
    if mixed:
        out = specimen.apply(torch.cat([*mixed.values()]), sigma)
        parts |= dict(zip(mixed, out.chunk(len(mixed)), strict=True))
    cells = []
    for share in alpha2:
        scores, _ = linearity(pair, parts[share], at_mean, mu, share)
        cell = {f"mixing_{score}": scores[f"linearity_{score}"] for score in SCORES}
        cells.append(cell | {"mixing_dropped": scores["linearity_dropped"].int()})
    return stack(cells)


def _labelled(
    subset: Subset,
    values: dict[str, Tensor],
    labels: dict[str, Label],
    alpha2: Sequence[float],
) -> xr.Dataset:
    attrs = {"long_name": "alpha^2, the first input's share of the mix's noise", "units": "1"}
    coordinate = xr.Variable("alpha2", np.array(alpha2, dtype=np.float64), attrs)
    return dataset(subset.sigmas, values, labels).assign_coords(alpha2=coordinate)


def _check(alpha2: Sequence[float]) -> None:
    wrong = not alpha2 or not all(0 < share < 1 for share in alpha2)
    if wrong or len(set(alpha2)) < len(alpha2):
        raise ValueError(f"mixing: `alpha2` must be distinct and inside (0, 1), got {alpha2}.")
