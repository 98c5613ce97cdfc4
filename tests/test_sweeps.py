"""The shipped sweeps: each passes every check that precedes a run."""

import numpy as np
import pytest

import sweeps
from engine.cli import find
from engine.run import prepare
from tests.laws.test_datasets import FILES, write_idx
from tests.standin import MAKE, TOY


@pytest.mark.parametrize("name", sweeps.names())
def test_a_shipped_sweep_passes_the_checks_before_a_run(name, tmp_path):
    sweep, origin = find(name, None)
    if sweep.data.name == "fashion_mnist":  # stands in for images that need not be here
        pixels = np.random.default_rng(0).integers(0, 256, (1200, 28, 28), dtype=np.uint8)
        for file in FILES:
            write_idx(tmp_path / file, pixels)
        sweep, origin = find(name, [f"data.path={tmp_path}"])
    if name in MAKE:  # at the paper's scale: at toy size here
        path = MAKE[name](tmp_path, 120)
        sweep, origin = find(name, [f"data.path={path}", "data.n_heldout=20", *TOY])
    ready = prepare(sweep, origin, str(tmp_path), count_flops=False)
    assert sweep.name == name and sweep.question
    assert ready.survey().to_train()
