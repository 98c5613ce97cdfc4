"""Comparisons of two cells: a second stage on stored pieces."""

import numpy as np
import pytest

from engine.spec import SpecError
from engine.work import DONE, FAILED, PENDING, SKIPPED
from tests.engine.helpers import compute, cube_of, prepared

GRID = {"width": [64], "n_train": [8, 16], "seed": [0, 1], "split": ["a", "b"]}


@pytest.fixture
def twins(tiny):
    return {
        **tiny,
        "axes": GRID,
        "kimg": [1],
        "analyses": {"samples": {}, "twin": {}, "rerun": {}, "largest": {}},
    }


def states(survey, name):
    """Status of one analysis by (n_train, seed, split)."""
    column = 1 + list(survey.sweep.analyses).index(name)
    return {
        (t["n_train"], t["seed"], t["split"]): int(row[0, column])
        for t, row in zip(survey.trials, survey.pieces, strict=True)
    }


def test_a_pair_waits_until_both_cells_are_stored(twins, tmp_path):
    ready = prepared(twins, tmp_path)
    assert not any("twin" in name for _, names in ready.survey().to_analyse() for name in names)
    compute(ready, analyses=["samples"])
    todo = [(str(at), names) for at, names in ready.survey().to_analyse()]
    assert sum("twin" in names for _, names in todo) == 4
    assert all("split=a" in at for at, names in todo if "twin" in names)
    compute(ready)
    assert ready.survey().is_finished and (ready.survey().cells() == DONE).all()


def test_what_is_to_come_is_counted_with_pairs_and_oracles(twins, tmp_path):
    ready = prepared(twins | {"analyses": {**twins["analyses"], "outputs": {}}}, tmp_path)
    expected, done = ready.survey().missing(), 0
    while not ready.survey().is_finished:
        done += sum(kind == "analyse" for kind, *_ in compute(ready))
    # 8 cells: samples and outputs of each; 4 twins, 4 reruns, 4 to the largest; 4 oracles.
    assert expected == done == 16 + 12 + 4
    assert ready.survey().missing() == 0


def test_cells_without_a_partner_are_skipped_and_complete(twins, tmp_path):
    ready = prepared(twins, tmp_path)
    compute(ready)
    compute(ready)
    found = ready.survey()
    assert states(found, "twin")[8, 0, "b"] == SKIPPED
    assert states(found, "rerun")[8, 1, "a"] == SKIPPED
    assert states(found, "largest")[16, 0, "a"] == SKIPPED
    assert (found.cells() == DONE).all()
    cube = cube_of(ready)
    assert "split" not in cube["twin_mse"].dims and cube["twin_mse"].notnull().all()
    rerun = cube["rerun_mse"]
    assert rerun.sel(seed=0).notnull().all() and rerun.sel(seed=1).isnull().all()


def test_the_pair_is_measured_on_what_is_stored(twins, tmp_path):
    ready = prepared(twins, tmp_path)
    compute(ready)
    compute(ready)
    cube = cube_of(ready)
    one, other = (cube["samples"].sel(split=s) for s in "ab")
    expected = ((one - other) ** 2).mean(["sample", "pixel"])
    np.testing.assert_allclose(expected.values, cube["twin_mse"].values, rtol=1e-5)


def test_a_partner_that_failed_leaves_no_pair_to_wait_for(twins, tmp_path, monkeypatch):
    import engine.analyse as module

    ready = prepared(twins, tmp_path)
    real = module.measure_all

    def broken(specimen, options, meter):
        if len(specimen.train) == 16:
            raise ArithmeticError("no such number")
        return real(specimen, options, meter)

    monkeypatch.setattr(module, "measure_all", broken)
    compute(ready)
    monkeypatch.undo()
    compute(ready)
    found = ready.survey()
    assert states(found, "samples")[16, 0, "a"] == FAILED
    assert states(found, "largest")[8, 0, "a"] == SKIPPED
    assert states(found, "twin")[8, 0, "a"] == DONE
    assert found.is_finished
    again = ready.survey(retry_failed=True)
    assert states(again, "samples")[16, 0, "a"] == PENDING
    assert states(again, "largest")[8, 0, "a"] == PENDING


def test_changing_the_sampler_makes_samples_and_pairs_stale(twins, tmp_path):
    ready = prepared(twins, tmp_path)
    compute(ready)
    compute(ready)
    changed = prepared({**twins, "sampler": {"samples": 16, "steps": 5}}, tmp_path)
    stale = changed.survey().stale
    assert stale["samples"] == 8 and stale["twin"] == 4


def test_a_pair_without_stored_samples_is_refused(twins, tmp_path):
    with pytest.raises(SpecError, match=r"analyses\.twin: compares stored results of samples"):
        prepared({**twins, "analyses": {"twin": {}}}, tmp_path)


def test_a_pair_takes_no_options(twins, tmp_path):
    with pytest.raises(SpecError, match=r"analyses\.twin: has no options, got steps"):
        prepared({**twins, "analyses": {"samples": {}, "twin": {"steps": 3}}}, tmp_path)


def test_a_cell_whose_pieces_are_stored_needs_no_snapshot_for_its_pairs(twins, tmp_path):
    """Also split b, which has no partner: a user may delete snapshots to save space."""
    ready = prepared(twins, tmp_path)
    compute(ready, analyses=["samples"])
    for path in tmp_path.rglob("snapshots/*.safetensors"):
        path.unlink()
    assert not ready.survey().to_train()
    compute(ready)
    assert (ready.survey().cells() == DONE).all()


def test_other_noise_levels_make_what_looks_at_all_of_them_stale(tiny, tmp_path):
    mapping = {**tiny, "analyses": {"memorization": {}, "posterior": {}}}
    compute(prepared(mapping, tmp_path))
    stale = prepared({**mapping, "sigmas": [0.2, 0.5, 1]}, tmp_path).survey().stale
    assert stale["posterior"] == 4 * 2 + 2 and stale["memorization"] == 0
