r"""What a finished sweep shows about memorization, as sentences with their numbers.

Four findings, each with a verdict that the numbers decide: "holds", "does not hold", or
"undecided" where the cube cannot tell. Everything is read from the cube and its `phase` group.
Published values are printed as citations, never as targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from analyses.phase import LEVEL, heldout
from analyses.wording import (
    lowest,
    onsets_by_n,
    places,
    shares_by_n,
    span,
    subject,
    unmeasured,
    with_ends,
)

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
TITLES = (
    "The memorized fraction falls with n_train",
    "Memorization sets in later at larger n_train",
    "Training passes closest to the Gaussian denoiser, then leaves it",
    "Memorizing denoisers lose linearity after the Gaussian stage",
)


@dataclass(frozen=True)
class Finding:
    """One claim about the sweep."""

    title: str
    verdict: str
    """"holds", "does not hold" or "undecided"."""
    lines: list[str]
    """The numbers behind the verdict."""


def findings(cube: xr.Dataset, phase: xr.Dataset) -> list[Finding]:
    """The four findings of a cube and its `phase` group, in a fixed order."""
    checks = (fraction_falls, onset_grows, gaussian_stage, linearity_lost)
    return [
        Finding(f"{title} ({subject(cube)})", *check(cube, phase))
        for title, check in zip(TITLES, checks, strict=True)
    ]


def as_text(findings: list[Finding]) -> str:
    """Findings as numbered plain text."""
    blocks = [
        "\n".join([f"{i}. {f.title}: {f.verdict.upper()}", *(f"   {line}" for line in f.lines)])
        for i, f in enumerate(findings, 1)
    ]
    return "\n\n".join(blocks)


def fraction_falls(cube: xr.Dataset, phase: xr.Dataset) -> tuple[str, list[str]]:
    """At every memorizing width, the last f_mem is non-increasing in n_train within intervals."""
    missing = _missing(cube, "memorized_fraction", "memorized_fraction_low")
    if missing:
        return UNDECIDED, [missing]
    kimg = cube["kimg"].values[-1]
    last = cube[["memorized_fraction", "memorized_fraction_low", "memorized_fraction_high"]]
    last = last.isel(kimg=-1)
    lines, verdicts = [f"f_mem at {kimg:g} kimg, range over the replicates of each width:"], []
    for width in cube["width"].values:
        rows = last.sel(width=width)
        share = rows["memorized_fraction"]
        verdict, why = _falls_at(rows)
        verdicts.append(verdict)
        lines.append(f"width {width}: {shares_by_n(share)}: {why}")
    decided = [v for v in verdicts if v is not None]
    return _overall(decided), lines


def _falls_at(rows: xr.Dataset) -> tuple[str | None, str]:
    """Verdict of one width (None: it has no say) and the reason."""
    share = rows["memorized_fraction"]
    if not (share > LEVEL).any():
        known = bool(share.notnull().any())
        return None, "never above 5 %, so it shows nothing" if known else "no snapshot measured"
    bad, short = [], 0
    for where, row in _replicates(rows):
        row = row.sortby("n_train")
        n = row["n_train"].values
        low, high = (row[f"memorized_fraction_{end}"].values for end in ("low", "high"))
        if len(n) < 2 or np.isnan(low[0]) or np.isnan(high[-1]):
            short += 1
            continue
        rises = [(n[i], n[j]) for j in range(len(n)) for i in range(j) if low[j] > high[i]]
        bad += [f"f_mem rises from n_train {a} to {b} at {where}" for a, b in rises]
        if not low[0] > high[-1]:
            bad.append(
                f"the interval at n_train {n[0]} (lower end {low[0]:.3f}) is not above that at "
                f"{n[-1]} (upper end {high[-1]:.3f}) at {where}"
            )
    if bad:
        return FAILS, "; ".join(bad)
    if short:
        return UNDECIDED, f"{short} replicate(s) without the smallest or the largest n_train"
    return HOLDS, "non-increasing within Wilson intervals, smallest n_train above the largest"


def onset_grows(cube: xr.Dataset, phase: xr.Dataset) -> tuple[str, list[str]]:
    """The onset grows with n_train: its log-log slope is above 0 at the largest width."""
    missing = _missing(phase, "tau_mem_low", "tau_mem_slope")
    if missing:
        return UNDECIDED, [missing]
    lines, verdicts = [], {}
    for where, fit in _groups(phase, "tau_mem_slope"):
        times = phase[["tau_mem_low", "tau_mem_high"]].sel({k: fit[k] for k in fit.coords})
        lines.append(f"{where}: tau_mem in kimg: {onsets_by_n(times)}")
        if not int(fit["tau_mem_slope_success"]):
            lines.append(
                f"  no slope: the onset lies between two snapshots at "
                f"{int(fit['onset_inside'])} n_train, two are needed"
            )
            verdicts[where] = (fit["width"].item(), UNDECIDED)
            continue
        lines += ["  " + line for line in _slope_lines(fit, phase)]
        low, high = float(fit["tau_mem_slope_low"]), float(fit["tau_mem_slope_high"])
        sign = HOLDS if low > 0 else FAILS if high <= 0 else UNDECIDED
        verdicts[where] = (fit["width"].item(), sign)
    largest = max(width for width, _ in verdicts.values())
    lines.append(
        f"verdict from the bare slope at width {largest}; published for tau_mem: slope 1 "
        "(arXiv 2505.17638, a citation and not a target)"
    )
    return _overall([v for width, v in verdicts.values() if width == largest]), lines


def _slope_lines(fit: xr.Dataset, phase: xr.Dataset) -> list[str]:
    """The three regressions of one width."""
    count = int(fit["onset_replicates"])
    kind = (
        f"[range over {count} (seed, draw) replicate(s): too few to resample, so no interval]"
        if int(fit["onset_is_range"])
        else f"[95 % interval, {count} (seed, draw) replicates and their samples resampled]"
    )
    lines = [
        f"bare log-log slope {with_ends(fit, 'tau_mem_slope')} {kind}",
        f"tau_mem = tau_0 + c n_train: tau_0 = {with_ends(fit, 'tau_mem_offset')} kimg, "
        f"c = {with_ends(fit, 'tau_mem_rate')} kimg",
    ]
    if "tau_gauss" in phase:
        place = {k: v for k, v in fit.coords.items() if k in phase["tau_gauss"].dims}
        gauss = phase[["tau_gauss", "tau_gauss_interior"]].sel({**place, "reference": "gaussian"})
        inner = gauss["tau_gauss"].where(gauss["tau_gauss_interior"] == 1)
        lines[-1] += f", beside tau_gauss = {span(inner, '{:g}')} kimg"
    if int(fit["tau_mem_minus_gauss_slope_success"]):
        lines.append(
            f"log-log slope of tau_mem - tau_gauss {with_ends(fit, 'tau_mem_minus_gauss_slope')}"
        )
    else:
        lines.append("log-log slope of tau_mem - tau_gauss: not identified")
    return lines


def gaussian_stage(cube: xr.Dataset, phase: xr.Dataset) -> tuple[str, list[str]]:
    """At the largest width the distance has an interior minimum, with a real fall and rise."""
    missing = _missing(phase, "tau_gauss", "denoiser_rmse_fall", "denoiser_rmse_rise")
    if missing:
        return UNDECIDED, [missing]
    width = cube["width"].values.max()
    rows = phase.sel(width=width)
    own = rows.sel(reference="gaussian")
    passed = (
        (own["tau_gauss_interior"] == 1)
        & (own["denoiser_rmse_fall_low"] > 0)
        & (own["denoiser_rmse_rise_low"] > 0)
    )
    known = own["denoiser_rmse_fall_low"].notnull() & own["denoiser_rmse_rise_low"].notnull()
    lines = [
        f"RMSE to the Gaussian denoiser of the training points, held-out inputs, sigma "
        f"{phase.attrs['sigma']:g}, width {width}: interior minimum with a fall and a rise whose "
        f"paired 95 % intervals exclude 0 in {int((passed & known).sum())} of {int(known.sum())} "
        f"trials{unmeasured(~known)}"
    ]
    for n in cube["n_train"].values:
        at = own.sel(n_train=n)
        lines.append(
            f"n_train {n}: minimum {span(at['tau_gauss_rmse'])} at "
            f"{span(at['tau_gauss'], '{:g}')} kimg; fall {span(at['denoiser_rmse_fall'])} "
            f"(lowest end {lowest(at['denoiser_rmse_fall_low'])}), rise "
            f"{span(at['denoiser_rmse_rise'])} (lowest end "
            f"{lowest(at['denoiser_rmse_rise_low'])}); {_other_minima(rows.sel(n_train=n))}"
        )
    return _share(passed, known), lines


def _other_minima(rows: xr.Dataset) -> str:
    """argmin over kimg against the other references; * = at the first or last snapshot."""
    parts = []
    for name in rows["reference"].values:
        if name != "gaussian":
            at = rows.sel(reference=name)
            edge = at["tau_gauss"].notnull() & (at["tau_gauss_interior"] == 0)
            mark = " (at an end of the range)" if bool(edge.any()) else ""
            parts.append(f"{name} {span(at['tau_gauss'], '{:g}')}{mark}")
    return "argmin against other references: " + ", ".join(parts)


def linearity_lost(cube: xr.Dataset, phase: xr.Dataset) -> tuple[str, list[str]]:
    """In every memorizing trial linearity falls from tau_gauss to the last snapshot."""
    names = ("linearity_cosine_centred", "affine_r2")
    missing = _missing(cube, "memorized_fraction") or _missing(
        phase, "tau_gauss", *(f"{name}_fall" for name in names)
    )
    if missing:
        return UNDECIDED, [missing]
    share = cube["memorized_fraction"].isel(kimg=-1, drop=True)
    memorizing = share > LEVEL
    least = share["n_train"].max()
    lines, verdicts = [], []
    for name in names:
        fall, low = phase[f"{name}_fall"], phase[f"{name}_fall_low"]
        falls = low > 0
        known = memorizing & fall.notnull()
        verdicts.append(_share(falls, known))
        lines.append(
            f"{name} falls from tau_gauss to the last snapshot (paired 95 % interval above 0) in "
            f"{int((falls & known).sum())} of {int(known.sum())} memorizing trials"
            f"{unmeasured(memorizing & ~known)}: "
            f"{span(fall.where(known))}, lowest end {lowest(low.where(known))}"
        )
        bad = known & ~falls
        lines += [f"  not at {where}" for where in places(bad)]
        beside = fall.sel(n_train=least)
        lines.append(
            f"  beside it at n_train {int(least)}, f_mem {span(share.sel(n_train=least))}: "
            f"{span(beside)}, in {int((low.sel(n_train=least) > 0).sum())} of "
            f"{int(beside.notnull().sum())} trials: a fall alone is no sign of memorization"
        )
        lines.append("  " + _spearman(cube, share, name))
    if not memorizing.any():
        lines.insert(0, "no trial memorizes more than 5 % at the last snapshot")
    return _overall(verdicts), lines


def _spearman(cube: xr.Dataset, share: xr.DataArray, name: str) -> str:
    """Rank correlation of the last f_mem with a linearity over trials."""
    if name not in cube:
        return f"Spearman: the cube has no {name}"
    value = heldout(cube, name).isel(kimg=-1, drop=True).transpose(*share.dims)
    known = (share.notnull() & value.notnull()).values
    x, y = share.values[known], value.values[known]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return f"Spearman of f_mem with {name}: too few different values"
    rho = spearmanr(x, y).statistic
    return (
        f"Spearman of f_mem with {name} over {len(x)} trials at the last snapshot: {rho:.2f} "
        "(descriptive: trials share data and width)"
    )


def _missing(source: xr.Dataset, *names: str) -> str:
    """Sentence naming the variables that are absent; empty if none is."""
    absent = [name for name in names if name not in source]
    return f"not measured: {', '.join(absent)}" if absent else ""


def _overall(verdicts: list[str]) -> str:
    """One failure decides; without any verdict, or with an open one, nothing is shown."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and UNDECIDED not in verdicts else UNDECIDED


def _share(passed: xr.DataArray, known: xr.DataArray) -> str:
    """Verdict of a claim about every known trial."""
    if not known.any():
        return UNDECIDED
    return HOLDS if bool((passed | ~known).all()) else FAILS


def _replicates(rows: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Each replicate of a width, with its name."""
    dims = [d for d in rows["memorized_fraction"].dims if d != "n_train"]
    stacked = rows.stack(replicate=dims) if dims else rows.expand_dims("replicate")
    for i in range(stacked.sizes["replicate"]):
        one = stacked.isel(replicate=i)
        yield ", ".join(f"{d}={one[d].item()}" for d in dims), one


def _groups(phase: xr.Dataset, name: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Each width (and split, ...) of the regressions, with its name."""
    names = [str(v) for v in phase.data_vars if phase[v].dims == phase[name].dims]
    chosen = phase[names]
    for index in np.ndindex(phase[name].shape):
        one = chosen.isel(dict(zip(phase[name].dims, index, strict=True)))
        one = one.drop_vars([c for c in one.coords if c not in phase[name].dims])
        shown = [d for d in phase[name].dims if d == "width" or phase.sizes[d] > 1]
        yield ", ".join(f"{d} {one[d].item()}" for d in shown), one
