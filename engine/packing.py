"""`diffphase pack`: the small files of finished trials in bundles."""

import contextlib
import os

import numpy as np

from engine.bundles import PACKED, pack
from engine.publish import stored
from engine.store import folder
from engine.work import PENDING, RUNNING, survey


def pack_at(path: str) -> str:
    """Pack records, pieces and receipts of the trials of a sweep that lack nothing; says how much.

    Raises:
        Busy: the sweep is being run.
    """
    sweep, record, store = stored(path)
    with store.files.lock():
        found = survey(sweep, store, record["prints"])
        open_ = np.isin(found.cells(), (PENDING, RUNNING)).any(1)
        finished = {
            folder(t) for t, is_open in zip(found.trials, open_, strict=True) if not is_open
        }
        finished |= {
            folder(s) for s, states in found.subsets.items() if PENDING not in states.values()
        }
        before = len(store.files.loose(""))
        loose = [*store.files.loose("trials"), *store.files.loose("subsets")]
        names = [n for n in sorted(loose) if PACKED.fullmatch(n) and _owner(n) in finished]
        moved = pack(store.files, names)
        _remove_empty(store.files.base if store.files.is_local else "", names)
        after = len(store.files.loose(""))
    return f"{store.folder}: {before} files before, {after} after; {moved} packed"


def _owner(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _remove_empty(base: str, names: list[str]) -> None:
    """Folders without files count against quotas too."""
    for place in {name.rpartition("/")[0] for name in names} if base else ():
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(f"{base}/{place}")
            os.rmdir(f"{base}/{_owner(place)}")
