"""A sweep on an object store: the S3 protocol, spoken to a server on loopback."""

import os
import time

import pytest
import xarray as xr

from engine import lock
from engine.files import Files, join, split
from engine.listing import planned
from engine.lock import Busy, Lease
from engine.publish import gather_at, stored
from engine.run import record_run
from engine.spec import SpecError
from engine.status import state_of
from tests.engine.helpers import TINY, VOLATILE, compute, cube_of, prepared
from tests.engine.s3 import bucket

__all__ = ["bucket"]
SMALL = {
    **TINY,
    "axes": {"width": [64], "n_train": [8, 16]},
    "analyses": {"generalization": {}, "memorization": {}, "samples": {}},
}


def test_a_name_is_put_before_the_query_and_taken_from_there():
    uri = "s3://b/p/?scheme=http&endpoint_override=127.0.0.1:9"
    assert join(uri, "x") == "s3://b/p/x?scheme=http&endpoint_override=127.0.0.1:9"
    assert split(join(uri, "x")) == (uri.replace("p/?", "p?"), "x")
    assert join("a?b", "x") == "a?b/x" and split("/x") == ("/", "x")


def test_a_file_of_an_object_store_is_absent_or_whole(bucket):
    files = Files(f"{bucket}/files")
    assert files.listing("") == [] and files.read("a/b") is None and not files.exists("a/b")
    assert files.modified("a/b") is None
    files.delete("a/b")
    name = "trials/width=1,note=%2Fx/trial.json"
    files.write(name, b"{}")
    assert files.listing("") == files.listing("trials") == [name]
    assert files.read(name) == b"{}" and abs(files.modified(name) - time.time()) < 3600
    files.write("empty", b"")
    assert files.read("empty") == b""
    files.delete(name)
    # What is left of the folder, markers without content, is no file.
    assert files.listing("trials") == [] and files.read(name) is None
    assert files.shown == f"{bucket}/files"
    with pytest.raises(ValueError, match="leaves the folder"):
        files.write("../elsewhere", b"")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://nowhere/x", "nowhere"),
        ("s3://sweeps/x?no_such_option=1", "no_such_option"),
        ("s5://sweeps/x", "s5"),
    ],
)
def test_a_store_that_cannot_be_is_bad_input(bucket, uri, said):
    with pytest.raises(SpecError, match=said):
        Files(uri).check(make=True)


def test_a_sweep_on_an_object_store_gives_the_cube_of_a_local_one(bucket, tmp_path):
    storage = f"{bucket}/deep/er"
    there, local = prepared(SMALL, storage), prepared(SMALL, tmp_path / "local")
    assert compute(there) == compute(local) != []
    assert compute(there) == []
    xr.testing.assert_identical(
        cube_of(there).drop_vars(VOLATILE), cube_of(local).drop_vars(VOLATILE)
    )
    record_run(there, "test")
    folder, files = join(storage, "tiny"), there.store.files
    assert state_of(*stored(folder))[0]["cells"]["done"] == 4
    assert planned(there)[0]["trials_to_train"] == 0

    assert gather_at(folder, "csv") == f"{bucket}/deep/er/tiny/results.csv"
    assert files.exists("results.zarr/zarr.json") and files.exists("results.nc")


def test_a_second_driver_of_an_object_store_is_refused_until_the_lease_of_the_first_ends(
    bucket, monkeypatch
):
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    files = Files(f"{bucket}/held")
    with files.lock():
        said = rf"host .*, pid {os.getpid()}, started 20.*its lease ends in \d+ s, at \d\d:"
        with pytest.raises(Busy, match=said), files.lock():
            raise AssertionError("two drivers hold one folder")
    assert files.listing(lock.CLAIMS) == []
    dead = Lease(files)
    dead._write(holds=True)  # and never again
    monkeypatch.setattr(lock, "LEASE", -1.0)
    with files.lock():
        assert dead.name not in files.listing(lock.CLAIMS)
