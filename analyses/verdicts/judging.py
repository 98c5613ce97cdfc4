r"""What a law is, what a cube says about it, and the rule that turns an interval into a verdict.

A law is accepted in a region A of the measured number, an open interval. *Agrees*: the interval of
the number lies in A; *disagrees*: it has no point in common with A; else *undecided*. Intervals
are 95 % and leave out seeds and training sets in turn (`analyses.variance`): two sources of
variance that are never pooled. With two or three replicates there is no interval, and the range
over them stands in its place: it then agrees or disagrees only as all of them do. A single
replicate decides nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from analyses.onset_laws import MIN_REPLICATES
from analyses.variance import crossed_mean

__all__ = [
    "AGREES",
    "DISAGREES",
    "NEGATIVE",
    "POSITIVE",
    "UNDECIDED",
    "Estimate",
    "Law",
    "Measured",
    "Need",
    "axis",
    "combine",
    "digits",
    "estimate",
    "judge",
    "measured",
    "stored",
    "variables",
]

Verdict = Literal["agrees", "disagrees", "undecided"]
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"
Region = tuple[float, float]
POSITIVE: Region = (0.0, np.inf)
NEGATIVE: Region = (-np.inf, 0.0)
EVERYWHERE: Region = (-np.inf, np.inf)
INTERVAL = "95 % interval"


@dataclass(frozen=True)
class Measured:
    """What one cube says about one law."""

    quantity: str
    """What the number is, and where in the cube it was taken."""
    value: float | None
    """None if the cube does not identify it."""
    low: float | None
    high: float | None
    kind: str
    """"95 % interval", "range over n replicates", or what else stands in the ends."""
    detail: list[str]
    """All the numbers, one sentence a line; first what was trained and on how many replicates."""
    verdict: Verdict


@dataclass(frozen=True)
class Need:
    """Something that a cube must have."""

    words: str
    met: Callable[[xr.Dataset, xr.Dataset], bool]
    """met(cube, phase)"""

    def __str__(self) -> str:
        """The words."""
        return self.words


@dataclass(frozen=True)
class Law:
    """One published law and how a cube is judged by it."""

    id: str
    statement: str
    published: str
    source: str
    accept: str
    """When it is accepted, in words; `measure` applies it."""
    needs: tuple[Need, ...]
    measure: Callable[[xr.Dataset, xr.Dataset], Measured]
    """measure(cube, phase), both as `analyses.verdicts.cells.prepared` makes them."""

    def lacks(self, cube: xr.Dataset, phase: xr.Dataset) -> str:
        """What is missing for a judgement, in words; empty if nothing is."""
        return "; ".join(str(need) for need in self.needs if not need.met(cube, phase))


def variables(*names: str) -> tuple[Need, ...]:
    """Variables of the cube or of its `phase` group, one need each."""

    def variable(name: str) -> Need:
        return Need(
            f"the variable {name}", lambda cube, phase: name in {*cube.variables, *phase.variables}
        )

    return tuple(variable(name) for name in names)


def axis(name: str, least: int) -> Need:
    """An axis of the cube with at least so many values."""
    words = f"an axis {name} of at least {least} values"
    return Need(words, lambda cube, phase: cube.sizes.get(name, 0) >= least)


class Estimate(NamedTuple):
    """A number with two ends, and what they are."""

    value: float
    low: float
    high: float
    kind: str
    count: int
    """(seed, training set) replicates behind it."""

    def __str__(self) -> str:
        """Value and ends to three digits; the kind where it is not the plain 95 % interval."""
        if np.isnan(self.value):
            return "not identified"
        text = f"{digits(self.value)} ({digits(self.low)} to {digits(self.high)}"
        return f"{text})" if self.kind == INTERVAL else f"{text}, {self.kind})"


def digits(x: float) -> str:
    """Three digits; what rounding leaves of 0 is 0."""
    return f"{round(x, 12) + 0.0:.3g}"


def estimate(values: xr.DataArray, within: Region = EVERYWHERE) -> Estimate:
    """Mean over `seed` and `draw` (the training sets), its interval or range; NaN is left out.

    `within` are the bounds of what is measured, at which the interval is cut.

    >>> found = estimate(xr.DataArray([[1.0, 2.0], [2.0, 3.0]], dims=("seed", "draw")))
    >>> found.value, found.kind, found.low < 1 < 3 < found.high
    (2.0, '95 % interval', True)
    >>> estimate(xr.DataArray([[1.0, 2.0]], dims=("seed", "draw"))).kind
    'range over 2 replicates'
    """
    table = values.transpose("seed", "draw").values.astype(float)
    known = ~np.isnan(table)
    count = int(known.sum())
    if count == 0:
        return Estimate(np.nan, np.nan, np.nan, "nothing measured", 0)
    mean, *ends = (float(x) for x in crossed_mean(table))
    low, high = np.clip(ends, *within)
    if count >= MIN_REPLICATES and not np.isnan(low):
        kind = _interval(*(int(known.any(axis=a).sum()) for a in (1, 0)))
        return Estimate(mean, float(low), float(high), kind, count)
    return Estimate(mean, float(np.nanmin(table)), float(np.nanmax(table)), _range(count), count)


def stored(fit: xr.Dataset, name: str) -> Estimate:
    """The estimate `name` of a phase group, a dataset without dims: see `slopes` and `slices`."""
    own = f"{name}_is_range" in fit
    is_range, replicates = (
        int(fit[f"{name}_{x}" if own else f"onset_{x}"]) for x in ("is_range", "replicates")
    )
    value, low, high = (float(fit[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, "nothing measured", 0)
    kind = _range(replicates) if is_range or replicates < MIN_REPLICATES else INTERVAL
    return Estimate(value, low, high, kind, replicates)


def judge(found: Estimate, region: Region) -> Verdict:
    """The verdict of one number by the rule of this module.

    >>> judge(Estimate(1.0, 0.9, 1.1, "95 % interval", 6), (0.8, 1.2))
    'agrees'
    >>> judge(Estimate(1.0, 0.7, 1.1, "95 % interval", 6), (0.8, 1.2))
    'undecided'
    """
    low, high = region
    if found.count < 2 or np.isnan(found.low) or np.isnan(found.high):
        return UNDECIDED
    if low < found.low and found.high < high:
        return AGREES
    return DISAGREES if found.high <= low or found.low >= high else UNDECIDED


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a law that states several things: one that fails fails it.

    >>> combine(["agrees", "undecided"]), combine(["agrees", "disagrees"]), combine([])
    ('undecided', 'disagrees', 'undecided')
    """
    found = list(verdicts)
    if DISAGREES in found:
        return DISAGREES
    return AGREES if found and UNDECIDED not in found else UNDECIDED


def measured(quantity: str, found: Estimate, verdict: Verdict, detail: list[str]) -> Measured:
    """`found` and its verdict; ends that are not known become None."""
    numbers = (None if np.isnan(x) else float(x) for x in found[:3])
    return Measured(quantity, *numbers, found.kind, detail, verdict)


def _interval(seeds: int, draws: int) -> str:
    """Of one level of a factor nothing is known about its variance."""
    alone = "seed" if seeds < 2 else "training set" if draws < 2 else ""
    return f"{INTERVAL} about one {alone}" if alone else INTERVAL


def _range(count: int) -> str:
    return f"range over {count} replicates" if count > 1 else "a single replicate"
