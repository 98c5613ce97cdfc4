"""What the JSON files of a store hold, checked when they are read: a store may come from anywhere.

Entries of a later version are kept. A record that cannot be read counts as absent: each can be
made again from what else is stored. What holds results (pieces, snapshots, bundles) is `Damaged`.
"""

from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # Python 3.12's own is what pydantic wants, or this

OPEN = ConfigDict(extra="allow")


class Damaged(ValueError):
    """A file of the store is torn or foreign; the message says which, and what to do."""


class Prints(TypedDict):
    """Fingerprints that snapshots and pieces must have."""

    __pydantic_config__ = OPEN
    snapshot: str
    pieces: dict[str, str]
    subset_pieces: dict[str, str]


class Sweep(TypedDict):
    """sweep.json."""

    __pydantic_config__ = OPEN
    sweep: dict[str, Any]
    facts: dict[str, Any]
    identity: dict[str, Any]
    prints: Prints
    versions: NotRequired[dict[str, str]]
    commit: NotRequired[str]
    history: NotRequired[list[str]]


class Trial(TypedDict, total=False):
    """trial.json."""

    __pydantic_config__ = OPEN
    status: str
    fingerprint: str
    snapshots: dict[str, dict[str, int | float]]
    heartbeat: float
    losses: int
    error: str
    traceback: str


class Analysis(TypedDict):
    """One analysis in a receipt."""

    __pydantic_config__ = OPEN
    seconds: NotRequired[float]
    fingerprint: str
    error: NotRequired[str]
    traceback: NotRequired[str]


class Receipt(TypedDict):
    """A receipt in log/."""

    __pydantic_config__ = OPEN
    analyses: dict[str, Analysis]


class Point(TypedDict):
    """One point that a search has asked for."""

    __pydantic_config__ = OPEN
    point: dict[str, Any]


class Search(TypedDict):
    """search.json."""

    __pydantic_config__ = OPEN
    asked: list[Point]


class Cube(TypedDict):
    """cube.json."""

    __pydantic_config__ = OPEN
    state: str


class Claim(TypedDict):
    """A driver's claim on an object store (`engine.lock`)."""

    __pydantic_config__ = OPEN
    host: str
    pid: int
    started: str
    holds: int


SWEEP, TRIAL, RECEIPT, SEARCH, CUBE, CLAIM = map(
    TypeAdapter, (Sweep, Trial, Receipt, Search, Cube, Claim)
)
