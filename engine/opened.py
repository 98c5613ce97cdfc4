"""The folder of a sweep, opened by its path; imports nothing heavy, so that `status` is quick."""

import itertools
from collections.abc import Iterator

from pydantic import ValidationError

from analyses.relations import RELATIONS
from engine import records
from engine.files import split
from engine.spec import SpecError, Sweep, canonical, parse
from engine.store import Store

LEVELS = {"fixed": ("sigma",), "loguniform": ("sigma_min", "sigma_max")}
"""Facts that the noise levels of a training depend on; of any other density mean and spread."""


def stored(path: str, out: str | None = None) -> tuple[Sweep, dict, Store]:
    """The sweep whose folder `path` is, from the store alone.

    Args:
        out: folder for what is derived from it, if not `path` itself.

    Raises:
        SpecError: the folder holds no sweep.
    """
    store, origin = Store(*split(path), out), f"{path}/sweep.json"
    store.files.check()
    try:
        record = store.files.read_json("sweep.json", records.SWEEP.validate_json)
    except ValidationError as error:
        raise SpecError(f"{origin}: torn or foreign: {records.mistake(error)}") from error
    if record is None:
        raise SpecError(
            f"{path}: no sweep.json there; wanted the folder of a sweep, <storage>/<sweep>"
        )
    sweep = parse(record["sweep"], origin)
    missing = next(_missing(sweep, record["facts"], record["prints"]), None)
    if missing:
        raise SpecError(f"{origin}: torn or foreign: {missing} is missing")
    return sweep, record, store


def _missing(sweep: Sweep, facts: records.Facts, prints: records.Prints) -> Iterator[str]:
    """What the sweep, its facts and its fingerprints name, and one of them does not know."""
    needs = prints.get("needs", {})
    known = {"facts.analyses": facts["analyses"], "prints.pieces": prints["pieces"]}
    for kind, names in known.items():
        yield from (f"{kind}.{name}" for name in sweep.analyses if name not in names)
    of_pairs = {*needs, *itertools.chain(*needs.values())}
    yield from (f"analyses.{name}" for name in sorted(of_pairs - {*sweep.analyses}))
    yield from (f"a pair {name!r}" for name in needs if name not in RELATIONS)
    yield from (f"{key!r} of facts.sizes" for key in _sizes(sweep) if key not in facts["sizes"])
    training = facts["training"]
    levels = LEVELS.get(training.get("noise", ""), ("p_mean", "p_std"))
    numbers = [training[name] for name in levels if training.get(name) is not None]
    yield from (f"facts.training.{name}" for name in levels if training.get(name) is None)
    if levels == LEVELS["loguniform"] and numbers != sorted({*numbers}):
        yield "facts.training.sigma_min below sigma_max"


def _sizes(sweep: Sweep) -> Iterator[str]:
    """What the sizes of networks depend on (`engine.resolve.size_key`), for each of the grid."""
    axes = ["width", *(axis for axis in sweep.axes if axis.startswith("backbone."))]
    for values in itertools.product(*(sweep.axes[axis] for axis in axes)):
        names = (axis.removeprefix("backbone.") for axis in axes)
        yield canonical(dict(zip(names, values, strict=True)))
