"""Worker groups: what a rank says decides; nothing here starts one."""

import pickle

import pytest
from ray.train import WorkerGroupError
from ray.train import torch as train_torch

from engine.files import Full
from engine.grid import to_json
from engine.job import OutOfMemory
from engine.resolve import load
from engine.training import Trainable, reason_of_group
from engine.trial import TrialFailed, train_trial
from tests.engine.helpers import job_of, prepared
from trainables.train import Training

ONE = {"axes": {"width": [64], "n_train": [8]}, "kimg": [1, 2]}


def trainable(ready):
    """The one trial of a sweep as Tune sees it, with its worker group still to come."""

    class Alone(Trainable):
        trial_id, logdir = "alone", "nowhere"
        refs = "the job", "the data"

    ((trial, kimg),) = ready.survey().to_train()
    group = object.__new__(Alone)
    group.job, group.trial, group.kimg = job_of(ready), trial, kimg
    group.config = {"trial": to_json(trial)}
    return group


def as_rank(rank, ready, trial, kimg):
    """Train as one of two ranks, without the other one."""
    return list(
        train_trial(job_of(ready), load(ready.sweep, "x"), trial, kimg, rank=rank, world=2)
    )


def test_a_group_fails_by_the_rank_that_says_why(tiny, tmp_path):
    gone, full, memory = RuntimeError("closed by peer"), Full("no space left"), OutOfMemory("no")
    failed = TrialFailed("here", "FloatingPointError: nan")
    for causes, said in [
        ([gone, full], full),
        ([memory, gone], memory),
        ([full, failed], failed),
    ]:
        error = pickle.loads(pickle.dumps(WorkerGroupError("text", dict(enumerate(causes)))))
        assert type(found := reason_of_group(error)) is type(said)
        assert str(found) == str(said)
    assert reason_of_group(error := WorkerGroupError("text", {0: gone})) is error
    assert reason_of_group(error := RuntimeError("the controller died")) is error


def test_a_divergence_that_only_the_second_rank_sees_is_a_failed_trial(
    tiny, tmp_path, monkeypatch
):
    ready = prepared({**tiny, **ONE}, tmp_path)
    ((trial, kimg),) = ready.survey().to_train()
    as_rank(0, ready, trial, kimg[:1])
    group = trainable(ready)
    monkeypatch.setattr(Training, "check", lambda self: 1 / 0)
    with pytest.raises(TrialFailed, match="ZeroDivisionError") as caught:
        as_rank(1, ready, trial, kimg)
    assert ready.store.trial_record(trial)["status"] == "done"  # as the first rank left it
    error = WorkerGroupError("text of both ranks", {1: caught.value})
    assert isinstance(group._noted(error), TrialFailed)
    record = ready.store.trial_record(trial)
    assert record["status"] == "failed" and record["traceback"].endswith("text of both ranks")
    assert record["error"] == "ZeroDivisionError: division by zero"
    assert list(record["snapshots"]) == ["kimg=1"] and not ready.survey().to_train()


def test_a_rank_that_loses_another_does_not_fail_the_training(tiny, tmp_path, monkeypatch):
    ready = prepared({**tiny, **ONE}, tmp_path)
    ((trial, kimg),) = ready.survey().to_train()

    def advance(self):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(Training, "advance", advance)
    with pytest.raises(RuntimeError, match=r"^Connection closed by peer$"):
        as_rank(0, ready, trial, kimg)
    assert ready.store.trial_record(trial)["status"] == "running"


def test_a_group_starts_for_what_is_missing_alone_and_reads_the_one_copy_of_the_data(
    tiny, tmp_path, monkeypatch
):
    ready = prepared({**tiny, **ONE, "resources": {"workers": 2}}, tmp_path)
    ((trial, kimg),) = ready.survey().to_train()
    handed, group = [], trainable(ready)
    as_rank(0, ready, trial, kimg[:1])

    class Here:
        def __init__(self, loop, *, train_loop_config, **_):
            handed.append(train_loop_config["data"])

        def fit(self):
            as_rank(0, ready, trial, kimg)

    monkeypatch.setattr(train_torch, "TorchTrainer", Here)
    assert [metrics["kimg"] for metrics in group._by_group()] == [2]
    assert list(group._by_group()) == []
    assert handed == ["the data"]
