"""A finished sweep with one file that is not what was written: `status` and `gather` take it.

What can be made again counts as lost; of the others an error names the file. Nothing else is
raised, whatever became of it.
"""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.files import Files
from engine.gather import labelled, scattered
from engine.index import INDEX
from engine.opened import stored
from engine.packing import pack_at
from engine.publish import MADE_OF, _gathered, gather_at
from engine.records import Damaged
from engine.run import record_run
from engine.spec import SpecError
from engine.status import state_of
from engine.work import DONE, survey
from tests.engine.helpers import TINY, compute, prepared
from tests.fuzz.cases import CASES, changed_json, damaged, fuzz

few = settings(fuzz, max_examples=CASES or 20)
"""A case reads a whole store."""
ONE = {
    **TINY,
    "axes": {"width": [64], "n_train": [8], "split": ["a", "b"]},
    "kimg": [1],
    "training": {**TINY["training"], "batch": 256},
    "analyses": {"generalization": {}, "samples": {}, "twin": {}},
}
SEARCHES = {
    "boundary": {"boundary": {"budget": 3, "target_width": 0.2}},
    "optuna": {"optuna": {"trials": 2}},
}
LOST = {
    "trial": "trials/*split=a/trial.json",
    "receipt": "trials/*split=a/log/*,snapshot.json",
    "receipt of a subset": "subsets/*split=a/log/*.json",
}
"""Records that count as lost where they are not whole."""
PAST, FUTURE = 10**9, 4 * 10**9


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a sweep that was run and gathered, and what its cube was asked for."""
    storage = tmp_path_factory.mktemp("finished")
    ready = prepared(ONE, storage)
    record_run(ready, "test")
    compute(ready)
    compute(ready)  # pairs, of what is stored
    gather_at(str(storage / "tiny"))
    age(storage / "tiny", FUTURE)
    return storage / "tiny"


def age(folder, seconds):
    """Folders of the past hold what the index says; of those of the future nothing is believed."""
    for path in (p for root in ("trials", "subsets") for p in (folder / root).rglob("*")):
        os.utime(path, (seconds, seconds))
    for root in ("trials", "subsets"):
        for path in (folder / root).iterdir():
            os.utime(path, (seconds, seconds))


def look_at(folder, asked=None):
    """All that `status` and `gather` read, and with `asked` the cube that was made before."""
    sweep, record, store = stored(str(folder))
    state_of(sweep, record, store)
    found = survey(sweep, store, record["prints"])
    before = _gathered(store, found, asked) if asked else None
    return scattered(store, sweep, record["facts"], found, before), record, found, before


def altered(value):
    """The bytes of a record that was changed as JSON, or as bytes, or is none."""
    return (
        changed_json(value).map(lambda v: json.dumps(v, default=str, skipkeys=True).encode())
        | damaged(json.dumps(value).encode())
        | st.binary(max_size=40)
        | st.integers(1, 3000).map(lambda n: b"[" * n)
    )


class Replaced:
    """A file with other content for a while."""

    def __init__(self, path, content):
        self.path, self.content, self.whole = path, content, path.read_bytes()
        self.stat = path.stat()

    def __enter__(self):
        self.path.write_bytes(self.content)

    def __exit__(self, *error):
        self.path.write_bytes(self.whole)
        os.utime(self.path, ns=(self.stat.st_atime_ns, self.stat.st_mtime_ns))


def test_the_store_that_is_damaged_below_is_sound_and_its_cube_is_taken_up(finished):
    asked = json.loads((finished / MADE_OF).read_bytes())["asked"]
    *_, found, before = look_at(finished, asked)
    assert (found.cells() == DONE).all() and before is not None
    for pattern in LOST.values():
        assert len([*finished.glob(pattern)]) == 1, pattern


@few
@given(st.data())
@pytest.mark.parametrize("name", LOST)
def test_a_record_that_can_be_made_again_is_read_or_lost(finished, name, data):
    (path,) = finished.glob(LOST[name])
    with Replaced(path, data.draw(altered(json.loads(path.read_bytes())))):
        look_at(finished)


@few
@given(st.data())
def test_what_the_cube_was_made_of_is_believed_or_the_cube_made_again(finished, data):
    path = finished / MADE_OF
    record = json.loads(path.read_bytes())
    with Replaced(path, data.draw(altered(record))):
        look_at(finished, record["asked"])


@few
@given(st.data(), st.sampled_from(["facts", "prints", None]))
def test_a_record_of_a_sweep_is_read_or_named(finished, data, part):
    path = finished / "sweep.json"
    whole = json.loads(path.read_bytes())
    changed = altered(whole)
    if part:
        changed = changed_json(whole[part]).map(
            lambda value: json.dumps({**whole, part: value}, default=str, skipkeys=True).encode()
        )
    with Replaced(path, data.draw(changed)):
        try:
            cube, record, found, _ = look_at(finished)
        except SpecError as error:
            event("named")
            assert "sweep.json" in str(error)
        else:
            event("read")
            labelled(cube, record["facts"], found, record.get("versions", {}))


@pytest.fixture(scope="module", params=SEARCHES.values(), ids=SEARCHES)
def searched(request, tmp_path_factory):
    """The store of a search that has asked for one point, and the record of it."""
    axes = {"width": [64], "n_train": [8, 16, 32]}
    mapping = {**TINY, "axes": axes, "search": request.param}
    ready = prepared(mapping, tmp_path_factory.mktemp("searched"))
    record_run(ready, "test")
    point = dict(ready.survey().trials[0].coordinates)
    ready.store.write_asked([{"point": point, "value": 0.5}])
    return ready.store, {"asked": ready.store.asked(), "over": None}


@few
@given(st.data())
def test_a_record_of_a_search_is_read_or_lost(searched, data):
    store, record = searched
    with Replaced(Path(store.files.path("search.json")), data.draw(altered(record))):
        state_of(*stored(store.folder))
        for entry in store.asked():
            assert dict(entry["point"]) is not None
            assert entry["value"] is None or isinstance(entry["value"], float)


@pytest.fixture(scope="module")
def indexed(finished, tmp_path_factory):
    """The same with an index that is believed."""
    folder = tmp_path_factory.mktemp("indexed") / "tiny"
    shutil.copytree(finished, folder)
    age(folder, PAST)
    state_of(*stored(str(folder)))
    return folder


@st.composite
def other_index(draw, whole):
    """An index that says something else, with the right columns or nearly so."""
    table = pa.ipc.open_file(whole).read_all()
    name = draw(st.sampled_from(table.column_names))
    column = table[name].to_pylist()
    column[draw(st.integers(0, len(column) - 1))] = draw(_other(name, column[0]))
    try:
        array = pa.array(column, table.schema.field(name).type)
    except (pa.ArrowException, OverflowError, TypeError):
        array = pa.array([str(value) for value in column])
    at = table.column_names.index(name)
    table = table.set_column(at, table.schema.field(name).with_type(array.type), array)
    sink, options = pa.BufferOutputStream(), draw(st.sampled_from([None, None, "zstd"]))
    with pa.ipc.new_file(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=options)
    ) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _other(name, value):
    if name == "rest":
        said = {"stale": {"0": {"samples": "x"}}, "errors": {"0": "no"}}
        return changed_json(said).map(lambda v: json.dumps(v, default=str, skipkeys=True))
    if isinstance(value, list):
        return st.lists(st.integers(-2, 9) | st.none(), min_size=len(value), max_size=len(value))
    return st.none() | st.text(max_size=5)


@few
@given(st.data())
def test_an_index_is_believed_or_made_again(indexed, data):
    path = indexed / INDEX
    whole = path.read_bytes()
    content = data.draw(other_index(whole) | damaged(whole) | st.binary(max_size=40))
    with Replaced(path, content):
        look_at(indexed)


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    """The same in a bundle, and the files that it held."""
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    shutil.copytree(finished, folder)
    names = [n for root in ("trials", "subsets") for n in Files(str(folder)).loose(root)]
    whole = {name: (folder / name).read_bytes() for name in names}
    pack_at(str(folder))
    return folder, whole


@few
@given(st.data())
def test_a_bundle_gives_back_what_was_packed_or_is_named(packed, data):
    folder, whole = packed
    (folder / INDEX).unlink(missing_ok=True)  # everything is read again
    (path,) = folder.glob("packed/*.zip")
    with Replaced(path, data.draw(damaged(path.read_bytes()) | st.binary(max_size=40))):
        try:
            files = Files(str(folder))
            read = {name: files.read(name) for name in files.bundles.table()}
            look_at(folder)
        except Damaged as error:
            event("named")
            assert "packed/000001.zip is damaged" in str(error)
        else:
            event("read")
            assert {*read.values()} <= {None, *whole.values()}
