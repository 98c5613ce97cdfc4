"""`status`: how long the trainings take that are still to come."""

import pytest

from engine.grid import Cell, moment
from engine.status import state_of
from engine.store import snapshot_path
from tests.engine.helpers import prepared

AXES = {"width": [64], "n_train": [8], "seed": list(range(10))}
SECONDS = 3.0
"""Of a kimg, in the records below."""


def seconds_left(ready):
    """As `status` tells it."""
    return state_of(ready.sweep, {"prints": ready.prints}, ready.store)[0]["seconds_left"]


def begin(ready, seed, trained, status="running"):
    """As if the trial of a seed had been asked for and had stored its first snapshots."""
    trial = ready.survey().trials[seed]
    stored = ready.sweep.kimg[:trained]
    record = {moment(k): {"train_seconds": SECONDS * k} for k in stored}
    ready.store.write_trial_record(trial, {"status": status, "snapshots": record})
    for kimg in stored:
        ready.store.write_tensors(snapshot_path(Cell(trial, kimg)), {}, {})
    return {"point": dict(trial.coordinates), "value": None}


def test_the_time_left_is_that_of_all_missing_kimg_over_the_running_trials(tiny, tmp_path):
    ready = prepared({**tiny, "axes": AXES}, tmp_path)
    begin(ready, 0, 1)
    assert seconds_left(ready) == pytest.approx((9 * 2 + 1) * SECONDS)
    begin(ready, 1, 1)
    assert seconds_left(ready) == pytest.approx((8 * 2 + 2) * SECONDS / 2)


def test_trials_that_a_search_will_not_ask_for_take_no_time(tiny, tmp_path):
    search = {"optuna": {"objective": "heldout_loss", "mode": "min", "trials": 3}}
    ready = prepared({**tiny, "axes": AXES, "search": search}, tmp_path)
    asked = [begin(ready, 0, 1)]
    ready.store.write_asked(asked)
    assert seconds_left(ready) == pytest.approx((1 + 2 * 2) * SECONDS)
    ready.store.write_asked([*asked, begin(ready, 1, 1), begin(ready, 2, 1)])
    assert seconds_left(ready) == pytest.approx(3 * 1 * SECONDS / 3)


def test_a_trial_that_failed_takes_no_time(tiny, tmp_path):
    ready = prepared({**tiny, "axes": {**AXES, "seed": [0, 1]}}, tmp_path)
    begin(ready, 0, 1)
    begin(ready, 1, 1, status="failed")
    assert seconds_left(ready) == pytest.approx(1 * SECONDS)
