"""Numbers of a cube as text: ranges over trials, intervals, names of trials."""

from collections.abc import Iterator

import numpy as np
import xarray as xr


def subject(cube: xr.Dataset) -> str:
    """Backbone and data set."""
    backbone = cube.attrs.get("backbone", "backbone not recorded")
    return f"{backbone} on {cube.attrs.get('dataset', 'a data set not recorded')}"


def unmeasured(where: xr.DataArray) -> str:
    """How many trials lack a measurement; empty if none."""
    count = int(where.sum())
    return f" ({count} more not measured)" if count else ""


def places(where: xr.DataArray) -> Iterator[str]:
    """Names of the trials at which `where` is true."""
    for index in np.argwhere(where.values):
        yield ", ".join(
            f"{d}={where[d].values[i]}" for d, i in zip(where.dims, index, strict=True)
        )


def shares_by_n(share: xr.DataArray) -> str:
    """f_mem per n_train as a range over replicates."""
    return ", ".join(f"n={n}: {span(share.sel(n_train=n))}" for n in share["n_train"].values)


def onsets_by_n(times: xr.Dataset) -> str:
    """Onset intervals per n_train; where replicates differ, which one has which."""
    parts = []
    for n in times["n_train"].values:
        found = _replicates_by_onset(times.sel(n_train=n))
        texts = [
            onset_text(*ends) + (f" at {' and '.join(names)}" if len(found) > 1 else "")
            for ends, names in sorted(found.items())
        ]
        parts.append(f"n={n}: {' or '.join(texts) if texts else 'missing'}")
    return ", ".join(parts)


def onset_text(low: float, high: float) -> str:
    """An onset interval, or the time after which it must lie."""
    return f"> {low:g}" if np.isinf(high) else f"({low:g}, {high:g}]"


def _replicates_by_onset(times: xr.Dataset) -> dict[tuple[float, float], list[str]]:
    """Names of the replicates that have each interval; those without one are left out."""
    dims = times["tau_mem_low"].dims
    shown = [d for d in dims if times.sizes[d] > 1]
    found: dict[tuple[float, float], list[str]] = {}
    for index in np.ndindex(*(times.sizes[d] for d in dims)):
        one = times.isel(dict(zip(dims, index, strict=True)))
        ends = float(one["tau_mem_low"]), float(one["tau_mem_high"])
        if not np.isnan(ends[0]):
            name = " ".join(f"{d} {one[d].item()}" for d in shown)
            found.setdefault(ends, []).append(name)
    return found


def with_ends(fit: xr.Dataset, name: str) -> str:
    """Estimate with its two ends."""
    value, low, high = (float(fit[name + end]) for end in ("", "_low", "_high"))
    if int(fit["onset_is_range"]) and f"{low:.3g}" == f"{high:.3g}":
        return f"{value:.3g} (the same in every replicate)"
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def span(values: xr.DataArray, form: str = "{:.3f}") -> str:
    """Least to greatest value, one number if they print alike, "missing" if there is none."""
    known = values.values[~np.isnan(values.values)]
    if known.size == 0:
        return "missing"
    low, high = form.format(known.min()), form.format(known.max())
    return low if low == high else f"{low} to {high}"


def lowest(values: xr.DataArray) -> str:
    """Least value as text."""
    known = values.values[~np.isnan(values.values)]
    return f"{known.min():.4f}" if known.size else "missing"
