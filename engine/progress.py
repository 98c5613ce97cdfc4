"""How far a run has come: a live display on a terminal, one line per interval elsewhere."""

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

INTERVAL = 10.0
"""Seconds between lines off a terminal."""


@dataclass
class Count:
    """Done out of total."""

    done: int = 0
    total: int = 0


class Display:
    """Counts of trials, snapshots and analyses, with the time that is likely left."""

    def __init__(
        self, trials: int, snapshots: int, analyses: int, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self.counts = {
            "trials": Count(0, trials),
            "snapshots": Count(0, snapshots),
            "analyses": Count(0, analyses),
        }
        self.failed, self.started, self.printed = 0, time.monotonic(), time.monotonic()
        self.work_total, self.work_done = 0.0, 0.0
        self.live: Progress | None = None

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.tasks = {
                name: self.live.add_task(name, total=count.total, note="")
                for name, count in self.counts.items()
            }
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self._refresh()
            self.live.stop()
        else:
            self._line()

    def expect(self, seconds: float) -> None:
        """Predicted core-seconds of the whole run, for the time that is left."""
        self.work_total = seconds

    def advance(self, name: str, by: int = 1, seconds: float = 0.0) -> None:
        """`by` more of one kind are done, worth `seconds` of the prediction."""
        self.counts[name].done += by
        self.work_done += seconds
        self._refresh()

    def fail(self, message: str, detail: str = "") -> None:
        """Say a failure at once; the first with its traceback."""
        self.failed += 1
        self.console.print(f"[red]failed[/red] {message}", highlight=False, soft_wrap=True)
        if self.failed == 1 and detail:
            self.console.print(detail, style="dim", highlight=False, markup=False)

    def note(self, message: str) -> None:
        """One line of text above the display."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def left(self) -> float | None:
        """Seconds likely left: elapsed time scaled by the work that remains."""
        share = self.work_done / self.work_total if self.work_total else 0.0
        if share < 0.03:
            return None
        return (time.monotonic() - self.started) * max(0.0, 1 / share - 1)

    def _note(self) -> str:
        left = self.left()
        failed = f", {self.failed} failed" if self.failed else ""
        return (f"about {_clock(left)} left" if left is not None else "") + failed

    def _refresh(self) -> None:
        if self.live:
            for name, count in self.counts.items():
                note = self._note() if name == "snapshots" else ""
                self.live.update(
                    self.tasks[name], completed=count.done, total=count.total, note=note
                )
        elif time.monotonic() - self.printed > INTERVAL:
            self._line()

    def _line(self) -> None:
        self.printed = time.monotonic()
        parts = [f"{name} {count.done}/{count.total}" for name, count in self.counts.items()]
        elapsed = _clock(time.monotonic() - self.started)
        note = self._note().strip(", ")
        print(
            f"{elapsed}  {'  '.join(parts)}{'  ' + note if note else ''}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    """Hours only where there are some.

    >>> _clock(75), _clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
