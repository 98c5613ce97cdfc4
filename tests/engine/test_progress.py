"""What a run shows while it works."""

import io

import pytest
from rich.console import Console

from engine import progress
from engine.progress import Display


def test_off_a_terminal_there_is_one_line_per_interval(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Display(2, 4, 8, Console(file=io.StringIO(), force_terminal=False)) as display:
        display.expect(100)
        for _ in range(4):
            now[0] += 6
            display.advance("snapshots", seconds=10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  about")[0] for line in lines] == [
        "0:12  trials 0/2  snapshots 2/4  analyses 0/8",
        "0:24  trials 0/2  snapshots 4/4  analyses 0/8",
        "0:24  trials 0/2  snapshots 4/4  analyses 0/8",
    ]


def test_on_a_terminal_the_counts_are_live_and_a_failure_is_said_once_with_its_traceback():
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True, width=120)
    with Display(2, 4, 8, console) as display:
        display.advance("trials", 2)
        display.fail("training width=64", "Traceback: first")
        display.fail("training width=96", "Traceback: second")
    text = sink.getvalue()
    assert "2/2" in text and "training width=64" in text and "training width=96" in text
    assert "Traceback: first" in text and "Traceback: second" not in text


@pytest.mark.parametrize(("done", "left"), [(0, None), (25, 30.0), (100, 0.0)])
def test_the_time_left_scales_the_time_that_passed(monkeypatch, done, left):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display = Display(1, 1, 1, Console(file=io.StringIO()))
    display.expect(100)
    display.advance("analyses", seconds=done)
    now[0] = 10.0
    assert display.left() == left
