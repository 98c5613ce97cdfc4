"""Packed stores: fewer files, the same cube, at whatever point the packing was killed."""

import os
import re
import shutil
import zipfile

import pytest
import xarray as xr

from engine.bundles import FOLDER, PACKED, pack
from engine.files import Files
from engine.packing import pack_at
from engine.publish import stored
from engine.records import Damaged
from engine.run import record_run
from engine.status import state_of
from engine.store import piece_path
from engine.work import DONE
from tests.engine.helpers import TINY, compute, cube_of, prepared

SMALL = {**TINY, "kimg": [1], "analyses": {"generalization": {}, "gaussian": {"draws": 4}}}


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """A finished store without bundles, not to be changed."""
    storage = tmp_path_factory.mktemp("loose")
    ready = prepared(SMALL, storage)
    record_run(ready, "test")
    compute(ready)
    return ready, storage / "tiny"


@pytest.fixture
def copied(loose, tmp_path):
    """A copy of it, and its folder."""
    shutil.copytree(loose[1], tmp_path / "tiny")
    return prepared(SMALL, tmp_path), tmp_path / "tiny"


def test_a_packed_sweep_has_few_files_and_the_same_cube(loose, copied):
    ready, folder = copied
    said = pack_at(str(folder))
    left = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    before, after = map(int, re.search(r"(\d+) files before, (\d+) after", said).groups())
    assert after == len(left) < before
    assert sorted(n for n in left if PACKED.fullmatch(n)) == [] and f"{FOLDER}/000001.zip" in left
    assert not list(folder.rglob("pieces")) and not list(folder.rglob("log"))
    xr.testing.assert_identical(cube_of(ready), cube_of(loose[0]))
    assert state_of(*stored(str(folder)))[0]["cells"]["done"] == 4
    assert compute(prepared(SMALL, folder.parent)) == []
    assert "; 0 packed" in pack_at(str(folder))
    ready.store.files.bundles.forget()
    for root in ("trials", "subsets"):
        assert sorted(ready.store.files.listing(root)) == sorted(
            loose[0].store.files.listing(root)
        )


def test_what_is_packed_is_surveyed_once_and_anew_when_it_is_other(copied):
    ready, folder = copied
    pack_at(str(folder))
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1e9, 1e9))  # younger folders are never taken to be unchanged
    whole = ready.survey().pieces
    known = {p: s.signature for p, s in ready.store.scan({}).items()}
    assert all(known.values()) and any(s.startswith("packed+") for s in known.values())
    assert not any(found.listed for found in ready.store.scan(known).values())
    again = ready.survey()  # from the index
    assert (again.pieces == whole).all()
    assert not any(s.listed for p, s in again.found.items() if p.startswith("trials/"))
    other = dict.fromkeys(known, "packed+other")
    assert all(found.listed for found in ready.store.scan(other).values())


def test_a_packed_sweep_grows_and_what_is_written_later_counts(copied):
    ready, folder = copied
    pack_at(str(folder))
    at = piece_path(next(iter(ready.survey().subsets)), "gaussian")
    assert ready.store.files.read(at)
    grown = {**SMALL, "kimg": [1, 2], "analyses": {**SMALL["analyses"], "gaussian": {"draws": 8}}}
    after = prepared(grown, folder.parent)
    assert after.survey().stale["gaussian"] > 0
    compute(after)
    fresh = cube_of(prepared(grown, folder.parent))
    record_run(after, "test")
    assert "; 0 packed" not in pack_at(str(folder))
    xr.testing.assert_identical(cube_of(prepared(grown, folder.parent)), fresh)
    assert (after.survey().cells() == DONE).all()


def test_packing_that_is_killed_anywhere_loses_nothing(loose, tmp_path, monkeypatch):
    real = {"replace": os.replace, "delete": Files.delete}
    calls = []

    def counted(function):
        def call(*args):
            calls.append(args)
            if len(calls) == k:
                raise KeyboardInterrupt
            return function(*args)

        return call

    monkeypatch.setattr("engine.bundles.MEMBERS", 8)
    expected = sorted(loose[0].store.files.listing("trials"))
    contents = {name: loose[0].store.files.read(name) for name in expected}
    for k in (1, 2, 3, 9, 10, 11, 12, 16):
        folder = tmp_path / str(k) / "tiny"
        shutil.copytree(loose[1], folder)
        names = [n for n in expected if PACKED.fullmatch(n)]
        calls.clear()
        monkeypatch.setattr(os, "replace", counted(real["replace"]))
        monkeypatch.setattr(Files, "delete", counted(real["delete"]))
        with pytest.raises(KeyboardInterrupt):
            pack(Files(str(folder)), names)
        monkeypatch.setattr(os, "replace", real["replace"])
        monkeypatch.setattr(Files, "delete", real["delete"])
        for _ in range(2):
            files = Files(str(folder))
            assert sorted(files.listing("trials")) == expected
            assert {name: files.read(name) for name in expected} == contents
            pack(Files(str(folder)), [n for n in files.loose("trials") if PACKED.fullmatch(n)])
        assert not [n for n in files.loose("trials") if PACKED.fullmatch(n)]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "trials/../trial.json", "trials/a/snapshots/x", "sweep.json"]
)
def test_a_member_that_would_leave_its_place_is_refused(tmp_path, name):
    (tmp_path / FOLDER).mkdir()
    with zipfile.ZipFile(tmp_path / FOLDER / "000001.zip", "w") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(Damaged, match=r"packed/000001.zip is damaged.*remove it"):
        Files(str(tmp_path)).read("trials/a/trial.json")


def test_a_damaged_bundle_is_named_and_a_damaged_member_counts_as_absent(tmp_path):
    files = Files(str(tmp_path))
    name = "trials/a/trial.json"
    files.write(name, b'{"status": "done"}')
    assert pack(files, [name]) == 1 and files.loose("trials") == []
    path = tmp_path / FOLDER / "000001.zip"
    whole = path.read_bytes()
    assert files.read(name) == b'{"status": "done"}'
    path.write_bytes(whole.replace(b"done", b"dead", 1))
    assert Files(str(tmp_path)).read(name) is None
    for torn in (whole[:-5], b"", whole[:40]):
        path.write_bytes(torn)
        with pytest.raises(Damaged, match=r"packed/000001\.zip is damaged"):
            Files(str(tmp_path)).read(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"0" * 10**6)
    with pytest.raises(Damaged, match="is compressed"):
        Files(str(tmp_path)).exists(name)


def test_what_another_process_packs_meanwhile_is_found(tmp_path):
    reader, packer = Files(str(tmp_path)), Files(str(tmp_path))
    packer.write("trials/a/trial.json", b"{}")
    assert reader.read("trials/b/trial.json") is None
    pack(packer, ["trials/a/trial.json"])
    assert reader.read("trials/a/trial.json") == b"{}"
