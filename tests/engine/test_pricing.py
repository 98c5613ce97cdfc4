"""What oracles cost, and how long their tasks may take; no data of such size are needed."""

import time

import pytest
import torch

import trainables
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser
from engine import cost, pricing, vigil
from engine.cli import find
from engine.cost import Cost, estimate
from engine.driver import Driver
from engine.grid import Cell
from engine.makespan import Machine
from engine.resolve import DataFacts, Facts, fingerprints, resolve
from engine.run import Prepared, prepare
from engine.store import Store
from tests.engine.helpers import compute, job_of, prepared

QUICKSTART_SECONDS = 582
"""Of a core, that docs/engine.md says are planned for it."""


def at_scale(name, storage, n_pool, n_heldout, shape, overrides=()):
    """A shipped sweep that is told what its data are, instead of reading them."""
    sweep, origin = find(name, overrides)
    counts = dict.fromkeys(["n_leaked", "n_duplicates", "n_constant_pixels"], 0)
    said = {"name": sweep.data.name, "options": sweep.data.options, "content_hash": "0"}
    sizes = {"shape": shape, "sigma_data": 0.5, "n_pool": n_pool, "n_heldout": n_heldout}
    data = DataFacts(**said, **sizes, **counts, sources={})
    known = Facts(
        version=trainables.VERSION, data=data, backbone={}, training={}, analyses={}, sizes={}
    )
    facts, _ = resolve(sweep, origin, known, count_flops=False)
    store = Store(str(storage), sweep.name)
    return Prepared(sweep, origin, facts, fingerprints(sweep, facts), store, None)


@pytest.fixture
def ffhq(tmp_path):
    """The paper's main sweep: d = 12,288 and up to 33,900 training points."""
    return at_scale("paper_ffhq", tmp_path, 67_952, 2048, (3, 64, 64))


@pytest.fixture
def probe(monkeypatch):
    """A probe that takes no time: a second a kimg, a tenth of one an analysis."""

    def told(job, trial):
        return Cost(1.0, dict.fromkeys(job.sweep.analyses, 0.1))

    monkeypatch.setattr(cost, "_probe", told)


def driver_of(ready):
    """A driver that has planned and has not started."""
    driver = Driver(job_of(ready), None, ready.survey(), None)
    driver.cost = estimate(driver.job, driver.todo, Machine(2))
    return driver


def oracles(ready):
    """Names of the analyses that have some."""
    return [name for name, facts in ready.facts.analyses.items() if facts.has_reference]


def test_the_oracles_of_many_points_of_many_pixels_may_take_hours(ffhq, probe):
    driver = driver_of(ffhq)
    *_, largest = driver.todo.subsets
    allowed = driver._deadline(largest, oracles(ffhq))
    operations = 4 * largest["n_train"] * 12288
    rows = 10 * 3 * 4 * 2048  # linear_fit: levels, laws, draws, held-out images
    assert allowed > 20 * rows * operations / 1e11  # a core that does 100 GFLOP/s has hours
    assert allowed > 100 * vigil.PATIENCE


def test_the_oracles_of_few_points_of_few_pixels_have_ten_minutes(tiny, tmp_path, probe):
    ready = prepared(tiny, tmp_path)
    driver = driver_of(ready)
    for subset in driver.todo.subsets:
        assert driver._deadline(subset, oracles(ready)) == vigil.PATIENCE == 600


def test_a_training_set_that_a_search_has_not_asked_for_yet_has_a_deadline_too(tmp_path, probe):
    search = "search={optuna: {objective: heldout_loss, mode: min, trials: 2}}"
    ready = at_scale("paper_ffhq", tmp_path, 67_952, 2048, (3, 64, 64), [search])
    driver = driver_of(ready)
    assert not driver.todo.subsets
    subsets = {trial.subset["n_train"]: trial.subset for trial in driver.todo.trials}
    few, many = (
        driver._deadline(subsets[n], oracles(ready)) for n in (min(subsets), max(subsets))
    )
    assert 600 < few < many < float("inf")
    assert driver.cost.oracle_seconds > 0


def test_what_nothing_is_known_of_never_counts_as_stuck(tiny, tmp_path, probe):
    ready = prepared(tiny, tmp_path)
    driver = driver_of(ready)
    cell = Cell(driver.todo.trials[0], 1)
    assert driver._deadline(cell, ["gaussian"]) == 600
    driver.cost.per_cell.clear()
    assert driver._deadline(cell, ["gaussian"]) == float("inf")
    assert vigil.deadline(None) == float("inf")


def test_a_task_of_some_analyses_has_the_seconds_of_those(tiny, tmp_path, monkeypatch):
    seconds = {"linearity": 100.0, "linear_fit": 3.0, "gaussian": 2.0, "generalization": 1.0}
    seconds |= {"memorization": 40.0, "samples": 0.0}
    monkeypatch.setattr(cost, "_probe", lambda job, trial: Cost(1.0, seconds))
    driver = driver_of(prepared(tiny, tmp_path))
    cell = Cell(driver.todo.trials[0], 1)
    assert driver._predicted(cell, list(seconds)) == sum(seconds.values())
    assert driver._predicted(cell, ["linearity"]) >= 100
    assert driver._predicted(cell, ["linearity", "memorization"]) >= 140
    # The fit evaluates itself what it would have shared: most of the rows of all.
    assert 0.5 * 146 < driver._predicted(cell, ["linear_fit"]) < 146


def test_finished_training_sets_correct_the_price_of_the_others(tiny, tmp_path, probe):
    one = prepared({**tiny, "axes": {"width": [64], "n_train": [8]}}, tmp_path)
    compute(one)
    (subset,) = one.survey().subsets
    job, names = job_of(one), oracles(one)
    receipts = {
        name: {"seconds": 30 * pricing.reference_seconds(job, subset, names) / len(names)}
        | {"fingerprint": job.piece_print(subset, name)}
        for name in names
    }
    one.store.add_receipts(subset, "snapshot", receipts)
    ready = prepared({**tiny, "axes": {"width": [64], "n_train": [8, 16]}}, tmp_path)
    found, grown = estimate(job_of(ready), ready.survey()), ready.survey().trials[1].subset
    assert found.oracle_factor == pytest.approx(30)
    priced = pricing.reference_seconds(job_of(ready), grown, names)
    assert found.oracle_seconds == pytest.approx(30 * priced)


def test_oracles_hardly_count_in_the_plan_of_a_small_sweep(tmp_path, probe):
    ready = prepare(*find("quickstart", None), str(tmp_path), count_flops=False)
    found = estimate(job_of(ready), ready.survey(), Machine(2))
    assert 0 < found.oracle_seconds < 0.02 * QUICKSTART_SECONDS
    assert found.longest_oracle < 2 and found.first_seconds == 0
    assert not pricing.compared_seconds(job_of(ready), 512)


def test_oracles_are_part_of_the_analyses_and_of_the_time_of_a_plan(ffhq, probe):
    job, survey = job_of(ffhq), ffhq.survey()
    found = estimate(job, survey, Machine(1000))
    each = [pricing.reference_seconds(job, s, oracles(ffhq)) for s in survey.subsets]
    assert found.oracle_seconds == pytest.approx(sum(each))
    assert found.analysis_seconds > found.oracle_seconds
    assert found.wall_seconds > max(each) + pricing.first_seconds(job)
    assert found.as_json()["oracle_core_seconds"] == found.oracle_seconds


def test_cells_of_many_pixels_cost_no_less_than_the_oracles_that_they_evaluate(ffhq, probe):
    found = estimate(job_of(ffhq), ffhq.survey(), Machine(2))
    gaussian = {t["n_train"]: each["gaussian"] for t, each in found.per_cell.items()}
    n = max(gaussian)
    rows = 10 * (3 * 2048 + 1024)  # levels, the laws and the paths, one draw
    assert gaussian[n] == pytest.approx(rows * 4 * n * 12288 / pricing.OPERATIONS)
    assert gaussian[n] > 100 * gaussian[min(gaussian)]


@pytest.mark.parametrize(("n", "d", "rows"), [(400, 64, 4000), (300, 3072, 200)])
def test_the_price_of_an_evaluation_is_within_a_factor_of_ten_of_its_time(n, d, rows):
    generator = torch.Generator().manual_seed(0)
    a, y = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (n, rows))
    memory = EmpiricalDenoiser(a)
    memory(y, 1.0)
    start = time.process_time()
    memory(y, 1.0)
    spent = time.process_time() - start
    assert 0.1 < spent / (4 * n * d * rows / pricing.OPERATIONS) < 10


@pytest.mark.parametrize(("n", "d"), [(200, 900), (1000, 400)])
def test_the_price_of_a_basis_is_within_a_factor_of_ten_of_its_time(n, d):
    points = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Moments.of_points(points)
    start = time.process_time()
    Moments.of_points(points)
    assert 0.1 < (time.process_time() - start) / pricing.basis_seconds(n, d) < 10
