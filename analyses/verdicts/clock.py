"""L1 and L2: how the times of training grow with n_train."""

import numpy as np
import xarray as xr

from analyses.verdicts.cells import NETWORK, options, setting
from analyses.verdicts.judging import (
    AGREES,
    DISAGREES,
    UNDECIDED,
    Estimate,
    Law,
    Measured,
    Verdict,
    axis,
    combine,
    judge,
    measured,
    stored,
    variables,
)
from analyses.verdicts.kernels import exponent_along, judged_width, widened

__all__ = ["LAWS"]

SLOPE = (0.8, 1.2)
FLAT = (-0.2, 0.2)
ONSETS = {
    "tau_mem_slope": "bare log-log slope of tau_mem",
    "tau_mem_offset": "tau_0 (kimg) of tau_mem = tau_0 + c n_train",
    "tau_mem_rate": "c (kimg)",
    "tau_mem_minus_gauss_slope": "log-log slope of tau_mem - tau_gauss",
}


def onset(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L1: slope of tau_mem - tau_gauss in n_train at the largest width with onsets inside."""
    width = judged_width(phase)
    detail = [setting(cube)]
    for w in phase["width"].values:
        fit = phase.sel(width=w)
        numbers = (f"{text} {stored(fit, name)}" for name, text in ONSETS.items())
        ends = [float(fit[f"tau_mem_slope_admitted_{x}"]) for x in ("low", "high")]
        admitted = "no power law passes through every onset interval"
        if not np.isnan(ends[0]):
            between = f"{ends[0]:.3g} to {ends[1]:.3g}"
            admitted = f"power laws through every onset interval have slopes {between}"
        detail.append(
            f"width {w}, {int(fit['onset_replicates'])} replicates, onsets inside the grid at "
            f"{int(fit['onset_inside'])} n_train: {'; '.join(numbers)}; {admitted}"
        )
    found, unit = _in_steps(cube, _after_gauss(phase.sel(width=width)))
    quantity = f"log-log slope of tau_mem - tau_gauss{unit} in n_train, width {width}"
    return measured(quantity, found, judge(found, SLOPE), detail)


def _in_steps(cube: xr.Dataset, slope: Estimate) -> tuple[Estimate, str]:
    """A slope in n_train of a time in steps, and how to call it.

    With a drawn batch steps go as kimg; a step that sees every point has kimg = n_train steps /
    1000, so that the slope of a time in kimg is larger by exactly 1.
    """
    if options(cube, "training").get("sampling") != "full":
        return slope, ""
    ends = {name: getattr(slope, name) - 1 for name in ("value", "low", "high")}
    return slope._replace(**ends), " (in steps of a full batch)"


def _after_gauss(fit: xr.Dataset) -> Estimate:
    """Slope of tau_mem - tau_gauss; a range is extended to what the snapshots leave open."""
    found = stored(fit, "tau_mem_minus_gauss_slope")
    own = fit.sel(reference="gaussian", drop=True)
    gauss = own["tau_gauss"].where(own["tau_gauss_interior"] == 1)
    after = fit["tau_mem_high"] > gauss
    ends = [(fit[f"tau_mem_{x}"] - gauss).where(after).clip(0) for x in ("low", "high")]
    n = fit["n_train"].astype(float).broadcast_like(ends[0])
    flat = [a.transpose(*ends[0].dims).values.ravel() for a in (n, *ends)]
    return widened(found, *flat)


def stages(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L2: slopes of tau_gauss and tau_gen in n_train."""
    gauss = {
        end: phase[f"tau_gauss_{end}"].sel(reference="gaussian", drop=True)
        for end in ("low", "high")
    }
    times = {"tau_gauss": gauss}
    if "tau_gen_low" in phase:
        times["tau_gen"] = {end: phase[f"tau_gen_{end}"] for end in ("low", "high")}
    detail, found = [setting(cube)], {}
    for name, ends in times.items():
        for w in phase["width"].values:
            fit = exponent_along(
                *(ends[x].sel(width=w, drop=True) for x in ("low", "high")), "n_train"
            )
            fit, unit = _in_steps(cube, fit)
            detail.append(f"width {w}: log-log slope of {name}{unit} in n_train {fit}")
            if fit.count:
                found[name] = w, fit
    if "tau_gen" not in times:
        detail.append("tau_gen was not measured (analysis quality): the law cannot be accepted")
    verdicts = [_flat(found[n][1]) if n in found else UNDECIDED for n in ("tau_gauss", "tau_gen")]
    name, (width, fit) = max(
        found.items(), key=lambda item: abs(item[1][1].value), default=("tau_gauss", (0, _none()))
    )
    which = f"slope of {name} in n_train, width {width}, the larger of {' and '.join(found)}"
    return measured(which, fit, combine(verdicts), detail)


def _flat(found: Estimate) -> Verdict:
    """Of a slope that is small but not 0, nothing is said."""
    verdict = judge(found, FLAT)
    return UNDECIDED if verdict == AGREES and not found.low <= 0 <= found.high else verdict


def _none() -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, "nothing measured", 0)


def slices(cube: xr.Dataset, phase: xr.Dataset) -> Measured:
    """L18: exponent of N* on width at equal kimg minus that at equal epochs."""
    own = phase.sel(criterion="f_mem", axis="width")
    found = stored(own, "exponent_steps_minus_epochs")
    parts = [
        f"{name}: {stored(own.sel(slice=name), 'exponent')}"
        for name in ("steps", "epochs", "flops")
    ]
    detail = [
        setting(cube),
        f"exponent of N* (f_mem above 5 %) on width in each slice, {', '.join(parts)}",
        f"difference of steps and epochs, paired by seed and training set: {found}",
    ]
    # Two exponents can be shown to differ, or shown to be equal within the tolerance of L1 and L2.
    apart = found.count > 1 and (found.low > 0 or found.high < 0)
    equal = judge(found, FLAT) == AGREES
    verdict = AGREES if apart else DISAGREES if equal else UNDECIDED
    return measured(
        "exponent of N* on width at equal kimg minus at equal epochs", found, verdict, detail
    )


N_TRAIN = axis("n_train", 3)
LAWS = (
    Law(
        "L1",
        "the onset of memorization is proportional to n_train",
        "slope 1",
        "arXiv:2505.17638",
        "slope of tau_mem - tau_gauss in [.8, 1.2]",
        (*NETWORK, N_TRAIN, *variables("tau_mem_slope", "tau_gauss")),
        onset,
    ),
    Law(
        "L2",
        "the time to quality, and to the Gaussian stage, does not depend on n_train",
        "slope 0",
        "arXiv:2505.17638",
        "both slopes: interval within (-.2, .2) that contains 0",
        (*NETWORK, N_TRAIN, *variables("tau_gauss_low")),
        stages,
    ),
    Law(
        "L18",
        "N* at equal epochs scales otherwise with width than N* at equal steps",
        "implied by L1",
        "no number published",
        "interval of the difference excludes 0 (disagrees: within (-.2, .2) and contains 0)",
        (*NETWORK, N_TRAIN, axis("width", 2), *variables("exponent_steps_minus_epochs")),
        slices,
    ),
)
