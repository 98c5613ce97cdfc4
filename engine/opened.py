"""The folder of a sweep, opened by its path; imports nothing heavy, so that `status` is quick."""

from engine.spec import SpecError, Sweep, parse
from engine.store import Store


def stored(path: str) -> tuple[Sweep, dict, Store]:
    """The sweep whose folder `path` is, from the store alone.

    Raises:
        SpecError: the folder holds no sweep.
    """
    folder = path.rstrip("/")
    storage, _, name = folder.rpartition("/")
    store = Store(storage or ".", name)
    record = store.record()
    if record is None:
        raise SpecError(
            f"{path}: no sweep.json there; wanted the folder of a sweep, <storage>/<sweep>"
        )
    return parse(record["sweep"], f"{path}/sweep.json"), record, store
