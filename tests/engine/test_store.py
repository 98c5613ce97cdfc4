"""Files, pieces and addresses: atomic, readable, the same after a round trip."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.files import Files
from engine.grid import Trial, from_json, moment, to_json
from engine.lock import Busy
from engine.pieces import Layouts, Piece, Variable, decode, encode
from engine.store import Store

ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int32]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4),
)


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), ARRAYS, max_size=4), st.text()
)
def test_a_piece_survives_the_disk(arrays, fingerprint):
    variables = {
        name: Variable(tuple(f"d{i}" for i in range(a.ndim)), a, {"units": "1", "long_name": name})
        for name, a in arrays.items()
    }
    data = encode(Piece(variables, {"inputs": ["train", "heldout"]}, fingerprint))
    back = decode(data)
    assert back.labels == {"inputs": ["train", "heldout"]}
    assert back.fingerprint == fingerprint
    assert list(back.variables) == list(variables)
    for name, variable in variables.items():
        found = back.variables[name]
        assert (found.dims, found.attrs, found.values.dtype) == (
            variable.dims,
            variable.attrs,
            variable.values.dtype,
        )
        np.testing.assert_array_equal(found.values, variable.values)
    assert encode(back) == data


def test_a_torn_piece_has_no_fingerprint():
    data = encode(Piece({"a": Variable((), np.array(1.0), {})}, {}, "abc"))
    assert Layouts().of(data).piece.fingerprint == "abc"
    assert all(Layouts().of(data[:n]) is None for n in (0, 8, 40, len(data) // 2, len(data) - 1))


def rewritten(columns, **options):
    """An Arrow file as a stranger may write it, with all that a piece says of itself."""
    said = {"fingerprint": "abc", "labels": '{"c": [1]}'}
    fields = [pa.field(n, c.type, metadata={"attrs": "{}"}) for n, c in columns.items()]
    schema, sink = pa.schema(fields, metadata=said), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
    return sink.getvalue().to_pybytes()


def tensor(values, *dims):
    numbers = pa.from_numpy_dtype(values.dtype)
    kind = pa.fixed_shape_tensor(numbers, values.shape, dim_names=list(dims or "a"))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.size)
    return pa.ExtensionArray.from_storage(kind, flat)


FOREIGN = {
    "zstd": rewritten({"x": tensor(np.zeros(10**6))}, compression="zstd"),
    "lz4": rewritten({"x": pa.array([1.0])}, compression="lz4"),
    "a number that is missing": rewritten({"x": pa.array([None], pa.int32())}),
    "a list of nothing": rewritten({"x": pa.FixedSizeListArray.from_arrays(pa.nulls(9), 9)}),
    "a dim twice": rewritten({"x": tensor(np.ones((2, 2)), "a", "a")}),
    "more numbers than labels": rewritten({"x": tensor(np.ones(2), "c")}),
    "a dictionary": rewritten({"x": pa.array([1.0]).dictionary_encode()}),
}
"""Files that Arrow reads, and that no piece is written as."""


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_a_piece_that_was_not_written_as_one_counts_as_torn(data, tmp_path):
    assert Layouts().of(rewritten({"x": tensor(np.zeros(10**3))})) is not None
    assert Layouts().of(data) is None
    store = Store(str(tmp_path), "s")
    store.files.write("x.arrow", data)
    assert list(store.read_numbers(["x.arrow", "none.arrow"])) == [None, None]


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_compressed_numbers_are_refused_unread(kind, monkeypatch):
    monkeypatch.setattr(pa.ipc, "read_record_batch", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="its numbers are compressed"):
        decode(FOREIGN[kind])


def test_text_is_not_a_piece():
    with pytest.raises(ValueError, match="variable 'a' has dtype"):
        encode(Piece({"a": Variable((), np.array("x"), {})}, {}, "abc"))


COORDINATES = st.dictionaries(
    st.sampled_from(["width", "n_train", "training.lr", "backbone.kind"]),
    st.integers(0, 10**6) | st.floats(1e-6, 1e6) | st.text(max_size=8),
    min_size=1,
)


@given(COORDINATES)
def test_an_address_is_one_folder_name_and_names_every_coordinate(coordinates):
    trial = Trial(tuple(coordinates.items()))
    assert "/" not in trial.address and "\0" not in trial.address
    assert [part.split("=")[0] for part in trial.address.split(",")] == list(coordinates)
    assert from_json(to_json(trial)) == trial


@given(COORDINATES, COORDINATES)
def test_two_points_never_share_an_address(first, second):
    a, b = Trial(tuple(first.items())), Trial(tuple(second.items()))
    assert (a.address == b.address) == (a == b)


def test_a_whole_number_is_written_without_a_point():
    assert moment(16.0) == moment(16) == "kimg=16"


def test_a_store_named_by_a_relative_path_is_the_same_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(Store("results", "s")))
    monkeypatch.chdir("/")
    assert store.folder == str(tmp_path / "results" / "s")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd"])
def test_no_name_leaves_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="leaves the folder"):
        Files(str(tmp_path)).read(name)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files = Files(str(tmp_path))
    files.write("a/b", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space left on .*: free some and run the same command"):
        files.write("a/b", b"new")
    assert files.read("a/b") == b"old"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), real_sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), real_replace(a, b)))
    Files(str(tmp_path)).write("a", b"x")
    assert calls == ["sync", "rename", "sync"]


def test_only_one_driver_holds_a_folder(tmp_path):
    code = (
        "import sys; from engine.files import Files\n"
        "with Files(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Busy, match=f"pid {holder.pid}, started 20"), Files(str(tmp_path)).lock():
        raise AssertionError("two drivers hold one folder")
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with Files(str(tmp_path)).lock():
        pass


def test_tensors_survive_the_disk_and_a_torn_file_is_named(tmp_path):
    store = Store(str(tmp_path), "s")
    tensors = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3)}
    store.write_tensors("x.safetensors", tensors, {"step": "3"})
    back, header = store.read_tensors("x.safetensors")
    assert header == {"step": "3"} and back["step"].shape == ()
    np.testing.assert_array_equal(back["w"], tensors["w"])
    assert store.read_tensors("absent.safetensors") is None
    for size in (0, 4, 30, 100):
        store.files.write("torn.safetensors", store.files.read("x.safetensors")[:size])
        with pytest.raises(ValueError, match=r"torn.safetensors is not a whole safetensors file"):
            store.read_tensors("torn.safetensors")
