"""The cost model: what it counts, and that finished cells replace the probe."""

import pytest

from engine import cost
from engine.cost import Cost, estimate
from engine.spec import SpecError
from tests.engine.helpers import compute, job_of, prepared


def estimated(ready):
    """The cost of what is missing."""
    return estimate(job_of(ready), ready.survey())


def test_cost_is_kimg_times_speed_plus_cells_times_analysis(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        cost, "_probe", lambda job, trial: Cost(3.0, {"gaussian": 4.0, "samples": 1.0})
    )
    ready = prepared(tiny, tmp_path)
    found = estimated(ready)
    assert found.train_seconds == 4 * 2 * 3.0
    assert found.analysis_seconds == pytest.approx(4 * 2 * 5.0)
    assert found.disk_bytes > 0 and not found.measured
    later = prepared({**tiny, "kimg": [1, 2, 5]}, tmp_path)
    assert estimated(later).train_seconds == 4 * 5 * 3.0


def test_only_what_is_missing_costs_and_finished_cells_tell_the_speed(tiny, tmp_path, monkeypatch):
    compute(prepared(tiny, tmp_path))

    def probe(job, trial):
        raise AssertionError("finished trials of this size are stored: no probe is needed")

    monkeypatch.setattr(cost, "_probe", probe)
    assert estimated(prepared(tiny, tmp_path)).core_seconds == 0
    grown = prepared({**tiny, "kimg": [1, 2, 4]}, tmp_path)
    assert estimated(grown).measured and estimated(grown).train_seconds > 0
    seeds = prepared({**tiny, "axes": {**tiny["axes"], "seed": [0, 1]}}, tmp_path)
    found = estimated(seeds)
    records = [
        seeds.store.trial_record(t)["snapshots"]["kimg=2"] for t in seeds.survey().trials[::2]
    ]
    assert found.measured
    assert found.train_seconds == pytest.approx(sum(r["train_seconds"] for r in records), rel=0.5)


def test_what_no_process_could_hold_is_refused(tiny, tmp_path, monkeypatch):
    job = job_of(prepared(tiny, tmp_path))
    cost.check_memory(job, "tiny.yaml")
    monkeypatch.setattr(cost.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.get)
    with pytest.raises(
        SpecError, match=r"tiny.yaml: one process would need about .* GB of memory"
    ):
        cost.check_memory(job, "tiny.yaml")


def test_a_probe_knows_that_a_wider_network_is_slower(tiny, tmp_path):
    sizes = {"axes": {"width": [64, 512], "n_train": [8]}, "training": {"batch": 512}}
    ready = prepared({**tiny, **sizes}, tmp_path)
    small, large = (cost._probe(job_of(ready), trial) for trial in ready.survey().trials)
    assert 0 < 2 * small.kimg_seconds < large.kimg_seconds
    assert 0 < small.cell_seconds < large.cell_seconds


def test_a_network_too_large_to_be_timed_costs_in_proportion_to_its_parameters(
    tiny, tmp_path, monkeypatch
):
    ready = prepared({**tiny, "axes": {"width": [512, 64, 128], "n_train": [8]}}, tmp_path)
    job, timed = job_of(ready), []
    monkeypatch.setattr(cost, "PROBE_WORK", 64 * job.facts.sizes['{"depth":3,"width":64}'][0])
    monkeypatch.setattr(cost, "_probe", lambda job, trial: timed.append(trial) or Cost(3.0, {}))
    costs = {}
    cost._fill(job, ready.survey().trials, costs)
    assert [trial["width"] for trial in timed] == [64]
    small, *larger = sorted(job.facts.sizes, key=lambda key: job.facts.sizes[key][0])
    for key in larger:
        factor = job.facts.sizes[key][0] / job.facts.sizes[small][0]
        assert costs[key].kimg_seconds == pytest.approx(3.0 * factor)
