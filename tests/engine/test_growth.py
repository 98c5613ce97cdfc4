"""A sweep that grows computes the new alone, and its plan says why each thing is there or not."""

import copy
import json

import pytest

from engine.explain import lines
from engine.listing import planned
from engine.run import record_run
from engine.work import DONE
from tests.engine.helpers import TINY, compute, cube_of, prepared

SMALL = {
    **TINY,
    "axes": {"width": [64], "n_train": [8], "training.lr": [0.004]},
    "training": {"batch": 128, "warmup_kimg": 1},
    "analyses": {"memorization": {}, "generalization": {}},
}


def run(mapping, storage):
    """Everything missing, and sweep.json as a run leaves it; returns what was done."""
    ready = prepared(mapping, storage)
    todo = ready.survey()
    if not todo.is_finished:
        record_run(ready, "test")
    return compute(ready)


def files(folder):
    """Bytes and time of every result below a folder."""
    found = [p for kind in ("*.arrow", "kimg*.safetensors") for p in folder.rglob(kind)]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def plan(mapping, storage):
    """Reasons of a plan as {(state, count, what): why}, and its text."""
    ready = prepared(mapping, storage)
    found = ready.explain(ready.survey())
    reasons = {
        (r["state"], r.get("cells", r.get("pieces")), r.get("analysis")): r["why"] for r in found
    }
    return reasons, "\n".join(lines(found))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A finished small sweep; the tests grow copies of it."""
    folder = tmp_path_factory.mktemp("grown")
    run(SMALL, folder)
    return folder


@pytest.fixture
def storage(stored, tmp_path):
    import shutil

    shutil.copytree(stored / "tiny", tmp_path / "tiny")  # times are kept
    return tmp_path


def grown(path, value):
    """The small sweep with one key replaced."""
    mapping = copy.deepcopy(SMALL)
    section, _, key = path.partition(".")
    if key:
        mapping[section][key] = value
    else:
        mapping[section] = value
    return mapping


GROWTH = {
    "axes.width": ([64, 96], "width=96 is new", 2),
    "axes.n_train": ([8, 12], "n_train=12 is new", 2),
    "axes.seed": ([0, 1], "seed=1 is new", 2),
    "axes.draw": ([0, 2], "draw=2 is new", 2),
    "axes.split": (["a", "b"], "split=b is new", 2),
    "axes.training.lr": ([0.002, 0.004], "training.lr=0.002 is new", 2),
    "kimg": ([1, 1.5, 2], "kimg=1.5 is new", 1),
}


@pytest.mark.parametrize("path", GROWTH)
def test_added_values_are_all_that_is_computed(storage, path):
    values, why, cells = GROWTH[path]
    before = files(storage)
    reasons, _ = plan(grown(path, values), storage)
    kept = "stored with the settings of this sweep"
    assert reasons == {("cached", 2, None): kept, ("missing", cells, None): why}
    done = run(grown(path, values), storage)
    assert sum(kind == "train" for kind, *_ in done) == cells
    after = files(storage)
    assert {name: after[name] for name in before} == before and len(after) > len(before)
    assert cube_of(prepared(grown(path, values), storage)).status.values.ravel().tolist() == (
        [DONE] * (2 + cells)
    )


def test_a_later_kimg_trains_on_and_leaves_the_rest(storage):
    before = files(storage)
    done = run(grown("kimg", [1, 2, 3]), storage)
    assert [kimg for kind, *_, kimg in done if kind == "train"] == [3]
    assert {name: files(storage)[name] for name in before} == before


def test_an_added_analysis_is_all_that_is_computed(storage):
    before = files(storage)
    mapping = grown("analyses.linearity", {})
    reasons, _ = plan(mapping, storage)
    assert reasons == {("missing", 2, None): "analysis linearity is new"}
    done = run(mapping, storage)
    assert {(kind, name) for kind, _, name in done} == {("analyse", "linearity")}
    assert {name: files(storage)[name] for name in before} == before


STALE = {
    "analyses.memorization": ({"threshold": 0.25}, "options.threshold 0.3333333333333333 -> 0.25"),
    "numerics.eval_batch": (32, "numerics.eval_batch 64 -> 32"),
    "sampler.samples": (12, "sampler.samples 16 -> 12"),
}


@pytest.mark.parametrize("path", STALE)
def test_a_changed_option_is_named_and_recomputes_its_own_pieces_alone(storage, path):
    value, why = STALE[path]
    before, mapping = files(storage), grown(path, value)
    reasons, text = plan(mapping, storage)
    stale = {key: reason for key, reason in reasons.items() if key[0] == "stale"}
    assert why in stale.values() and why in text
    done = run(mapping, storage)
    assert all(kind == "analyse" for kind, *_ in done)
    touched = {name for _, _, name in done}
    assert touched == {name for _, _, name in stale}
    after = files(storage)
    others = {name for name in before if not any(each in name for each in touched)}
    assert others and all(after[name] == before[name] for name in others)
    assert plan(mapping, storage)[0] == {
        ("cached", 2, None): "stored with the settings of this sweep"
    }


def test_a_new_version_of_an_analysis_is_named(storage, monkeypatch):
    import dataclasses

    from analyses.registry import ANALYSES

    newer = dataclasses.replace(
        ANALYSES["generalization"], version=ANALYSES["generalization"].version + 1
    )
    monkeypatch.setitem(ANALYSES, "generalization", newer)
    reasons, _ = plan(SMALL, storage)
    assert f"version of analysis {newer.version - 1} -> {newer.version}" in reasons.values()


def test_what_a_piece_was_made_of_two_changes_ago_is_remembered_and_else_said_unknown(storage):
    ready = prepared(grown("analyses.memorization", {"threshold": 0.25}), storage)
    record_run(ready, "killed before it computed")
    third = grown("analyses.memorization", {"threshold": 0.2})
    assert "options.threshold 0.3333333333333333 -> 0.2" in plan(third, storage)[0].values()
    record = ready.store.record()
    ready.store.write_record(record | {"ingredients": {}})
    assert "by an earlier version or options" in plan(third, storage)[0].values()


def test_a_failed_piece_is_explained_by_its_error(storage):
    ready = prepared(grown("analyses.linearity", {}), storage)
    record_run(ready, "test")
    todo = ready.survey()
    for cell, _ in todo.to_analyse():
        receipt = {
            "error": "ValueError: no\nmore",
            "fingerprint": ready.prints["pieces"]["linearity"],
        }
        ready.store.add_receipts(cell, "denoising", {"linearity": receipt})
    reasons, text = plan(grown("analyses.linearity", {}), storage)
    assert reasons == {("failed", 2, None): "linearity: ValueError: no"}
    assert "--retry-failed" in text


def test_removed_values_leave_the_cube_and_come_back_for_nothing(storage):
    run(grown("axes.n_train", [8, 12]), storage)
    before = files(storage)
    assert run(SMALL, storage) == [] and files(storage) == before
    assert cube_of(prepared(SMALL, storage)).sizes["n_train"] == 1
    assert run(grown("axes.n_train", [8, 12]), storage) == [] and files(storage) == before


def test_before_the_first_run_nothing_is_explained_away(tmp_path):
    numbers, text = planned(prepared(SMALL, tmp_path))
    assert "missing  2 cells: nothing has been run yet" in text
    assert json.loads(json.dumps(numbers))["why"] == [
        {"state": "missing", "cells": 2, "why": "nothing has been run yet"}
    ]
