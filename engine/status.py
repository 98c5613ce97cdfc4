"""`diffphase status`: how far a sweep is, from the store alone."""

from typing import Any

import numpy as np

from engine.grid import Cell, moment
from engine.spec import Sweep
from engine.store import Store
from engine.work import DONE, FAILED, RUNNING, survey

SHOWN = 10
"""Failures and running trials that are listed."""


def state_of(sweep: Sweep, record: dict, store: Store) -> tuple[dict[str, Any], str]:
    """Counts by status, what runs, what failed and why, time left; as numbers and as text."""
    found = survey(sweep, store, record["prints"], live=True)
    counts = found.counts()
    cells = found.cells()
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
        "seconds_left": _seconds_left(sweep, store, found.trials, found.pieces, len(running)),
    }
    return numbers, _text(numbers)


def _seconds_left(
    sweep: Sweep, store: Store, trials: list, pieces: np.ndarray, running: int
) -> float | None:
    """Missing kimg at the mean speed of the stored trainings, over the trials that run now."""
    speeds, missing = [], 0.0
    last = sweep.kimg[-1]
    for trial, row in zip(trials, pieces[:, :, 0], strict=True):
        snapshots = store.trial_record(trial).get("snapshots", {}) if (row == DONE).any() else {}
        reached = [k for k in sweep.kimg if moment(k) in snapshots]
        if reached:
            speeds.append(snapshots[moment(reached[-1])]["train_seconds"] / reached[-1])
        missing += 0.0 if (row == DONE).all() else last - (reached[-1] if reached else 0.0)
    if not speeds or not running:
        return None
    return missing * float(np.mean(speeds)) / running


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
