"""A sweep on an object store: the S3 protocol, spoken to a server on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import export, lock
from engine.board import Board
from engine.files import Files, join, split
from engine.listing import planned
from engine.lock import Busy, Lease
from engine.publish import gather_at, plot_at, stored
from engine.resolve import load
from engine.run import record_run
from engine.spec import SpecError
from engine.status import state_of
from engine.store import Store
from engine.work import DONE
from tests.engine.helpers import TINY, VOLATILE, compute, cube_of, job_of, prepared
from tests.engine.s3 import bucket

__all__ = ["bucket"]
SMALL = {
    **TINY,
    "axes": {"width": [64], "n_train": [8, 16]},
    "analyses": {"generalization": {}, "memorization": {}, "samples": {}},
}


def fetched(files, folder, *below):
    """A copy of folders and files of an object store."""
    for name in [n for each in below for n in files.listing(each) or [each]]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(name))
    return folder


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


def test_an_interrupt_while_uploading_publishes_all_or_nothing(bucket, monkeypatch):
    files = Files(f"{bucket}/interrupted")
    real = Files._upload

    def interrupted(self, path, data):
        os.kill(os.getpid(), signal.SIGINT)
        real(self, path, data)

    monkeypatch.setattr(Files, "_upload", interrupted)
    # Ignored in a background process of a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            files.write("a", b"whole")
    finally:
        signal.signal(signal.SIGINT, before)
    until = time.monotonic() + 60
    while (found := files.read("a")) is None and time.monotonic() < until:
        time.sleep(0.01)  # the upload goes on in its thread
    assert found == b"whole"


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

    # Zarr without the chunks of an older shape; the same numbers in all copies of the cube.
    files.write("results.zarr/status/c/9", b"stale")
    assert gather_at(folder, "csv") == f"{bucket}/deep/er/tiny/results.csv"
    copy = fetched(files, tmp_path / "copy", "results.zarr", "results.nc", "results.csv")
    assert not (copy / "results.zarr/status/c/9").exists()
    zarr = xr.open_zarr(copy / "results.zarr").load()
    xr.testing.assert_equal(zarr, xr.load_dataset(copy / "results.nc", engine="netcdf4"))
    assert (zarr["status"] == DONE).all() and (copy / "results.csv").stat().st_size
    drawn, _ = plot_at(folder, ["paper/8"])
    assert files.listing("figures") == [name.partition("/tiny/")[2] for name in sorted(drawn)]


def test_metadata_of_a_zarr_on_an_object_store_goes_first_and_comes_last(bucket, monkeypatch):
    files, calls = Files(f"{bucket}/zarr"), []
    store = Store(bucket, "zarr")
    cube = xr.Dataset({"a": ("x", [1.0, 2.0])})
    export.write(store, cube, cube)
    for name in ("delete", "upload", "write"):
        real = getattr(Files, name)
        monkeypatch.setattr(
            Files,
            name,
            lambda self, *args, name=name, real=real: (
                calls.append((name, args[-1] if name == "upload" else args[0])),
                real(self, *args),
            ),
        )
    export.write(store, cube.isel(x=[0]), cube)
    root = "results.zarr/zarr.json"
    expected = [("delete", root), ("upload", "results.zarr"), ("write", root)]
    assert [call for call in calls if call[1].startswith("results.zarr")] == expected
    assert export.read(store)[0].sizes == {"x": 1} and files.exists(root)


def test_tensorboard_runs_are_uploaded_once_their_trial_ends(bucket, tmp_path):
    ready = prepared(SMALL, f"{bucket}/board")
    compute(ready)
    board = Board(job_of(ready), load(ready.sweep, "x"))
    first, second = ready.survey().trials
    board.begin(first, [1, 2])
    assert board.has(first) and not board.has(second)
    files = Files(f"{bucket}/board/tiny")
    (name,) = files.listing("tensorboard")
    board.begin(second, [1])
    board.close()
    assert Board(board.job, board.data).has(second) and not board.folder.exists()
    # A trial that goes on is written again, not doubled.
    board.begin(first, [1, 2])
    board.close()
    assert len(files.listing("tensorboard")) == 2
    run = fetched(files, tmp_path, "tensorboard") / name.rpartition("/")[0]
    events = EventAccumulator(str(run))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/stream_loss")] == [1, 2]


@pytest.mark.ray
def test_workers_find_the_object_store_by_its_uri_and_the_environment(bucket, tmp_path):
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    storage = f"{bucket}/run?scheme=http&endpoint_override={endpoint}"
    path = tmp_path / "tiny.yaml"
    sweep = {**SMALL, "axes": {"width": [64], "n_train": [8]}, "kimg": [1]}
    path.write_text(json.dumps(sweep | {"analyses": ["generalization"]}))
    command = [sys.executable, "-m", "engine", "run", str(path), "--storage", storage]
    environment = {k: v for k, v in os.environ.items() if k != "AWS_ENDPOINT_URL"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{bucket}/run/tiny/results.zarr" in done.stdout
    sweep, record, store = stored(join(storage, "tiny"))
    assert state_of(sweep, record, store)[0]["cells"]["done"] == 1
    assert not store.files.listing(lock.CLAIMS) and store.files.exists("results.zarr/zarr.json")


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


def test_of_drivers_that_start_together_exactly_one_holds(bucket, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 1.5)
    files = Files(f"{bucket}/together")
    held, refused, all_decided = [], [], threading.Barrier(4)

    def drive(number):
        try:
            with files.lock():
                held.append(number)
                all_decided.wait(20)
        except Busy:
            refused.append(number)
            all_decided.wait(20)

    threads = [threading.Thread(target=drive, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3


def test_a_lease_is_renewed_while_its_driver_lives(bucket, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "LEASE", 0.2)
    files, written = Files(f"{bucket}/renewed"), []
    monkeypatch.setattr(
        files, "write_json", lambda name, value: (written.append(name), files.write(name, b"{}"))
    )
    with files.lock():
        until = time.monotonic() + 60
        while len(written) < 6 and time.monotonic() < until:
            time.sleep(0.05)
    assert len(set(written)) == 1 and len(written) >= 6
