"""The shipped sweeps: each passes every check that precedes a run."""

import pytest

import sweeps
from engine.cli import find
from engine.run import prepare


@pytest.mark.parametrize("name", sweeps.names())
def test_a_shipped_sweep_passes_the_checks_before_a_run(name, tmp_path):
    sweep, origin = find(name, None)
    ready = prepare(sweep, origin, str(tmp_path), count_flops=False)
    assert sweep.name == name and sweep.question
    assert ready.survey().to_train()
