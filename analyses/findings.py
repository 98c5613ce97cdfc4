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

from analyses.phase import LEVEL
from analyses.statistics import wilson
from analyses.trials import heldout
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
    lines = [
        "f_mem, the share of samples that copy a training point (much nearer to it than to any "
        f"other), at {kimg:g} kimg; ranges are over trials that differ in seed or draw"
    ]
    verdicts = []
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
        return None, "never above 5 %, so it does not count" if known else "no snapshot measured"
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
    lines, verdicts = [_what_onsets_are(cube)], {}
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
        f"verdict from the bare slope at width {largest}: it holds if the lower end is above 0; "
        "published for tau_mem: slope 1 (arXiv 2505.17638, a citation and not a target)"
    )
    return _overall([v for width, v in verdicts.values() if width == largest]), lines


def _what_onsets_are(cube: xr.Dataset) -> str:
    """What tau_mem is, and how well the number of samples resolves it."""
    text = "tau_mem, the training time in kimg from which f_mem stays above 5 %, as the interval"
    text += " between two snapshots"
    samples = cube.sizes.get("sample")
    if samples is None:
        return text
    low, high = wilson(LEVEL * samples, samples)
    return (
        f"{text}; with {samples} samples the Wilson interval of 5 % is {100 * low:.1f} to "
        f"{100 * high:.1f} %"
    )


def _slope_lines(fit: xr.Dataset, phase: xr.Dataset) -> list[str]:
    """The three regressions of one width."""
    lines = [
        f"bare log-log slope {with_ends(fit, 'tau_mem_slope')} {_kind_of_ends(fit)}",
        f"tau_mem = tau_0 + c n_train: tau_0 = {with_ends(fit, 'tau_mem_offset')} kimg, "
        f"c = {with_ends(fit, 'tau_mem_rate')} kimg",
    ]
    if int(fit["onset_is_range"]):
        lines.insert(1, _admitted(fit))
    if "tau_gauss" in phase:
        place = {k: v for k, v in fit.coords.items() if k in phase["tau_gauss"].dims}
        gauss = phase[["tau_gauss", "tau_gauss_interior"]].sel({**place, "reference": "gaussian"})
        inner = gauss["tau_gauss"].where(gauss["tau_gauss_interior"] == 1)
        lines[-1] += f", beside tau_gauss = {span(inner, '{:g}')} kimg"
    if int(fit["tau_mem_minus_gauss_slope_success"]):
        ends = with_ends(fit, "tau_mem_minus_gauss_slope")
        lines.append(
            f"log-log slope of tau_mem - tau_gauss {ends} (tau_gauss taken at its snapshot)"
        )
    else:
        lines.append("log-log slope of tau_mem - tau_gauss: not identified")
    return lines


def _kind_of_ends(fit: xr.Dataset) -> str:
    """What stands in the brackets behind each estimate."""
    count = int(fit["onset_replicates"])
    if int(fit["onset_is_range"]):
        return f"[range over {count} (seed, draw) replicate(s): too few for an interval]"
    return (
        f"[95 % interval, {count} (seed, draw) replicates: seeds and draws left out in turn, their"
        " samples resampled]"
    )


def _admitted(fit: xr.Dataset) -> str:
    """What the spacing of the snapshots alone leaves open of the slope."""
    low, high = (float(fit[f"tau_mem_slope_admitted_{end}"]) for end in ("low", "high"))
    if np.isnan(low):
        return "  no power law passes through every onset interval"
    return f"  slopes of power laws through every onset interval: {low:.3g} to {high:.3g}"


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
    first, last = (float(cube["kimg"][i]) for i in (0, -1))
    lines = [
        f"RMSE to the Gaussian denoiser of the training points, held-out inputs, sigma "
        f"{phase.attrs['sigma']:g}, width {width}: an interior minimum in kimg, with a fall "
        f"before it (from {first:g} kimg) and a rise after it (to {last:g} kimg) whose paired "
        f"95 % intervals over held-out images exclude 0, in {int((passed & known).sum())} of "
        f"{int(known.sum())} trials{unmeasured(~known)}"
    ]
    for n in cube["n_train"].values:
        at = own.sel(n_train=n)
        changes = (
            f"{what} {span(at[f'denoiser_rmse_{what}'])} "
            f"(intervals above {lowest(at[f'denoiser_rmse_{what}_low'])})"
            for what in ("fall", "rise")
        )
        lines.append(
            f"n_train {n}: minimum {span(at['tau_gauss_rmse'])} at "
            f"{span(at['tau_gauss'], '{:g}')} kimg; {', '.join(changes)}"
        )
    open_ = own["tau_gauss"].notnull() & ~known
    return _every(passed, known, open_), lines + _other_minima(rows)


def _other_minima(rows: xr.Dataset) -> list[str]:
    """argmin over kimg against the other references, one line each."""
    names = [name for name in rows["reference"].values if name != "gaussian"]
    lines = ["argmin over kimg against other references (* = at the first or last snapshot):"]
    for name in names:
        at = rows.sel(reference=name)
        edge = at["tau_gauss"].notnull() & (at["tau_gauss_interior"] == 0)
        parts = (
            f"n={n}: {span(at['tau_gauss'].sel(n_train=n), '{:g}')}"
            f"{'*' if edge.sel(n_train=n).any() else ''}"
            for n in rows["n_train"].values
        )
        lines.append(f"  {name}: {', '.join(parts)}")
    return lines if names else []


def linearity_lost(cube: xr.Dataset, phase: xr.Dataset) -> tuple[str, list[str]]:
    """In every memorizing trial linearity falls from tau_gauss to the last snapshot."""
    names = ("linearity_cosine_centred", "affine_r2")
    missing = _missing(cube, "memorized_fraction") or _missing(
        phase, "tau_gauss", *(f"{name}_fall" for name in names)
    )
    if missing:
        return UNDECIDED, [missing]
    share = cube["memorized_fraction"].isel(kimg=-1, drop=True)
    lines, verdicts = [], []
    if not (share > LEVEL).any():
        lines.append("no trial memorizes more than 5 % at the last snapshot")
    for name in names:
        verdict, found = _loss_of(name, share, phase)
        verdicts.append(verdict)
        lines += [*found, "  " + _spearman(cube, share, name)]
    return _overall(verdicts), lines


def _loss_of(name: str, share: xr.DataArray, phase: xr.Dataset) -> tuple[str, list[str]]:
    """Verdict and numbers of one measure of linearity."""
    fall, low = phase[f"{name}_fall"], phase[f"{name}_fall_low"]
    memorizing, falls = share > LEVEL, low > 0
    known = memorizing & fall.notnull()
    lines = [
        f"{name} falls from tau_gauss to the last snapshot (paired 95 % interval above 0) in "
        f"{int((falls & known).sum())} of {int(known.sum())} memorizing trials"
        f"{unmeasured(memorizing & ~known)}"
    ]
    lines += [f"  not at {where}" for where in places(known & ~falls)]
    for width in share["width"].values:
        if memorizing.sel(width=width).any():
            at = (a.sel(width=width) for a in (share, fall, low, known))
            lines.append(f"  width {width}: {_beside(*at)}")
    return _every(falls, known, memorizing & ~known), lines


def _beside(
    share: xr.DataArray, fall: xr.DataArray, low: xr.DataArray, known: xr.DataArray
) -> str:
    """The falls of one width, beside those at the largest n_train."""
    most = share["n_train"].max()
    share, control, control_low = (a.sel(n_train=most) for a in (share, fall, low))
    count, down = int(control.notnull().sum()), int((control_low > 0).sum())
    text = (
        f"{span(fall.where(known))} (intervals above {lowest(low.where(known))}), beside it at "
        f"n_train {int(most)}, where f_mem is {span(share)}: {span(control)}"
    )
    if (share > LEVEL).any():
        return f"{text}; it memorizes as well, so it is no comparison"
    if down:
        text += f"; falls there too ({down} of {count} trials): no sign of copying by itself"
    return text


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


def _every(passed: xr.DataArray, known: xr.DataArray, missing: xr.DataArray) -> str:
    """Verdict of a claim about every trial: one that is missing leaves it open."""
    if bool((known & ~passed).any()):
        return FAILS
    return HOLDS if known.any() and not missing.any() else UNDECIDED


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
