"""Runs a sweep in this process, without Ray: the same functions that the workers call."""

import xarray as xr

from analyses.derived import derived
from engine.analyse import analyse
from engine.gather import build
from engine.job import Job
from engine.resolve import load
from engine.run import prepare
from engine.spec import parse
from engine.trial import train_trial

TINY = {
    "name": "tiny",
    "question": "Is it small enough?",
    "data": {"name": "digits", "n_heldout": 32},
    "backbone": {"name": "mlp", "depth": 1},
    "axes": {"width": [64, 96], "n_train": [8, 16]},
    "kimg": [1, 2],
    "sigmas": [0.2, 1],
    "training": {"batch": 128, "lr": 4e-3, "warmup_kimg": 1},
    "analyses": {
        "linearity": {},
        "linear_fit": {"draws": 4},
        "gaussian": {"draws": 4},
        "generalization": {},
        "memorization": {},
        "samples": {},
    },
    "sampler": {"samples": 16, "steps": 4},
    "numerics": {"eval_batch": 64},
}
"""A sweep file's mapping that trains in well under a second a trial."""
VOLATILE = ["train_seconds", "analysis_seconds"]


def prepared(mapping, storage):
    """The sweep that a mapping describes, checked."""
    return prepare(parse(mapping, "tiny.yaml"), "tiny.yaml", str(storage))


def job_of(ready):
    """What the workers of a run are handed."""
    return Job(ready.sweep, ready.facts, ready.prints, ready.store)


def compute(ready, analyses=None):
    """Everything that is missing, one after the other; returns what was done."""
    job, data = job_of(ready), ready.data or load(ready.sweep, ready.origin)
    todo, done = ready.survey(), []
    for trial, kimg in todo.to_train():
        done += [("train", trial.address, m["kimg"]) for m in train_trial(job, data, trial, kimg)]
    todo = ready.survey()
    for at, names in [*todo.to_reference(), *todo.to_analyse()]:
        groups = {}
        for name in names:
            if analyses is None or name in analyses:
                groups.setdefault(ready.facts.analyses[name].group, []).append(name)
        for group, members in groups.items():
            analyse(job, data, at, group, members)
            done += [("analyse", str(at), name) for name in members]
    return done


def cube_of(ready):
    """The cube of what is stored."""
    facts = ready.facts.model_dump(mode="json")
    return derived(build(ready.store, ready.sweep, facts, ready.survey(), {"test": "1"}))


def stored_cube(folder):
    """The cube on disk, through plain xarray, without what differs between equal runs."""
    found = xr.open_zarr(folder / "results.zarr").load().drop_vars(VOLATILE)
    volatile = ("history", "date_created", "source")
    found.attrs = {
        k: v for k, v in found.attrs.items() if k not in volatile and "version" not in k
    }
    return found


def contents(folder, pattern):
    """Bytes of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob(pattern))}
