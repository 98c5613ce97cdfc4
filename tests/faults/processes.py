"""The processes of one run, found from its driver's pid alone: nobody else's Ray is touched."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path


def running() -> dict[int, tuple[int, int]]:
    """Parent of every process, and when it was started (ticks since the machine was)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(stat.parent.name)] = int(fields[1]), int(fields[19])
    return found


def below(pid: int) -> dict[int, int]:
    """Children, grandchildren and so on, and when each was started: numbers are given again."""
    every, found, new = running(), {}, {pid: 0}
    while new:
        new = {child: start for child, (parent, start) in every.items() if parent in new}
        found |= new
    return found


def title(pid: int) -> str:
    """Its command line; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def named(pid: int, name: str) -> list[int]:
    """Those below a process whose command line has `name` in it."""
    return [child for child in below(pid) if name in title(child)]


def send(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """A signal to each that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(processes: Mapping[int, int], within: float = 90.0) -> bool:
    """Whether all of them, as `below` gives them, have ended in that time."""
    end = time.monotonic() + within
    while alive := processes.items() & {(pid, start) for pid, (_, start) in running().items()}:
        if time.monotonic() > end:
            print("still alive:", {pid: title(pid) for pid, _ in alive})
            return False
        time.sleep(0.1)
    return True
