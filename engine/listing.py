"""`diffphase list` and `diffphase plan`: what is registered, and what a sweep would cost."""

import inspect
from collections.abc import Callable
from typing import Any

import sweeps
from engine.cost import Estimate, estimate, warnings
from engine.explain import lines as explained
from engine.job import Job
from engine.makespan import Machine
from engine.resolve import DataFacts
from engine.run import Prepared
from engine.spec import SpecError
from engine.spec import load as load_sweep

KINDS = ("datasets", "architectures", "analyses", "sweeps")


def lines(kind: str) -> list[str]:
    """One line per registered entry: name, what it is, its options."""
    from analyses.registry import ANALYSES
    from analyses.relations import RELATIONS
    from trainables.architectures import ARCHITECTURES
    from trainables.datasets import DATASETS

    if kind == "sweeps":
        return [f"{name:<16} {_question(name)}" for name in sweeps.names()]
    registry: dict[str, tuple[Callable, int]] = {
        "datasets": {n: (f, 0) for n, f in DATASETS.items()},
        "architectures": {n: (f, 2) for n, f in ARCHITECTURES.items()},
        "analyses": {n: (a.measure, 1) for n, a in ANALYSES.items()}
        | {n: (relation.partner, 2) for n, relation in RELATIONS.items()},
    }[kind]
    return [
        f"{name:<16} {_first_line(f)}  [{_options(f, skip)}]"
        for name, (f, skip) in registry.items()
    ]


def _question(name: str) -> str:
    try:
        return load_sweep(sweeps.FOLDER / f"{name}.yaml").question.strip().splitlines()[0]
    except (SpecError, IndexError):
        return ""


def _first_line(function: Callable) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def _options(function: Callable, skip: int) -> str:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    return ", ".join(
        f"{p.name}={p.default}" if p.default is not p.empty else p.name for p in parameters
    )


def planned(prepared: Prepared, machine: Machine | None = None) -> tuple[dict[str, Any], str]:
    """Counts and cost of what a run would do, as numbers and as text."""
    found = prepared.survey()
    job = Job(prepared.sweep, prepared.facts, prepared.prints, prepared.store)
    cost = estimate(job, found, machine)
    numbers = {
        "sweep": prepared.sweep.name,
        "trials": len(found.trials),
        "trials_to_train": found.most(),
        "cells": {"total": len(found.trials) * len(prepared.sweep.kimg), **found.counts()},
        "stale_pieces": dict(found.stale),
        "why": prepared.explain(found),
        "cost": cost.as_json(),
        "warnings": warnings(job, cost),
        "data": prepared.facts.data.model_dump(mode="json"),
    }
    return numbers, _text(prepared, numbers, cost)


def _near(data: DataFacts) -> str:
    if data.n_near_duplicates is None:
        return ""
    return (
        f"; {data.n_near_duplicates} near duplicates and {data.n_near_leaked} near held-out points"
        f" kept (correlation from {data.near_threshold})"
    )


def _time(cost: Estimate) -> list[str]:
    """Cost and time: core-seconds and minutes of cores, or hours of GPUs."""
    hours = cost.on_gpus
    name, unit, time, step = ("GPU-hours", 3600, "hours", 3600) if hours else (
        "core-seconds", 1, "minutes", 60
    )  # fmt: skip
    machine = cost.machine
    on = f"{machine.gpus:g} {machine.gpu}" if hours else f"{machine.cores} cores"
    parts = cost.core_seconds, cost.train_seconds, cost.analysis_seconds
    whole, train, analyses = (seconds / unit for seconds in parts)
    wall, low, high = (seconds / step for seconds in (cost.wall_seconds, *cost.wall_range))
    return [
        f"cost     {whole:.0f} {name} ({train:.0f} training + {analyses:.0f} analyses), from"
        f" {cost.source}",
        f"time     about {wall:.1f} {time} on {on} ({low:.1f} to {high:.1f}), {cost.slots} trials"
        " at a time",
    ]


def _text(prepared: Prepared, numbers: dict[str, Any], cost: Estimate) -> str:
    cells, data = numbers["cells"], prepared.facts.data
    states = ", ".join(f"{n} {name}" for name, n in cells.items() if name != "total" and n)
    axes = ", ".join(f"{axis} {len(values)}" for axis, values in prepared.sweep.axes.items())
    text = [
        f"sweep    {prepared.sweep.name}: {prepared.sweep.question.strip()}",
        f"data     {data.name}: {data.n_pool} training and {data.n_heldout} held-out points of"
        f" {'x'.join(map(str, data.shape))}, sigma_data {data.sigma_data:.3f},"
        f" {data.n_duplicates} duplicates, {data.n_leaked} leaked points removed{_near(data)}",
        f"grid     {numbers['trials']} trials ({axes}) x {len(prepared.sweep.kimg)} kimg"
        f" = {cells['total']} cells: {states}",
        f"to do    {'at most ' if prepared.sweep.search else ''}"
        f"{numbers['trials_to_train']} trials to train",
        *_time(cost),
        f"space    {cost.disk_bytes / 1e6:.0f} MB of disk, about"
        f" {cost.memory_bytes / 1e9:.1f} GB of memory per process",
    ]
    text += [f"warning  {warning}" for warning in numbers["warnings"]]
    text += [
        f"analysis {name:<15} {rows:>9,} evaluations {seconds:>7.2f} s per snapshot"
        for name, (rows, seconds) in cost.analyses.items()
    ]
    text += explained(numbers["why"])
    return "\n".join(text)
