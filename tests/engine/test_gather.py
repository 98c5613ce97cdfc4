"""Gathering what has changed gives what gathering everything gives."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import publish
from engine.export import NETCDF
from engine.grid import Cell, moment, subsets, trials
from engine.index import INDEX
from engine.pieces import Layouts, Piece, Variable, decode, encode
from engine.spec import parse
from engine.store import Store, folder, piece_path, snapshot_path
from engine.work import DONE, FAILED, survey

SWEEP = {
    "name": "s",
    "data": {"name": "digits"},
    "backbone": {"name": "mlp"},
    "axes": {"width": [1, 2], "n_train": [2, 4], "split": ["a", "b"]},
    "kimg": [1, 2],
    "sigmas": [0.5, 1],
    "analyses": ["samples", "generalization"],
}
ANALYSES = {"samples": ("sample", "sigma"), "generalization": ("sigma", "inputs")}
PRINTS = {
    "snapshot": "s",
    "pieces": {name: f"print of {name}" for name in ANALYSES},
    "subset_pieces": {"generalization": "of subset"},
    "needs": {},
}
FACTS = {
    "data": {"name": "digits", "shape": [1, 8, 8], "sigma_data": 1.0}
    | dict.fromkeys(
        ("content_hash", "n_pool", "n_heldout", "n_duplicates", "n_leaked", "n_constant_pixels"), 0
    ),
    "training": {"batch": 8, "sigma_data": None, "p_mean": 0.0, "p_std": 1.0},
    "backbone": {},
    "analyses": {name: {"options": {}} for name in ANALYSES},
    "sizes": {f'{{"width":{width}}}': [width, 1.0] for width in (1, 2)},
}


class Change:
    """Writes into a store as workers do, with a clock of its own: one write, one tick."""

    def __init__(self, storage):
        self.sweep = parse(SWEEP, "s")
        self.store = Store(str(storage), "s")
        self.store.write_record({"sweep": SWEEP, "prints": PRINTS, "facts": FACTS, "identity": {}})
        self.every, self.clock = trials(self.sweep), 1_000_000_000

    def tick(self, point):
        """All that was just written is as old as the clock says."""
        self.clock += 1
        root = Path(self.store.files.path(folder(point)))
        for path in [root, *root.rglob("*")]:
            if path.is_dir() or path.stat().st_mtime > self.clock:
                os.utime(path, (self.clock, self.clock))

    def piece(self, i, kimg, name, value, print_=""):
        values = np.full([2, 2], float(value))
        variable = Variable(ANALYSES[name], values, {"long_name": name, "units": "1"})
        labels = {"inputs": ["train", "heldout"]} if name == "generalization" else {}
        piece = Piece({name: variable}, labels, print_ or PRINTS["pieces"][name])
        self.store.write_piece(Cell(self.every[i], kimg), name, piece)
        self.tick(self.every[i])

    def subset(self, i, value):
        subset = subsets(self.sweep)[i % 4]
        variable = Variable((), np.array(float(value)), {"long_name": "x", "units": "1"})
        piece = Piece({"of_subset": variable}, {}, "of subset")
        self.store.write_piece(subset, "generalization", piece)
        self.tick(subset)

    def snapshot(self, i, kimg, value):
        cell = Cell(self.every[i], kimg)
        record = {"status": "done", "snapshots": {moment(kimg): {"train_seconds": value}}}
        self.store.write_trial_record(cell.trial, record)
        self.store.write_tensors(snapshot_path(cell), {"w": np.zeros(1)}, {})
        self.tick(cell.trial)

    def failure(self, i, kimg, name):
        receipt = {"seconds": 2.0, "error": "boom", "fingerprint": PRINTS["pieces"][name]}
        cell = Cell(self.every[i], kimg)
        self.store.add_receipts(cell, name, {name: receipt})
        self.tick(cell.trial)

    def loss(self, i, kimg, name):
        self.store.files.delete(piece_path(Cell(self.every[i], kimg), name))
        if self.store.files.exists(folder(self.every[i])):
            self.tick(self.every[i])

    def damage(self, i, kimg, name):
        """Cut a piece in place: no folder notices."""
        path = Path(self.store.files.path(piece_path(Cell(self.every[i], kimg), name)))
        if path.exists():
            path.write_bytes(path.read_bytes()[:-7])
            os.utime(path, (self.clock, self.clock))


CELLS = (st.integers(0, 7), st.sampled_from(SWEEP["kimg"]))
NAMES = st.sampled_from(list(ANALYSES))
CHANGES = st.one_of(
    st.tuples(st.just("piece"), *CELLS, NAMES, st.integers(0, 9)),
    st.tuples(st.just("piece"), *CELLS, NAMES, st.integers(0, 9), st.just("stale")),
    st.tuples(st.just("snapshot"), *CELLS, st.integers(1, 9)),
    st.tuples(st.sampled_from(["failure", "loss", "damage"]), *CELLS, NAMES),
    st.tuples(st.just("subset"), st.integers(0, 3), st.integers(0, 9)),
)


def gathered(change):
    """The cube as `gather` leaves it, without when it was made."""
    publish.gather_at(change.store.folder)
    cube = xr.load_dataset(change.store.files.path(NETCDF), engine="netcdf4")
    cube.attrs.pop("date_created")
    return cube


@pytest.fixture
def read(monkeypatch):
    """Paths of all pieces read so far."""
    paths, real = [], Store.read_numbers

    def noted(self, names):
        names = list(names)
        paths.extend(names)
        return real(self, names)

    monkeypatch.setattr(Store, "read_numbers", noted)
    return paths


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(CHANGES, max_size=12), min_size=2, max_size=3))
def test_gathering_the_changes_equals_gathering_everything(tmp_path_factory, rounds):
    change = Change(tmp_path_factory.mktemp("store"))
    for steps in rounds:
        for name, *arguments in steps:
            getattr(change, name)(*arguments)
        incremental = gathered(change)
    for derived in (INDEX, publish.MADE_OF):
        change.store.files.delete(derived)
    xr.testing.assert_identical(incremental, gathered(change))


def test_only_changed_trials_are_read_again(tmp_path, read):
    change = Change(tmp_path)
    for i in range(8):
        for kimg in (1, 2):
            change.piece(i, kimg, "generalization", i)
    gathered(change)
    read.clear()
    change.piece(3, 2, "generalization", 77)
    cube = gathered(change)
    trial = change.every[3]
    assert read == [piece_path(Cell(trial, kimg), "generalization") for kimg in (1, 2)]
    at = dict(trial.coordinates) | {"kimg": 2}
    assert (cube["generalization"].sel(at) == 77).all()
    assert (cube["generalization"] == 77).sum() == 4


def test_a_piece_cut_in_place_is_noticed_by_the_next_survey(tmp_path):
    change = Change(tmp_path)
    for kimg in (1, 2):
        change.piece(0, kimg, "samples", 1)
    assert (survey(change.sweep, change.store, PRINTS).pieces[0, :, 1] == DONE).all()
    change.damage(0, 2, "samples")
    found = survey(change.sweep, change.store, PRINTS).pieces[0, :, 1]
    assert found.tolist() == [DONE, 0]


def test_what_a_running_trial_looks_like_is_never_kept(tmp_path):
    change = Change(tmp_path)
    change.store.write_trial_record(change.every[0], {"status": "running"})
    change.tick(change.every[0])
    change.failure(1, 1, "samples")
    assert survey(change.sweep, change.store, PRINTS, live=True).pieces[0, 0, 0] == 1
    found = survey(change.sweep, change.store, PRINTS)
    assert found.pieces[0, 0, 0] == 0 and found.pieces[1, 0, 1] == FAILED
    assert found.errors == {(1, 0): "samples: boom"}
    assert found.found[folder(change.every[0])].listed
    assert not found.found[folder(change.every[1])].listed


def test_a_kept_row_says_of_stale_pieces_and_failures_what_reading_says(tmp_path):
    change = Change(tmp_path)
    change.piece(2, 1, "samples", 0, "old print")
    change.failure(1, 2, "generalization")
    read, kept = (survey(change.sweep, change.store, PRINTS) for _ in range(2))
    assert read.found[folder(change.every[2])].listed
    assert not kept.found[folder(change.every[2])].listed
    assert kept.stale == read.stale == {"samples": 1}
    assert kept.stale_prints == read.stale_prints == {("samples", "pieces", "old print"): 1}
    assert kept.stale_at == read.stale_at == {(2, 0): {"samples"}}
    assert kept.errors == read.errors == {(1, 1): "generalization: boom"}


def test_a_store_that_may_only_be_read_is_surveyed_without_an_index(tmp_path, monkeypatch):
    change = Change(tmp_path)
    change.piece(0, 1, "samples", 1)

    def refused(name, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(change.store.files, "write", refused)
    assert survey(change.sweep, change.store, PRINTS).pieces[0, 0, 1] == DONE


VALUES = st.sampled_from(["f4", "f8", "i8", "u1"]).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(st.integers(1, 3), max_size=3))
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=4), st.integers(2, 3), st.randoms(use_true_random=False))
def test_numbers_read_at_their_place_are_those_decoded(variables, n, random):
    def piece():
        found = {}
        for v, (kind, shape) in enumerate(variables):
            values = np.array([random.randrange(2) for _ in range(int(np.prod(shape)))], kind)
            dims = tuple(f"d{i}" for i in range(len(shape)))
            found[f"v{v}"] = Variable(dims, values.reshape(shape), {"units": "1"})
        return Piece(found, {}, "print")

    files, layouts = [encode(piece()) for _ in range(n)], Layouts()
    found = [layouts.of(data) for data in files]
    assert len(set(found)) == 1
    numbers = [found[0].numbers(data) for data in files]
    flat = np.frombuffer(b"".join(numbers), np.uint8).reshape(n, -1)
    for name in found[0].piece.variables:
        many = found[0].values(name, flat)
        for own, data in zip(many, files, strict=True):
            np.testing.assert_array_equal(own, decode(data).variables[name].values)
