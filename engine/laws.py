"""`diffphase laws`: the closed-form laws checked on this machine, or the verdicts of sweeps."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from engine import export
from engine.opened import stored


def self_check(ids: Sequence[str], console: Console) -> bool:
    """Run the checks called `ids` (all if none) and print a table; whether all agree.

    Raises:
        ValueError: an unknown id.
    """
    from analyses.laws import run_self_checks

    table = Table("law", "statement", "expected", "measured", "verdict", "s", box=None)
    failed = []
    for check, result, seconds in run_self_checks(ids or None):
        verdict = "agrees" if result.agrees else "DISAGREES"
        row = check.id, check.statement, result.expected, result.value, verdict, f"{seconds:.1f}"
        table.add_row(*row)
        if not result.agrees:
            failed.append(f"{check.id}: {result.text}")
    console.print(table, highlight=False, markup=False)
    for text in failed:
        console.print(text, highlight=False, markup=False)
    return not failed


def judge(paths: Sequence[str], *, markdown: bool) -> str:
    """The published laws judged by the cubes of the sweeps in `paths`, as text or Markdown."""
    from analyses.verdicts import as_markdown, as_text

    cubes = {}
    for path in paths:
        sweep, _, store = stored(path)
        cubes[sweep.name] = export.read(store)
    return as_markdown(cubes) if markdown else as_text(cubes)
