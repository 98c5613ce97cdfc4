"""The verdicts of several sweeps as text and as a Markdown table."""

from collections.abc import Iterable

from analyses.verdicts.judging import Law, Measured, digits

__all__ = ["Judged", "markdown", "number", "text"]

Judged = tuple[str, Law, Measured]
"""Sweep, law, and what the one says about the other."""


def number(found: Measured) -> str:
    """Value with its ends and what these are.

    >>> number(Measured("slope", 1.0, 0.9, 1.1, "95 % interval", [], "agrees"))
    '1 (0.9 to 1.1; 95 % interval)'
    """
    if found.value is None:
        return "not identified"
    if found.low is None or found.high is None:
        return f"{digits(found.value)} (no interval; {found.kind})"
    return f"{digits(found.value)} ({digits(found.low)} to {digits(found.high)}; {found.kind})"


def text(judged: Iterable[Judged], missing: dict[str, str]) -> str:
    """One paragraph a law and sweep, then what could not be judged and why."""
    blocks = []
    for sweep, law, found in judged:
        lines = [
            f"{law.id} {law.statement}: {found.verdict.upper()} (sweep {sweep})",
            f"   published: {law.published} ({law.source}); accepted if: {law.accept}",
            f"   ours: {found.quantity}: {number(found)}",
            *(f"   {line}" for line in found.detail),
        ]
        blocks.append("\n".join(lines))
    if missing:
        lines = ["Not judged, for want of:", *(f"   {k}: {v}" for k, v in missing.items())]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def markdown(judged: Iterable[Judged], missing: dict[str, str]) -> str:
    """A table of all laws, then the numbers behind each row."""
    rows = [
        "| law | published | ours | accepted if | verdict | sweep |",
        "|---|---|---|---|---|---|",
    ]
    details = []
    for sweep, law, found in judged:
        ours = f"{found.quantity}: {number(found)}"
        published = f"{law.published} ({law.source})"
        cells = (f"{law.id} {law.statement}", published, ours, law.accept, found.verdict, sweep)
        rows.append(_row(cells))
        lines = [
            f"### {law.id}, sweep {sweep}",
            "",
            *(f"- {line.strip()}" for line in found.detail),
        ]
        details.append("\n".join(lines))
    rows += [_row((law, "", "", "", "not judged", f"needs {why}")) for law, why in missing.items()]
    return "\n\n".join(["\n".join(rows), *details]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
