"""A stored file is what it was written as, or an error that names it, whatever became of it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Cell, Trial
from engine.pieces import Piece, Variable, encode, fingerprint_of
from engine.records import Damaged
from engine.store import Store, piece_path
from tests.fuzz.cases import damaged, fuzz

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
WHOLE = encode(PIECE)
PATH = piece_path(CELL, "loss")


def compressed(data):
    """The same Arrow file with its numbers compressed, as no piece has them."""
    with pa.ipc.open_file(data) as reader:
        batch, sink = reader.get_batch(0), pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


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
@given(damaged(WHOLE) | damaged(compressed(WHOLE)) | st.binary(max_size=60) | st.just(WHOLE))
def test_a_piece_is_labelled_numbers_or_named(store, data):
    place(store, PATH, data)
    assert fingerprint_of(data) is None or isinstance(fingerprint_of(data), str)
    piece = whole_or_named(lambda: store.read_piece(CELL, "loss"), PATH)
    assert piece is not None or data != WHOLE
    (read,) = store.read_numbers([PATH])
    assert piece is not None or read is None
    for name, variable in piece.variables.items() if read else ():
        layout, numbers = read
        values = layout.values(name, np.frombuffer(numbers, np.uint8)[None])
        assert values.tobytes() == variable.values.tobytes() and values.dtype.kind in "fiub"
        assert variable.values.ndim == len({*variable.dims})


@fuzz
@given(st.data())
def test_a_snapshot_is_tensors_or_named(store, tensors, data):
    place(store, "x.safetensors", data.draw(damaged(tensors) | st.binary(max_size=60)))
    found = whole_or_named(lambda: store.read_tensors("x.safetensors"), "x.safetensors")
    assert found is None or all(isinstance(v, str) for v in found[1].values())
    header = store.read_header("x.safetensors")
    assert header is None or isinstance(header, dict)


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
