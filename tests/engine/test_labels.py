"""Trainings that are told labels, from the sweep file to the cube."""

import numpy as np
import pytest

from engine.listing import planned
from engine.resolve import load
from engine.spec import SpecError
from tests.engine.helpers import TINY, compute, cube_of, job_of, prepared

KINDS = ["none", "class", "random", "unique"]
LABELLED = {
    **TINY,
    "name": "labelled",
    "axes": {"width": [64], "n_train": [8], "training.labels": KINDS},
    "analyses": {"memorization": {}, "samples": {}},
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    ready = prepared(LABELLED, tmp_path_factory.mktemp("labelled"))
    compute(ready)
    return ready


def test_a_sweep_over_kinds_of_labels_is_measured_whole(ready):
    cube = cube_of(ready)
    assert cube["training_labels"].values.tolist() == KINDS
    assert (cube["status"] == 2).all()
    samples = cube["samples"].isel(kimg=-1, drop=True).squeeze()
    assert np.isfinite(samples).all()
    for one in range(4):
        for other in range(one):
            apart = samples.isel(training_labels=one) - samples.isel(training_labels=other)
            assert float(abs(apart).max()) > 1e-3


def test_samples_have_labels_of_training_points(ready):
    job, data = job_of(ready), load(ready.sweep, ready.origin)
    by_kind = {trial["training.labels"]: trial for trial in ready.survey().trials}
    for kind in KINDS[1:]:
        labels, drawn = job.labels(data, by_kind[kind]), job.drawn_labels(data, by_kind[kind], 400)
        assert set(drawn.tolist()) == set(labels.tolist())
        assert drawn[:50].equal(job.drawn_labels(data, by_kind[kind], 50))
    assert job.drawn_labels(data, by_kind["none"], 5) is None


def changed(**changes):
    return {**LABELLED, "axes": {"width": [64], "n_train": [8]}, **changes}


def test_what_is_told_nothing_keeps_its_fingerprint(tmp_path):
    plain = prepared(changed(), tmp_path / "a").prints["snapshot"]
    told = {k: {**TINY["training"], "labels": k} for k in KINDS}
    prints = {
        k: prepared(changed(training=told[k]), tmp_path / k).prints["snapshot"] for k in KINDS
    }
    assert prints["none"] == plain and len(set(prints.values())) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training": {**TINY["training"], "labels": "kind"}},
            r"labels: unknown|[Uu]nknown labels 'kind'.*none, class, random, unique",
        ),
        (
            {
                "training": {**TINY["training"], "labels": "class"},
                "data": {"name": "gaussian", "dim": 64, "n": 200, "n_heldout": 32},
            },
            "training.labels: 'class' needs classes, which the data set gaussian has not",
        ),
        (
            {
                "training": {**TINY["training"], "labels": "unique"},
                "backbone": {"name": "linear"},
            },
            "training.labels: `labels`: a backbone of kind Linear cannot be told any",
        ),
        (
            {
                "training": {**TINY["training"], "labels": "unique"},
                "analyses": {"memorization": {}, "linearity": {}},
            },
            "analyses.linearity: looks at images without labels.*allowed: memorization, novelty",
        ),
    ],
)
def test_what_labels_cannot_do_is_said_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message):
        prepared(changed(**changes), tmp_path)


def test_a_training_that_is_told_labels_has_a_price(tmp_path):
    told = {"training": {**TINY["training"], "labels": "unique"}}
    numbers, _ = planned(prepared(changed(**told), tmp_path))
    assert numbers["cost"]["train_core_seconds"] > 0
