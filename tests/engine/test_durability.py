"""What survives: the order of writes, a full disk at every one of them, damaged files."""

import contextlib
import errno
import json
import os
import struct
import subprocess

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses import figures, style
from engine import export
from engine.files import TEMPORARY, Files, Full
from engine.grid import Cell
from engine.opened import stored
from engine.pieces import fingerprint_of
from engine.publish import gather_at, publish
from engine.run import record_run
from engine.spec import SpecError
from engine.store import Store, piece_path, snapshot_path
from engine.tensors import encode
from engine.work import DONE
from tests.engine.helpers import TINY, VOLATILE, compute, contents, cube_of, prepared

ONE = {
    **TINY,
    "axes": {"width": [64], "n_train": [8]},
    "kimg": [1],
    "training": {**TINY["training"], "batch": 256},
    "analyses": {"generalization": {}},
}


def whole_run(storage):
    """What a run writes before it gathers, in this process."""
    ready = prepared(ONE, storage)
    record_run(ready, "test")
    compute(ready)
    return ready


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The cube of a run that nothing befell."""
    return cube_of(whole_run(tmp_path_factory.mktemp("undisturbed"))).drop_vars(VOLATILE)


def assert_nothing_is_torn(folder):
    """Every file that has its name is whole, and nothing lies beside them."""
    store = Store(str(folder), "tiny")
    for path in (folder / "tiny").rglob("*"):
        name = str(path.relative_to(folder / "tiny"))
        if path.is_dir() or name.startswith("results."):
            continue
        assert TEMPORARY not in name, name
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".safetensors":
            assert store.read_header(name) is not None and store.read_tensors(name), name
        elif path.suffix == ".arrow":
            assert fingerprint_of(path.read_bytes()), name


@pytest.fixture
def calls(monkeypatch):
    """Every sync and rename, as they come."""
    found = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        found.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def replace(old, new):
        found.append(("rename", str(old), str(new)))
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    return found


def test_a_file_is_synced_before_it_has_its_name_and_its_folders_after(tmp_path, calls):
    files = Files(str(tmp_path))
    files.write("a/b/c", b"x")
    (_, temporary), renamed, *folders = calls
    assert renamed == ("rename", temporary, f"{tmp_path}/a/b/c")
    # Each folder that got an entry: the file's own, and those in which new folders were made.
    assert folders == [("sync", f"{tmp_path}/{name}".rstrip("/")) for name in ("a/b", "a", "")]
    calls.clear()
    files.write("a/b/c", b"y")
    assert [c[0] for c in calls] == ["sync", "rename", "sync"]


def test_the_cube_is_synced_file_by_file_before_it_has_its_name_and_then_its_folder(
    tmp_path, calls
):
    whole_run(tmp_path)
    folder = tmp_path / "tiny"
    gather_at(str(folder), "csv")
    for name in ("results.zarr", "results.nc", "results.csv"):
        (at,) = (i for i, (_, *names) in enumerate(calls) if names[-1] == str(folder / name))
        kind, built, _ = calls[at]
        parts = (folder / name).rglob("*")
        made = {built, *(f"{built}/{part.relative_to(folder / name)}" for part in parts)}
        assert made <= {path for kind, path, *_ in calls[:at] if kind == "sync"}
        assert (kind, calls[at + 1]) == ("rename", ("sync", str(folder)))
    renamed = [names[-1] for kind, *names in calls if kind == "rename"]
    assert renamed.index(f"{folder}/cube.json") > renamed.index(f"{folder}/results.nc")


def test_a_disk_that_is_full_at_any_write_loses_nothing(tmp_path, monkeypatch, undisturbed):
    real, k, count = os.replace, 0, 0

    def replace(old, new):
        nonlocal count
        count += 1
        if count == k:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    while True:
        k, count = k + 1, 0
        storage = tmp_path / str(k)
        said = rf"no space left on {storage}/tiny: free some and run the same command again"
        with contextlib.suppress(StopIteration), pytest.raises(Full, match=said):
            whole_run(storage)
            raise StopIteration
        if count < k:
            break
        assert_nothing_is_torn(storage)
        again = whole_run(storage)
        assert (again.survey().cells() == DONE).all() and not again.survey().errors
        xr.testing.assert_identical(cube_of(again).drop_vars(VOLATILE), undisturbed)
    assert k > 9


def test_a_disk_that_is_full_while_gathering_keeps_the_old_cube(tmp_path, monkeypatch):
    whole_run(tmp_path)
    folder = tmp_path / "tiny"
    gather_at(str(folder))
    before = contents(folder, "results.nc")
    real = os.replace

    def replace(old, new):
        if str(new).endswith("results.nc"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Full, match=f"no space left on {folder}: free some"):
        gather_at(str(folder))
    assert contents(folder, "results.nc") == before
    assert not list(folder.glob(f"{TEMPORARY}*"))


def published(folder):
    """What lies in a sweep's folder for people, the cube checked to be whole."""
    cube, phase = export.read(Store(str(folder.parent), folder.name))
    for group, there in ((None, cube), ("phase", phase)):
        beside = xr.load_dataset(folder / export.ZARR, engine="zarr", group=group)
        xr.testing.assert_identical(
            beside.drop_attrs(deep=False), there.drop_attrs(deep=False)
        )  # the attributes hold the time at which it was made
    assert not list(folder.rglob(f"{TEMPORARY}*"))
    return cube.drop_vars(VOLATILE).drop_attrs(deep=False), sorted(contents(folder, "figures/*"))


def test_a_disk_that_is_full_at_any_write_of_cube_and_figures_keeps_a_whole_cube(
    tmp_path, monkeypatch
):
    ready = whole_run(tmp_path)
    folder = tmp_path / "tiny"

    def publish_all():
        facts, found = ready.facts.model_dump(mode="json"), ready.survey()
        publish(ready.sweep, facts, ready.prints, ready.store, found, force=True)
        gather_at(str(folder), "csv")

    # One figure stands for all; what it shows and what is synced are other tests' subjects.
    monkeypatch.setattr(figures, "FIGURES", {"only": lambda *cube: None})
    monkeypatch.setattr(figures, "plotted", lambda *cube: pd.DataFrame({"x": [1.0]}))
    monkeypatch.setattr(style, "render", lambda picture, kind: kind.encode())
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    real, written, fails = os.replace, [], set()

    def replace(old, new):
        written.append(str(new))
        if len(written) - 1 in fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    publish_all()
    undisturbed, names = published(folder), list(written)
    own = [k for k, name in enumerate(names) if TEMPORARY not in name]
    # Twice zarr, netCDF and what they were made of; a figure's three files, findings, table.
    assert len(own) == 2 * 3 + 3 + 1 + 1
    for k in (*own, *range(0, len(names), 100)):  # zarr writes hundreds of its own
        fails = {k}
        written.clear()
        with pytest.raises(Full, match=f"no space left on {folder}: free some and run"):
            publish_all()
        xr.testing.assert_identical(published(folder)[0], undisturbed[0])
    fails = set()
    publish_all()
    assert published(folder)[1] == undisturbed[1]


def test_a_disk_that_fills_up_is_freed_and_the_same_run_ends_in_the_same_cube(
    tmp_path, undisturbed
):
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(*options):
        command = ["mount", "-t", "tmpfs", "-o", *options, "tmpfs", str(disk)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not resize("size=64k"):
        pytest.skip("mounting a tmpfs is not allowed here")
    refused = 0
    try:
        for size in ("64k", "128k", "192k", "256k", "64m"):
            assert resize(f"remount,size={size}")
            try:
                ready = whole_run(disk)
                gather_at(str(disk / "tiny"))
            except Full as error:
                assert "no space left on" in str(error)
                assert_nothing_is_torn(disk)
                refused += 1
        assert 2 <= refused <= 4
        xr.testing.assert_identical(cube_of(ready).drop_vars(VOLATILE), undisturbed)
        assert (disk / "tiny/results.nc").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_killed_writers_left_an_hour_ago_is_removed_and_nothing_else(tmp_path):
    left = ["trials/a/.tmp-host-1", ".tmp-scratch/results.zarr/x/c/0", ".tmp-none/results.nc"]
    kept = [
        "trials/a/trial.json",
        ".tmp-still/results.zarr/x/c/0",
        ".tmp-old-results.zarr/zarr.json",
        "trials/a/.tmp-young",
    ]
    for name in left + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    os.utime(tmp_path / ".tmp-still/results.zarr/x/c/0")  # a gather that takes its time
    os.utime(tmp_path / "trials/a/.tmp-young")
    Files(str(tmp_path)).sweep_temporaries()
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(tmp_path)) for path in files) == sorted(kept)
    assert {p.name for p in tmp_path.iterdir()} == {"trials", *(n.split("/")[0] for n in kept)}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sweep": 3}', b'{"asked": "x"}'])
def test_a_record_that_is_torn_or_foreign_counts_as_absent(tmp_path, content):
    store = Store(str(tmp_path), "s")
    for name in ("sweep.json", "search.json"):
        store.files.write(name, content)
    assert store.record() is None and store.asked() == []


BROKEN = {
    "facts: Field required": lambda r: r.pop("facts"),
    "facts.data: Field required": lambda r: r.update(facts={}),
    "facts.data.shape.1: Input should be greater": lambda r: r["facts"]["data"].update(
        shape=[1, 0, 8]
    ),
    "facts.training.batch: ": lambda r: r["facts"]["training"].update(batch="x"),
    "facts.analyses.generalization is missing": lambda r: r["facts"].update(analyses={}),
    "of facts.sizes is missing": lambda r: r["facts"].update(sizes={'{"width":63}': [1, 1.0]}),
    "facts.training.sigma is missing": lambda r: r["facts"]["training"].update(noise="fixed"),
    "facts.training.sigma_min below sigma_max is missing": lambda r: r["facts"]["training"].update(
        noise="loguniform", sigma_min=2, sigma_max=1
    ),
    "prints.pieces.generalization is missing": lambda r: r["prints"].update(pieces={}),
    "analyses.twin is missing": lambda r: r["prints"].update(needs={"twin": ["generalization"]}),
    "a pair 'generalization' is missing": lambda r: r["prints"].update(
        needs={"generalization": []}
    ),
    "versions.a/b": lambda r: r["versions"].update({"a/b": "1"}),
    "Out of range float values": lambda r: r["identity"].update(version=np.nan),
}
"""What is said of a sweep.json, and what was done to it."""


@pytest.mark.parametrize("said", BROKEN)
def test_a_sweep_record_that_says_too_little_or_nonsense_is_named_with_what_is_wrong(
    said, tmp_path
):
    ready = prepared(ONE, tmp_path)
    record_run(ready, "test")
    assert stored(ready.store.folder)[1] == ready.store.record()
    record = json.loads((tmp_path / "tiny/sweep.json").read_bytes())
    BROKEN[said](record)
    ready.store.write_record(record)
    for read in stored, gather_at:
        with pytest.raises(SpecError, match=f"tiny/sweep.json: torn or foreign: .*{said}"):
            read(ready.store.folder)


@pytest.mark.parametrize("content", [b"", b'{"snapshots": {"kimg=1"', b"[]", b'{"snapshots": 7}'])
def test_a_torn_trial_record_is_made_again_from_the_snapshots(tmp_path, content, undisturbed):
    ready = whole_run(tmp_path)
    (trial,) = ready.survey().trials
    before = ready.store.trial_record(trial)["snapshots"]
    ready.store.files.write(f"trials/{trial.address}/trial.json", content)
    after = ready.store.trial_record(trial)["snapshots"]
    assert before["kimg=1"].pop("train_seconds") >= 0 and after == before
    assert compute(ready) == []
    xr.testing.assert_identical(cube_of(ready).drop_vars(VOLATILE), undisturbed)


def test_numbers_that_are_not_finite_survive_in_a_record(tmp_path):
    ready = prepared(ONE, tmp_path)
    (trial,) = ready.survey().trials
    ready.store.write_trial_record(trial, {"snapshots": {"kimg=1": {"step": 8, "loss": np.inf}}})
    found = ready.store.trial_record(trial)["snapshots"]["kimg=1"]
    assert found == {"step": 8, "loss": np.inf} and isinstance(found["step"], int)


def test_headers_that_lie_about_sizes_are_told_by_the_length_of_the_file(tmp_path):
    store = Store(str(tmp_path), "s")
    good = encode({"w": np.zeros(4, np.float32)}, {"step": "3"})
    (size,) = struct.unpack_from("<Q", good)
    header = json.loads(good[8 : 8 + size])

    def with_header(**changes):
        text = json.dumps({**header, **changes}).encode()
        return struct.pack("<Q", len(text)) + text + good[8 + size :]

    far = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    for data in (
        struct.pack("<Q", 2**62) + good[8:],
        with_header(w=far),
        with_header(w={**far, "data_offsets": [0, 16]}),
        with_header(w=3),
        with_header(__metadata__={"header": "[]"}),
        struct.pack("<Q", 20000) + b"[" * 20000,
        good[:-1],
        good + b"x",
    ):
        store.files.write("x.safetensors", data)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            store.read_tensors("x.safetensors")
    store.files.write("x.safetensors", good)
    assert store.read_header("x.safetensors") == {"step": "3"}
    store.files.write("x.safetensors", with_header(w=far))
    assert store.read_header("x.safetensors") is None


def test_a_torn_snapshot_that_is_still_needed_is_trained_again(tmp_path, undisturbed):
    ready = whole_run(tmp_path)
    (trial,) = ready.survey().trials
    cell = Cell(trial, 1)
    whole = ready.store.files.read(snapshot_path(cell))
    ready.store.files.write(snapshot_path(cell), whole[:-1])
    assert ready.survey().is_finished  # its pieces are there: nobody needs it
    ready.store.files.delete(piece_path(cell, "generalization"))
    assert [kind for kind, *_ in compute(ready)] == ["train", "analyse"]
    assert ready.store.files.read(snapshot_path(cell)) == whole
    xr.testing.assert_identical(cube_of(ready).drop_vars(VOLATILE), undisturbed)
