"""How far trials differ that differ in seed or draw alone: components of variance per number.

Initialisation and choice of data are crossed (see `variance`). Right- or left-censored onsets have
no middle and are left out, which makes the spread of tau_mem too small where many are.
"""

import numpy as np
import xarray as xr

from analyses.trials import across, heldout, labelled, per_trial
from analyses.variance import components

__all__ = ["spread"]

SOURCES = {
    "seed": "between seeds",
    "draw": "between draws",
    "residual": "left when seeds and draws are accounted for",
}


def spread(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """`<name>_sd_seed`, `_sd_draw`, `_sd_residual` per width, n_train, split and further axis.

    For the log of tau_mem, the last memorized fraction, the distance to the Gaussian denoiser at
    tau_gauss and the last centred linearity; `found` holds tau_mem and tau_gauss. With one level
    of a factor the other's spread includes the rest. Empty with one seed and one draw.
    """
    order = across(cube)
    replicates = [d for d in ("seed", "draw") if d in order]
    if max((cube.sizes[d] for d in replicates), default=1) < 2:
        return xr.Dataset()
    dims = [d for d in order if d not in replicates]
    missing = {d: 1 for d in ("seed", "draw") if d not in order}
    variables = {}
    for name, (values, text, units) in _numbers(cube, found).items():
        array = xr.DataArray(values, dims=order).expand_dims(missing)
        table = components(array.transpose(*dims, "seed", "draw").values)
        for source, where in SOURCES.items():
            what = f"standard deviation {where} of {text}"
            for end in ("", "_low", "_high"):
                label = f"{what}, {end[1:]} end of 95 % interval" if end else what
                number = np.sqrt(getattr(table, source + end))
                variables[f"{name}_sd_{source}{end}"] = (number, label, units)
    return labelled(cube, dims, **variables)


def _numbers(cube: xr.Dataset, found: xr.Dataset) -> dict[str, tuple[np.ndarray, str, str]]:
    """Numbers per trial by name: (values, what they are, units)."""
    out = {}
    order = across(cube)
    if "tau_mem_low" in found:
        low, high = (found[f"tau_mem_{e}"].transpose(*order).values for e in ("low", "high"))
        bounded = (low > 0) & np.isfinite(high)
        middle = 0.5 * np.log(np.where(bounded, low * np.where(bounded, high, 1.0), np.nan))
        out["tau_mem"] = (middle, "log tau_mem (geometric middle of its interval)", "1")
    if "memorized_fraction" in cube:
        last = per_trial(cube, cube["memorized_fraction"], "kimg")[..., -1]
        out["memorized_fraction_final"] = (last, "the memorized fraction at the last kimg", "1")
    if "tau_gauss_rmse" in found and "gaussian" in found["reference"].values:
        least = found["tau_gauss_rmse"].sel(reference="gaussian").transpose(*order)
        text = "the RMSE to the Gaussian denoiser at tau_gauss"
        out["tau_gauss_rmse"] = (least.values, text, found["tau_gauss_rmse"].attrs["units"])
    if "linearity_cosine_centred" in cube:
        curve = per_trial(cube, heldout(cube, "linearity_cosine_centred"), "kimg")
        text = "the centred linearity at the last kimg (held-out inputs, sigma nearest 0.47)"
        out["linearity_cosine_centred_final"] = (curve[..., -1], text, "1")
    return out
