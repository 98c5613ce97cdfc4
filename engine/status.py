"""`diffphase status`: how far a sweep is, from the store alone."""

from typing import Any

import numpy as np

from engine.grid import Cell
from engine.makespan import chances
from engine.spec import Sweep
from engine.store import Store
from engine.work import DONE, FAILED, MEANINGS, NOTED, PENDING, RUNNING, Survey, survey

SHOWN = 10
"""Failures and running trials that are listed."""


def state_of(sweep: Sweep, record: dict, store: Store) -> tuple[dict[str, Any], str]:
    """Counts by status, what runs, what failed and why, time left; as numbers and as text."""
    found = survey(sweep, store, record["prints"], live=True)
    cells = found.cells()
    counts = dict(zip(MEANINGS, np.bincount(cells.ravel(), minlength=5).tolist(), strict=True))
    running = [
        t.address
        for t, row in zip(found.trials, found.pieces[:, :, 0], strict=True)
        if (row == RUNNING).any()
    ]
    failed = {
        str(Cell(found.trials[i], sweep.kimg[j])): found.errors.get((i, j), "unknown reason")
        for i, j in np.argwhere(cells == FAILED).tolist()
    }
    numbers = {
        "sweep": sweep.name,
        "cells": {"total": int(cells.size), **counts},
        "trials": {
            "total": len(found.trials),
            "trained": int((found.pieces[:, :, 0] == DONE).all(1).sum()),
            "running": len(running),
        },
        "stale_pieces": dict(found.stale),
        "running": running,
        "failed": failed,
        "seconds_left": _seconds_left(found, len(running)),
    }
    return numbers, _text(numbers)


def _seconds_left(found: Survey, running: int) -> float | None:
    """Missing kimg at the mean speed of the stored trainings, over the trials that run now.

    Neither what has failed is trained, nor what a search does not ask for.
    """
    seconds = found.noted[:, NOTED.index("train_seconds")]
    kimg = np.where(np.isfinite(seconds), found.sweep.kimg, 0.0)
    last, trained = kimg.argmax(1), np.isfinite(seconds).any(1)
    if not trained.any() or not running:
        return None
    every = np.arange(len(seconds))
    speeds = (seconds / np.array(found.sweep.kimg))[every, last][trained]
    wanted = np.isin(found.pieces[:, :, 0], (PENDING, RUNNING)).any(1) * chances(found)
    missing = (wanted * (found.sweep.kimg[-1] - kimg.max(1))).sum()
    return float(missing * speeds.mean() / running)


def _text(numbers: dict[str, Any]) -> str:
    cells, trials = numbers["cells"], numbers["trials"]
    parts = ", ".join(f"{n} {name}" for name, n in cells.items() if name != "total" and n)
    lines = [
        f"{numbers['sweep']}: {cells['total']} cells: {parts}",
        f"trials: {trials['trained']} of {trials['total']} trained, {trials['running']} running",
    ]
    if numbers["seconds_left"] is not None:
        lines.append(f"about {numbers['seconds_left'] / 60:.1f} minutes of training left")
    for name, n in numbers["stale_pieces"].items():
        if n:
            lines.append(f"stale: {n} pieces of {name}; `diffphase run` recomputes them")
    lines += [f"running {address}" for address in numbers["running"][:SHOWN]]
    lines += [
        f"failed {cell}: {reason}" for cell, reason in list(numbers["failed"].items())[:SHOWN]
    ]
    if len(numbers["failed"]) > SHOWN:
        lines.append(f"... and {len(numbers['failed']) - SHOWN} more failed cells")
    return "\n".join(lines)
