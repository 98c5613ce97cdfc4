"""A sweep's folder that was copied, or that may only be read: what still works there."""

import os
import shutil
import sys
from contextlib import contextmanager

import pytest
import xarray as xr

from engine.publish import gather_at, plot_at, stored
from engine.run import record_run, run
from engine.spec import SpecError
from engine.status import state_of
from tests.engine.helpers import TINY, compute, prepared

SMALL = {
    **TINY,
    "axes": {"width": [64], "n_train": [8, 16]},
    "analyses": {"gaussian": {"draws": 4}, "generalization": {}, "memorization": {}},
}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime"}
REFUSED: list[str] = []


def _refuse(event, args):
    """Tests may run as root, whom permissions do not stop; Python says what it is about to do."""
    if not REFUSED or event not in CHANGES | {"open"} or not isinstance(args[0], str | bytes):
        return
    writes = event != "open" or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and os.path.abspath(os.fsdecode(args[0])).startswith(REFUSED[0]):
        raise PermissionError(13, "Permission denied", args[0])


sys.addaudithook(_refuse)


@contextmanager
def read_only(folder):
    """Whatever would change something below a folder is refused."""
    REFUSED.append(str(folder))
    try:
        yield
    finally:
        REFUSED.clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep with its cube and figures, not to be changed."""
    storage = tmp_path_factory.mktemp("finished")
    ready = prepared(SMALL, storage)
    compute(ready)
    record_run(ready, "test")
    assert run(ready) == 0
    return storage / "tiny"


def test_a_folder_that_may_only_be_read_is_looked_at_gathered_and_drawn_elsewhere(
    finished, tmp_path
):
    before = sorted(finished.rglob("*"))
    out = tmp_path / "out"
    with read_only(finished):
        with pytest.raises(PermissionError):
            (finished / "x").touch()
        assert state_of(*stored(str(finished)))[0]["cells"]["done"] == 4
        for call in (gather_at, plot_at):
            with pytest.raises(SpecError, match=r"cannot be written \(Permission.*--out FOLDER"):
                call(str(finished))
        assert f"{out}/results.zarr" in gather_at(str(finished), out=str(out))
        assert gather_at(str(finished), "csv", str(out)) == f"{out}/results.csv"
        drawn, _ = plot_at(str(finished), out=str(out))
    assert all(name.startswith(f"{out}/figures/") for name in drawn) and drawn
    assert sorted(finished.rglob("*")) == before
    theirs = xr.load_dataset(finished / "results.nc", engine="netcdf4")
    ours = xr.open_zarr(out / "results.zarr").load()
    xr.testing.assert_equal(ours, theirs)


def test_a_cube_that_was_gathered_elsewhere_is_drawn_rather_than_the_folders_own(
    finished, tmp_path
):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy/results.nc").write_bytes(b"of an older sweep")
    gather_at(str(finished), out=str(tmp_path / "out"))
    drawn, _ = plot_at(str(tmp_path / "copy"), out=str(tmp_path / "out"))
    assert drawn


def test_a_copied_folder_lacks_nothing_and_is_run_without_computing(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "elsewhere/tiny")
    folder = str(tmp_path / "elsewhere/tiny")
    ready = prepared(SMALL, tmp_path / "elsewhere")
    assert state_of(*stored(folder))[0]["cells"]["done"] == 4
    assert ready.survey().is_finished and compute(ready) == []
    pieces = {p: p.read_bytes() for p in (tmp_path / "elsewhere").rglob("*.arrow")}
    assert run(ready) == 0
    assert pieces == {p: p.read_bytes() for p in (tmp_path / "elsewhere").rglob("*.arrow")}
    assert f"{folder}/results.nc" in gather_at(folder)
    assert plot_at(folder)[0][0].startswith(folder)
