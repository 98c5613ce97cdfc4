"""`run` without Ray: signals at any moment, refusals before anything is written."""

import contextlib
import os
import signal

import pytest

from engine import cluster, cost
from engine import run as run_module
from engine.makespan import Machine
from engine.run import run
from engine.spec import SpecError
from tests.engine.helpers import compute, prepared

ONE = {"axes": {"width": [64], "n_train": [8]}, "kimg": [1], "analyses": ["generalization"]}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def unhandled():
    """What else takes the signals, so that a run that does not take them fails alone."""

    def handler(number, frame):
        raise AssertionError(f"signal {number} was not taken")

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    yield handler
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("moment", ["survey", "publish"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_in_order_whatever_it_is_about(
    number, moment, unhandled, tiny, tmp_path, monkeypatch, capsys
):
    ready = prepared({**tiny, **ONE}, tmp_path)
    compute(ready)

    def interrupted(*_, **__):
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on after the signal")

    where = run_module if moment == "publish" else run_module.Prepared
    monkeypatch.setattr(where, moment, interrupted)
    assert run(ready) == 130
    assert "interrupted: the same command goes on from here" in capsys.readouterr().err
    assert all(signal.getsignal(n) is unhandled for n in SIGNALS)
    monkeypatch.undo()
    assert run(ready, figures=False) == 0


def test_a_second_signal_ends_the_process_at_once(unhandled, tiny, tmp_path, monkeypatch):
    ready = prepared({**tiny, **ONE}, tmp_path)
    compute(ready)
    ended = []

    def stubborn(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_module, "publish", stubborn)
    monkeypatch.setattr(os, "_exit", ended.append)
    run(ready)
    assert ended == [130]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"address": "head:1", "max_hours": 1e-6}, "--max-hours allows 1e-06"),
        ({"max_hours": 1e-6}, "--max-hours allows 1e-06"),
        ({}, "one process would need about"),
    ],
)
def test_a_run_that_is_refused_leaves_no_record(more, reason, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "configure", lambda address: None)
    monkeypatch.setattr(cluster, "cluster", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "check_storage", lambda files: None)
    monkeypatch.setattr(cluster, "machine", lambda address: Machine(2))
    monkeypatch.setattr(cost, "memory_here", lambda: 1)
    ready = prepared({**tiny, **ONE}, tmp_path)
    with pytest.raises(SpecError, match=reason):
        run(ready, **more)
    assert ready.store.record() is None
