"""A stored file is what it was written as, or an error that names it, whatever became of it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Cell, Trial
from engine.pieces import Piece, Variable, encode, fingerprint_of
from engine.records import Damaged
from engine.store import Store, piece_path
from tests.fuzz.cases import changed_json, damaged, fuzz

CELL = Cell(Trial((("width", 8), ("n_train", 4), ("seed", 0), ("draw", 0), ("split", "a"))), 1)
PIECE = Piece(
    {
        "loss": Variable(("sigma", "inputs"), np.arange(6.0).reshape(3, 2), {"units": "1"}),
        "samples": Variable(("sample", "pixel"), np.ones((4, 5), np.float32), {"shown": 2}),
        "count": Variable((), np.asarray(3), {"long_name": "count"}),
    },
    {"inputs": ["train", "heldout"]},
    "f" * 32,
)
RECORD = {
    "status": "failed",
    "error": "no",
    "heartbeat": 1.5,
    "snapshots": {"kimg=1": {"train_seconds": 1.0}},
    "analyses": {"loss": {"error": "x", "fingerprint": "f"}},
}
PATH = piece_path(CELL, "loss")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(str(tmp_path_factory.mktemp("store")), "fuzzed")


@pytest.fixture(scope="module")
def tensors(store):
    store.write_tensors(
        "x.safetensors", {"a": np.arange(6.0), "b": np.ones((2, 3))}, {"step": "1"}
    )
    return store.files.read("x.safetensors")


def place(store, name, data):
    """Put bytes where the store reads them; not synced, which 10,000 times is slow."""
    store.files.write(name, b"") if not store.files.exists(name) else None
    with open(store.files.path(name), "wb") as file:
        file.write(data)


def whole_or_named(read, name):
    """What was read; None if it was refused with its name."""
    try:
        return read()
    except Damaged as error:
        assert name in str(error)


@fuzz
@given(damaged(encode(PIECE)) | st.binary(max_size=60) | st.just(encode(PIECE)))
def test_a_piece_is_labelled_numbers_or_named(store, data):
    place(store, PATH, data)
    assert fingerprint_of(data) is None or isinstance(fingerprint_of(data), str)
    piece = whole_or_named(lambda: store.read_piece(CELL, "loss"), PATH)
    if data == encode(PIECE):
        assert piece is not None
    for variable in piece.variables.values() if piece else ():
        assert variable.values.dtype.kind in "fiub" and variable.values.ndim == len(variable.dims)
        assert variable.values.tobytes() is not None


@fuzz
@given(st.data())
def test_a_snapshot_is_tensors_or_named(store, tensors, data):
    place(store, "x.safetensors", data.draw(damaged(tensors) | st.binary(max_size=60)))
    found = whole_or_named(lambda: store.read_tensors("x.safetensors"), "x.safetensors")
    assert found is None or all(isinstance(v, str) for v in found[1].values())


@fuzz
@given(
    damaged(json.dumps(RECORD).encode())
    | changed_json(RECORD).map(lambda v: json.dumps(v, default=str, skipkeys=True).encode())
    | st.binary(max_size=40)
    | st.integers(1, 3000).map(lambda n: b"[" * n)
)
def test_a_record_is_a_mapping_or_named(store, data):
    place(store, "sweep.json", data)
    record = whole_or_named(store.record, "sweep.json")
    assert record is None or isinstance(record, dict)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", ".."])
def test_no_name_leaves_the_folder(store, name):
    for use in store.files.read, store.files.exists, store.files.delete, store.files.listing:
        with pytest.raises(ValueError, match="leaves the folder"):
            use(name)
    with pytest.raises(ValueError, match="leaves the folder"):
        store.files.write(name, b"")


@fuzz
@given(st.text(min_size=1, max_size=20) | st.sampled_from(["..", "/", "../..", "a/b", "\\", "\0"]))
def test_no_coordinate_leaves_its_folder(value):
    trial = Trial((("width", 8), ("backbone.kind", value)))
    assert not set(trial.address) & set("/\\\0\n") and trial.address not in (".", "..")
