"""L3, L4, L23: how onset and boundary go with width and with the number of parameters."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from analyses.onset_laws import Replicates, laws
from analyses.verdicts.cells import NETWORK, rate, setting
from analyses.verdicts.judging import (
    AGREES,
    DISAGREES,
    POSITIVE,
    UNDECIDED,
    Law,
    Measured,
    axis,
    combine,
    estimate,
    judge,
    measured,
    stored,
    variables,
)
from analyses.verdicts.kernels import bounded, exponent_along, slope

__all__ = ["LAWS"]

INVERSE = (-1.2, -0.8)
ROOT = (0.4, 0.6)


def onset(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L3: exponent of tau_mem on width, per n_train, and of c of tau_0 + c n_train."""
    low, high = phase["tau_mem_low"], phase["tau_mem_high"]
    n = low["n_train"].values
    fits = {int(k): exponent_along(low.sel(n_train=k), high.sel(n_train=k), "width") for k in n}
    # The n_train with the most onsets between two snapshots; of several, the largest.
    total = ((low > 0) & np.isfinite(high)).sum([d for d in low.dims if d != "n_train"]).values
    judged = int(n[np.flatnonzero(total == total.max())[-1]])
    inside = bounded(low, high, "width").values
    detail = [setting(cube)]
    detail += [
        f"n_train {k}: exponent of tau_mem on width {fit}, onsets inside the grid at "
        f"{int(inside[i])} width(s)"
        for i, (k, fit) in enumerate(fits.items())
    ]
    if len(n) > 1:
        c = _rates(phase)
        detail.append(
            f"c (kimg) of tau_mem = tau_0 + c n_train: "
            f"{', '.join(f'width {w}: {estimate(c.sel(width=w))}' for w in c['width'].values)}; "
            f"exponent of c on width {estimate(slope(c, 'width'))}"
        )
    quantity = f"exponent of tau_mem on width at n_train {judged}, {rate(cube)}"
    return measured(quantity, fits[judged], judge(fits[judged], INVERSE), detail)


def _rates(phase: xr.Dataset) -> xr.DataArray:
    """c of every width and replicate, NaN where its own onsets do not identify it."""
    names = ("seed", "draw", "n_train")
    low, high = (phase[f"tau_mem_{x}"].transpose("width", *names) for x in ("low", "high"))
    sizes = low.shape[1:3]
    ids = np.indices(sizes).reshape(2, -1)
    n, out = low["n_train"].values.astype(float), []
    for one in range(low.sizes["width"]):
        ends = [a.values[one].astype(float).reshape(-1, len(n)) for a in (low, high)]
        data = Replicates(*ends, np.full_like(ends[0], np.nan), *ids)
        out.append(laws(n, data, np.eye(ids.shape[1]))[0]["tau_mem_rate"][:, 0].reshape(sizes))
    return xr.DataArray(np.stack(out), {"width": low["width"]}, ("width", *names[:2]))


def boundary(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L4: N* rises with kimg and with width; where it does not, the replicates are counted."""
    ends = [phase[f"n_boundary_{x}"].sel(level=0.05, drop=True) for x in ("low", "high")]
    own = phase.sel(criterion="f_mem", slice="steps")
    found = {name: stored(own.sel(axis=name), "exponent") for name in ("kimg", "width")}
    falls = {name: _falls(*ends, name) for name in found}
    detail = [setting(cube), *_slices_of(*ends)]
    detail += [
        f"exponent of N* on {name} with one slope for all values of {other}: {found[name]} "
        f"; N* falls along {name} beyond its intervals in {falls[name]} steps"
        for name, other in (("kimg", "width"), ("width", "kimg"))
    ]
    verdicts = [judge(fit, POSITIVE) for fit in found.values()]
    verdicts += [UNDECIDED if count else AGREES for count in falls.values()]
    weakest = min(found, key=lambda name: np.nan_to_num(found[name].low, nan=-np.inf))
    quantity = f"exponent of N* on {weakest}, the weaker of kimg and width"
    return measured(quantity, found[weakest], combine(verdicts), detail)


def _slices_of(low: xr.DataArray, high: xr.DataArray) -> Iterable[str]:
    """Exponent on kimg at each width, over all times and over their later half (saturation)."""
    late = {"kimg": slice(low.sizes["kimg"] // 2, None)}
    for w in low["width"].values:
        a, b = (x.sel(width=w, drop=True) for x in (low, high))
        yield (
            f"width {w}: exponent of N* on kimg {exponent_along(a, b, 'kimg')}, over the later "
            f"half of the times {exponent_along(a.isel(late), b.isel(late), 'kimg')}"
        )


def _falls(low: xr.DataArray, high: xr.DataArray, dim: str) -> int:
    """Pairs of neighbours at which the later interval lies below the earlier one."""
    axes = [a.transpose(..., dim).values for a in (low, high)]
    return int((axes[1][..., 1:] <= axes[0][..., :-1]).sum())


def parameters(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L23: exponent of N* on the number of parameters at equal kimg and at equal epochs."""
    own = phase.sel(criterion="f_mem", axis="n_params")
    found = {name: stored(own.sel(slice=name), "exponent") for name in ("steps", "epochs")}
    ratio = slope(cube["n_params"].reset_coords(drop=True), "width").item()
    detail = [setting(cube)]
    detail += [
        f"exponent of N* (f_mem above 5 %) on n_params at equal {what}: {found[name]}"
        for name, what in (("steps", "kimg"), ("epochs", "epochs"))
    ]
    detail.append(
        f"here n_params goes as width to the {ratio:.3g}: N/sqrt(P) and N/W differ only by as "
        "much as that differs from 2"
    )
    verdict = combine(judge(fit, ROOT) for fit in found.values())
    if {judge(fit, ROOT) for fit in found.values()} == {AGREES, DISAGREES}:
        detail.append("the slices differ: one exponent is near 1/2, the other is not")
    quantity = "exponent of N* on n_params at equal kimg"
    return measured(quantity, found["steps"], verdict, detail)


WIDTH = axis("width", 2)
LAWS = (
    Law(
        "L3",
        "the onset of memorization comes earlier in wide networks, as 1/width",
        "exponent -1",
        "arXiv:2505.17638",
        "exponent on width in [-1.2, -.8]; reported per n_train, for c, and by the rule of lr",
        (*NETWORK, WIDTH, *variables("tau_mem_low")),
        onset,
    ),
    Law(
        "L4",
        "the boundary N* rises with training time and with width",
        "rises, then saturates",
        "arXiv:2505.17638, fig. 3",
        "both exponents above 0, and N* falls nowhere beyond its intervals",
        (*NETWORK, WIDTH, axis("n_train", 3), *variables("n_boundary_low", "exponent")),
        boundary,
    ),
    Law(
        "L23",
        "the boundary goes as the square root of the number of parameters",
        "exponent 1/2 (2505.20123); as width (2505.17638)",
        "arXiv:2505.20123, arXiv:2505.17638",
        "exponent of N* on n_params in [.4, .6] at equal kimg and at equal epochs",
        (*NETWORK, WIDTH, axis("n_train", 3), *variables("exponent", "n_params")),
        parameters,
    ),
)
