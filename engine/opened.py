"""The folder of a sweep, opened by its path; imports nothing heavy, so that `status` is quick."""

from engine.files import split
from engine.spec import SpecError, Sweep, parse
from engine.store import Store


def stored(path: str, out: str | None = None) -> tuple[Sweep, dict, Store]:
    """The sweep whose folder `path` is, from the store alone.

    Args:
        out: folder for what is derived from it, if not `path` itself.

    Raises:
        SpecError: the folder holds no sweep.
    """
    store = Store(*split(path), out)
    store.files.check()
    record = store.record()
    if record is None:
        raise SpecError(
            f"{path}: no sweep.json there; wanted the folder of a sweep, <storage>/<sweep>"
        )
    return parse(record["sweep"], f"{path}/sweep.json"), record, store
