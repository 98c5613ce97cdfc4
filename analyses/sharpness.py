"""How sharp the boundary in n_train is, per width and kimg: logistic fits to memorized counts.

Seeds and draws are the replicates of a fit, every split and further axis has its own. See
`transition` for the curve, the intervals and what is done where the data separate.
"""

import numpy as np
import xarray as xr

from analyses.transition import Transition, transition
from analyses.trials import across, labelled, per_trial

__all__ = ["sharpness"]

FIELDS = {
    "n50": ("n_train at which half of the samples are copies, logistic fit", "1"),
    "width": ("width w of the logistic curve in log n_train", "1"),
}
"""What has an interval."""
OTHERS = {
    "n10": "n_train at which 10 % of the samples are copies, logistic fit",
    "n90": "n_train at which 90 % of the samples are copies, logistic fit",
    "dispersion": "residual deviance of the logistic fit per degree of freedom (1: binomial)",
}
FLAGS = {
    "inside": "number of n_train at which the pooled share of copies is neither 0 nor 1",
    "monotone": "1 where the share of copies nowhere rises with n_train beyond its intervals",
    "success": "1 where the logistic curve passes 50 % within the n_train measured and falls",
}


def sharpness(cube: xr.Dataset) -> xr.Dataset:
    """`transition_*` over (*across without n_train, seed and draw, kimg).

    Empty without n_train, or without the raw ratios that say how many samples there are.
    """
    order = across(cube)
    if not {"memorized_fraction", "nearest_ratio"} <= set(cube) or "n_train" not in order:
        return xr.Dataset()
    share = xr.DataArray(
        per_trial(cube, cube["memorized_fraction"], "kimg"), dims=(*order, "kimg")
    )
    replicates = [d for d in ("seed", "draw") if d in order]
    dims = [d for d in share.dims if d not in ("n_train", *replicates)]
    ordered = share.transpose(*dims, *replicates, "n_train").values
    shape = ordered.shape[: len(dims)]
    n = cube["n_train"].values.astype(float)
    sizes = [cube.sizes[d] if d in order else 1 for d in ("seed", "draw")]
    seeds, draws = np.indices(sizes).reshape(2, -1)
    samples = cube["nearest_ratio"].sizes["sample"]
    counts = np.rint(ordered.reshape(*shape, -1, len(n)) * samples)
    found = transition(n, counts, samples, seeds, draws)
    return labelled(cube, dims, **_variables(found))


def _variables(found: Transition) -> dict[str, tuple]:
    """Name -> (array, long_name, units)."""
    out = {}
    for name, (text, units) in FIELDS.items():
        out[f"transition_{name}"] = (getattr(found, name), text, units)
        for end in ("low", "high"):
            value = getattr(found, f"{name}_{end}")
            of = "lower" if end == "low" else "upper"
            out[f"transition_{name}_{end}"] = (value, f"{text}, {of} end of 95 % interval", units)
    for name, text in OTHERS.items():
        out[f"transition_{name}"] = (getattr(found, name), text, "1")
    for name, text in FLAGS.items():
        out[f"transition_{name}"] = (np.asarray(getattr(found, name), np.int8), text, "1")
    return out
