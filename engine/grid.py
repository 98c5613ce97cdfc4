"""The grid of a sweep: trials, cells and subsets, identified by coordinates, never by position."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import quote

from analyses.relations import RELATIONS
from engine.spec import SpecError, Sweep, canonical

SUBSET_AXES = ("n_train", "draw", "split")
"""What the training points of a trial depend on."""
MAX_ADDRESS = 200
"""Bytes of a folder name that every file system holds."""


@lru_cache(maxsize=4096, typed=True)
def written(value: Any) -> str:
    """A coordinate as it stands in an address: canonical JSON, text percent-encoded."""
    return quote(value, safe="") if isinstance(value, str) else canonical(value)


@dataclass(frozen=True)
class Point:
    """Coordinates by axis name, in the order of the grid."""

    coordinates: tuple[tuple[str, Any], ...]

    @cached_property
    def address(self) -> str:
        """The readable folder name, e.g. `width=64,n_train=16,seed=0,draw=0,split=a`."""
        return ",".join(f"{axis}={written(value)}" for axis, value in self.coordinates)

    def __getitem__(self, axis: str) -> Any:
        return dict(self.coordinates)[axis]

    def options(self, section: str) -> dict[str, Any]:
        """The swept hyper-parameters of a section, e.g. `training`, by their own names."""
        prefix = section + "."
        return {a.removeprefix(prefix): v for a, v in self.coordinates if a.startswith(prefix)}


class Trial(Point):
    """One point of the across axes: one training."""

    @property
    def subset(self) -> "Subset":
        """The training points of this trial."""
        return Subset(tuple((axis, self[axis]) for axis in SUBSET_AXES))


class Subset(Point):
    """One training set: n_train points of a draw and split. Oracles depend on nothing else."""


@dataclass(frozen=True)
class Cell:
    """One named grid point: a trial at one training time."""

    trial: Trial
    kimg: float

    def __str__(self) -> str:
        return f"{self.trial.address},{moment(self.kimg)}"


def moment(kimg: float) -> str:
    """A training time as it stands in file names.

    >>> moment(16.0), moment(0.5)
    ('kimg=16', 'kimg=0.5')
    """
    return f"kimg={canonical(kimg)}"


def trials(sweep: Sweep) -> list[Trial]:
    """Every trial of the grid, in the order of its axes.

    Raises:
        SpecError: an address would be too long for a folder name.
    """
    found = []
    for values in itertools.product(*sweep.axes.values()):
        trial = Trial(tuple(zip(sweep.axes, values, strict=True)))
        if len(trial.address) > MAX_ADDRESS:
            raise SpecError(
                f"{sweep.name}: the address {trial.address!r} has {len(trial.address)} bytes,"
                f" at most {MAX_ADDRESS} fit a folder name; shorten text or sweep fewer axes"
            )
        found.append(trial)
    return found


def subsets(sweep: Sweep) -> list[Subset]:
    """Every distinct training set of the grid."""
    return list(dict.fromkeys(trial.subset for trial in trials(sweep)))


def partner(trial: Trial, pair: str, sweep: Sweep) -> Trial | None:
    """The trial that a pair analysis compares `trial` with, None if it has none."""
    found = RELATIONS[pair].partner(dict(trial.coordinates), sweep.axes)
    return None if found is None else Trial(tuple((axis, found[axis]) for axis in sweep.axes))


def cells(sweep: Sweep) -> Iterator[Cell]:
    """Every cell of the grid, trial by trial, along kimg."""
    for trial in trials(sweep):
        for kimg in sweep.kimg:
            yield Cell(trial, kimg)


def cube_dim(axis: str) -> str:
    """The axis as a dim of the cube: dots become underscores."""
    return axis.replace(".", "_")


def from_json(text: str) -> Trial:
    """The trial whose coordinates `to_json` wrote."""
    return Trial(tuple((axis, value) for axis, value in json.loads(text)))


def to_json(point: Point) -> str:
    """Coordinates as JSON, in order."""
    return json.dumps([list(pair) for pair in point.coordinates])
