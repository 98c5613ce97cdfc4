"""Which two cells of a grid a pair analysis compares: from coordinates alone.

Both cells share every coordinate but one, and the kimg. They also share latents and held-out
inputs, as all cells do, so that what differs between them is the one coordinate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RELATIONS", "Relation"]

Coordinates = Mapping[str, Any]
Axes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Relation:
    """One way of choosing a partner."""

    partner: Callable[[Coordinates, Axes], dict[str, Any] | None]
    """partner(coordinates, axes) -> the coordinates compared with, None: there are none."""
    without: tuple[str, ...] = ()
    """Axes that the comparison has no place on, because it covers them."""


def twin(at: Coordinates, axes: Axes) -> dict[str, Any] | None:
    """Split b of split a: the same training on disjoint data.

    >>> twin({"split": "a"}, {"split": ["a", "b"]}), twin({"split": "b"}, {"split": ["a", "b"]})
    ({'split': 'b'}, None)
    """
    if at["split"] != "a" or "b" not in axes["split"]:
        return None
    return {**at, "split": "b"}


def rerun(at: Coordinates, axes: Axes) -> dict[str, Any] | None:
    """The next seed: the same data, another initialisation and other noise; the last has none.

    >>> rerun({"seed": 0}, {"seed": [0, 1]}), rerun({"seed": 1}, {"seed": [0, 1]})
    ({'seed': 1}, None)
    """
    seeds = list(axes["seed"])
    after = seeds.index(at["seed"]) + 1
    return {**at, "seed": seeds[after]} if after < len(seeds) else None


def largest(at: Coordinates, axes: Axes) -> dict[str, Any] | None:
    """The largest training set of the same draw, which contains this one; itself has none.

    >>> largest({"n_train": 16}, {"n_train": [16, 64]})
    {'n_train': 64}
    """
    most = max(axes["n_train"])
    return {**at, "n_train": most} if at["n_train"] < most else None


RELATIONS = {
    "twin": Relation(twin, ("split",)),
    "rerun": Relation(rerun),
    "largest": Relation(largest),
}
