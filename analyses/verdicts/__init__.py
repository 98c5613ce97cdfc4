"""The published laws, each with the published value, ours with its interval, and a verdict.

`LAWS` holds what is measured on trained networks (L1-L4, L6, L8-L13, L16-L23); the laws with a
closed form are in `analyses.laws`. `judging` has the rule of judgement. Everything is computed
from cubes and their phase groups.
"""

from collections.abc import Mapping, Sequence

import xarray as xr

from analyses.verdicts import (
    agreement,
    capacity,
    clock,
    copying,
    factors,
    gaussian,
    mixture,
    report,
    spectrum,
)
from analyses.verdicts.cells import prepared, replicated
from analyses.verdicts.judging import Law, Measured

__all__ = ["LAWS", "Law", "Measured", "as_markdown", "as_text", "missing", "verdicts"]

_MODULES = (clock, capacity, gaussian, agreement, copying, factors, spectrum, mixture)
LAWS: dict[str, Law] = {
    law.id: law
    for law in sorted(
        (law for module in _MODULES for law in module.LAWS), key=lambda law: int(law.id[1:])
    )
}
"""All laws by identifier, in their order."""
Sweeps = Mapping[str, tuple[xr.Dataset, xr.Dataset]]
"""Name of a sweep -> its cube and phase group."""


def verdicts(
    cube: xr.Dataset, phase: xr.Dataset, others: Sequence[xr.Dataset] = ()
) -> list[tuple[Law, Measured]]:
    """Every law that the cube has the axes and variables for.

    `others` are cubes of other sweeps: L19 compares one with copies to one without.
    """
    ready = _ready(cube, phase, others)
    return [(law, law.measure(*ready)) for law in LAWS.values() if not law.lacks(*ready)]


def missing(
    cube: xr.Dataset, phase: xr.Dataset, others: Sequence[xr.Dataset] = ()
) -> dict[str, str]:
    """Identifier -> what the cube lacks, of every law that cannot be judged by it."""
    ready = _ready(cube, phase, others)
    return {law.id: lacks for law in LAWS.values() if (lacks := law.lacks(*ready))}


def as_text(sweeps: Sweeps) -> str:
    """All verdicts of all sweeps with their numbers; at the end, what no sweep can judge."""
    return report.text(*_all(sweeps))


def as_markdown(sweeps: Sweeps) -> str:
    """A table with a row for each law and sweep, and the numbers behind each row."""
    return report.markdown(*_all(sweeps))


def _ready(
    cube: xr.Dataset, phase: xr.Dataset, others: Sequence[xr.Dataset]
) -> tuple[xr.Dataset, xr.Dataset]:
    own, found = prepared(cube, phase)
    return factors.with_plain(own, [replicated(other) for other in others]), found


def _all(sweeps: Sweeps) -> tuple[list[report.Judged], dict[str, str]]:
    """(sweep, law, measured) by law, and what every sweep lacks: that which lacks least."""
    judged: list[report.Judged] = []
    lacking: dict[str, list[str]] = {law: [] for law in LAWS}
    for name, (cube, phase) in sweeps.items():
        others = [other for key, (other, _) in sweeps.items() if key != name]
        own, found = _ready(cube, phase, others)
        for law in LAWS.values():
            lacks = law.lacks(own, found)
            if lacks:
                lacking[law.id].append(lacks)
            else:
                judged.append((name, law, law.measure(own, found)))
    judged.sort(key=lambda row: list(LAWS).index(row[1].id))
    done = {law.id for _, law, _ in judged}
    return judged, {k: min(v, key=len, default="") for k, v in lacking.items() if k not in done}
