"""The cost model: what it counts, what finished cells teach it, how work fits a machine."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import cost
from engine.cost import Cost, estimate, extrapolated, spread
from engine.gpus import sustained
from engine.makespan import (
    Machine,
    chances,
    list_schedule,
    makespan,
    scheduled,
    slots_on,
    spread_out,
)
from engine.resolve import size_key
from engine.spec import Resources, SpecError
from tests.engine.helpers import compute, job_of, prepared

ANALYSES = {"gaussian": 4.0, "samples": 1.0}


def estimated(ready, machine=None):
    """The cost of what is missing."""
    return estimate(job_of(ready), ready.survey(), machine)


@pytest.fixture
def probe(monkeypatch):
    """A probe that knows: 3 seconds a kimg."""
    monkeypatch.setattr(cost, "_probe", lambda job, trial: Cost(3.0, ANALYSES))


@pytest.fixture
def no_probe(monkeypatch):
    def probe(job, trial):
        raise AssertionError("finished trials tell: no probe is needed")

    monkeypatch.setattr(cost, "_probe", probe)


def test_cost_is_kimg_times_speed_plus_cells_times_analysis(tiny, tmp_path, probe):
    ready = prepared(tiny, tmp_path)
    found = estimated(ready)
    assert found.train_seconds == 4 * 2 * 3.0
    assert found.analysis_seconds - found.oracle_seconds == pytest.approx(4 * 2 * 5.0)
    assert found.disk_bytes > 0 and found.source == "steps timed here"
    later = prepared({**tiny, "kimg": [1, 2, 5]}, tmp_path)
    assert estimated(later).train_seconds == 4 * 5 * 3.0


def test_only_what_is_missing_costs_and_finished_cells_tell_the_speed(tiny, tmp_path, no_probe):
    compute(prepared(tiny, tmp_path))
    assert estimated(prepared(tiny, tmp_path)).core_seconds == 0
    grown = prepared({**tiny, "kimg": [1, 2, 4]}, tmp_path)
    assert estimated(grown).source == "finished cells" and estimated(grown).train_seconds > 0
    seeds = prepared({**tiny, "axes": {**tiny["axes"], "seed": [0, 1]}}, tmp_path)
    found = estimated(seeds)
    records = [
        seeds.store.trial_record(t)["snapshots"]["kimg=2"] for t in seeds.survey().trials[::2]
    ]
    assert found.source == "finished cells"
    assert found.train_seconds == pytest.approx(sum(r["train_seconds"] for r in records), rel=0.5)


def finished(monkeypatch, seconds):
    """As if trials of these network sizes had cost so much a kimg, analyses ten times that."""
    found = {
        key: [Cost(s, {"gaussian": 10 * s, "samples": 0.0}) for s in each]
        for key, each in seconds.items()
    }
    monkeypatch.setattr(cost, "_stored", lambda job, survey: found)


WIDTHS = {"axes": {"width": [64, 128, 256, 512], "n_train": [8]}}


def test_sizes_not_yet_finished_follow_the_law_of_the_finished(
    tiny, tmp_path, monkeypatch, no_probe
):
    ready = prepared({**tiny, **WIDTHS}, tmp_path)
    job, trials = job_of(ready), ready.survey().trials
    law = {size_key(t): 1e-6 * job.facts.sizes[size_key(t)][0] ** 0.8 for t in trials}
    known = [size_key(t) for t in trials[:2]]
    finished(monkeypatch, {key: [law[key]] * 3 for key in known})
    found = estimated(ready)
    assert found.source == "finished cells of other sizes"
    for trial in trials:
        assert found.per_trial[trial] == pytest.approx(2 * law[size_key(trial)])
        assert sum(found.per_cell[trial].values()) == pytest.approx(10 * law[size_key(trial)])


def test_one_finished_size_corrects_the_probe_of_the_others(tiny, tmp_path, monkeypatch, probe):
    ready = prepared({**tiny, **WIDTHS}, tmp_path)
    trials = ready.survey().trials
    finished(monkeypatch, {size_key(trials[0]): [6.0]})  # twice the probe; analyses 12 times
    found = estimated(ready)
    assert found.source == "steps timed here, corrected by finished cells"
    assert [found.per_trial[t] for t in trials] == [2 * 6.0] * 4
    assert [sum(found.per_cell[t].values()) for t in trials] == pytest.approx([60.0] * 4)


@settings(deadline=None)
@given(st.floats(0.01, 10), st.floats(0, 1), st.integers(2, 5))
def test_a_line_through_finished_sizes_recovers_a_power_law(scale, power, n):
    sizes = {str(i): 1000.0 * 4**i for i in range(n + 2)}
    law = {key: Cost(scale * size**power, {"a": size}) for key, size in sizes.items()}
    found = extrapolated({key: law[key] for key in list(sizes)[:n]}, sizes)
    assert list(found) == list(sizes)[n:]
    for key, each in found.items():
        assert each.kimg_seconds == pytest.approx(law[key].kimg_seconds)
        assert each.analyses == pytest.approx(law[key].analyses)


def test_the_range_holds_nineteen_of_twenty_trials_like_the_finished_ones():
    generator = np.random.default_rng(0)
    scatter = np.exp(0.1 * generator.standard_normal((2, 500)))
    factor = spread(
        [[Cost(c * x, {}) for x in row] for c, row in zip((1, 9), scatter, strict=True)]
    )
    inside = (scatter > 1 / factor) & (scatter < factor)
    assert 0.93 < inside.mean() < 0.97
    assert spread([[Cost(1.0, {})]]) == cost.UNCERTAINTY  # one trial says nothing of scatter


def best_schedule(jobs, slots):
    """The shortest makespan, by trying every assignment."""
    loads = (
        [sum(j for j, s in zip(jobs, places, strict=True) if s == slot) for slot in range(slots)]
        for places in itertools.product(range(slots), repeat=len(jobs))
    )
    return min(map(max, loads))


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_longest_first_is_within_grahams_bound_of_the_best_schedule(jobs, slots):
    found, best = list_schedule(jobs, slots), best_schedule(jobs, slots)
    assert best <= found <= (4 / 3 - 1 / (3 * slots)) * best + 1e-9


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 100), max_size=8),
    st.floats(0, 100),
    st.floats(0, 5),
    st.integers(1, 4),
)
def test_no_machine_ends_before_its_work_or_before_the_longest_trial(jobs, more, tail, cores):
    found = makespan(jobs, more, tail, cores, cores)
    work = sum(jobs) + more
    assert found >= work / cores - 1e-9 and found >= max(jobs, default=0)
    assert found <= work + tail + 1e-9
    assert makespan(jobs, more, tail, cores, cores + 1) <= found + 1e-9


SEARCH = {"optuna": {"objective": "heldout_loss", "mode": "min", "trials": 4}}


def test_a_search_is_planned_as_the_trials_that_it_may_ask_for(tiny, tmp_path, probe):
    axes = {"width": [64], "n_train": [8], "seed": list(range(40))}
    whole = prepared({**tiny, "axes": axes}, tmp_path / "whole")
    asked = prepared({**tiny, "axes": axes, "search": SEARCH}, tmp_path / "asked")
    alone = prepared({**tiny, "axes": {**axes, "seed": list(range(4))}}, tmp_path / "alone")
    costs = [estimated(ready, Machine(1)) for ready in (whole, asked, alone)]
    wall = [found.wall_seconds for found in costs]
    core = [found.core_seconds - found.oracle_seconds for found in costs]
    assert core[1] == pytest.approx(core[2]) == pytest.approx(core[0] / 10)
    assert wall[1] == pytest.approx(wall[2]) and wall[1] < wall[0] / 2
    cost.check_hours(costs[1], 1.01 * wall[2] / 3600, "tiny.yaml")


def test_what_a_search_has_begun_is_sure_and_the_rest_shares_what_is_left(tiny, tmp_path, probe):
    axes = {"width": [64], "n_train": [8], "seed": list(range(6))}
    ready = prepared({**tiny, "axes": axes, "search": SEARCH}, tmp_path)
    first = ready.survey().trials[0]
    ready.store.write_asked([{"point": dict(first.coordinates), "value": None}])
    assert chances(ready.survey()).tolist() == [1.0, *[3 / 5] * 5]
    found = estimated(ready)
    assert found.train_seconds == pytest.approx(4 * 2 * 3.0)
    assert scheduled([*found.per_trial.values()], [*found.likely.values()]) == [6.0] * 4


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.data())
def test_what_stands_for_all_lies_within_them_and_has_about_their_mean(seconds, data):
    count = data.draw(st.integers(1, len(seconds)))
    found = spread_out(seconds, count)
    assert len(found) == count and set(found) <= set(seconds) and found == sorted(found)
    apart = abs(sum(found) / count - sum(seconds) / len(seconds))
    assert apart <= (max(seconds) - min(seconds)) / (2 * count) + 1e-9


def test_more_cores_end_sooner_until_the_longest_trial_is_all(tiny, tmp_path, probe):
    ready = prepared(tiny, tmp_path)
    walls = [estimated(ready, Machine(n)).wall_seconds for n in (1, 2, 4, 64)]
    assert walls == sorted(walls, reverse=True) and walls[0] > walls[1] > walls[2]
    # 4 trainings of 6 s at a time, then the last cell's 5 s.
    assert walls[3] == pytest.approx(cost.STARTUP_SECONDS + (6 + 5) / cost.EFFICIENCY)


def test_trials_at_a_time_are_what_fits_and_what_is_asked():
    cpus = Machine(8)
    assert slots_on(cpus, Resources()) == 8
    assert slots_on(cpus, Resources(cpus_per_trial=3)) == 2
    assert slots_on(cpus, Resources(workers=2, cpus_per_trial=2)) == 4
    assert slots_on(cpus, Resources(concurrency=3)) == 3
    assert slots_on(Machine(8, 2), Resources(gpus_per_trial=0.5)) == 4


def test_a_run_that_would_take_too_long_is_refused_naming_both_times(tiny, tmp_path, probe):
    found = estimated(prepared({**tiny, "kimg": [1, 30960]}, tmp_path), Machine(2))
    assert found.wall_seconds / 3600 == pytest.approx(60, rel=0.01)
    cost.check_hours(found, 61, "tiny.yaml")
    message = (
        r"tiny.yaml: the run would take about 60 hours \(40 to 90\) on 2 cores, --max-hours allows"
        r" 59; drop values from the axes, shorten kimg, drop analyses, or use more cores"
    )
    with pytest.raises(SpecError, match=message):
        cost.check_hours(found, 59, "tiny.yaml")


def test_a_disk_that_is_too_small_is_said_and_one_far_too_small_refused(
    tiny, tmp_path, monkeypatch, probe
):
    ready = prepared(tiny, tmp_path)
    job, found = job_of(ready), estimated(ready)
    for share, warned, refused in ((2, 0, False), (0.7, 1, False), (0.3, 1, True)):
        free = int(share * found.disk_bytes)
        monkeypatch.setattr(type(job.store.files), "free", lambda self, free=free: free)
        assert sum("are free" in said for said in cost.warnings(job, found)) == warned
        if refused:
            with pytest.raises(SpecError, match=r"tiny.yaml: about .* MB would be written to"):
                cost.check_disk(job, found, "tiny.yaml")
        else:
            cost.check_disk(job, found, "tiny.yaml")


def test_what_no_process_could_hold_is_refused_and_what_all_together_could_not_is_said(
    tiny, tmp_path, monkeypatch, probe
):
    ready = prepared(tiny, tmp_path)
    job, found = job_of(ready), estimated(ready)
    cost.check_memory(job, "tiny.yaml")
    assert not any("of memory" in said for said in cost.warnings(job, found))
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(1.5 * found.memory_bytes / 4096)}
    monkeypatch.setattr("engine.job.os.sysconf", pages.get)
    assert any("lower resources.concurrency" in said for said in cost.warnings(job, found))
    cost.check_memory(job, "tiny.yaml")
    few = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr("engine.job.os.sysconf", few.get)
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
    small, *larger = sorted(job.facts.sizes, key=lambda key: job.facts.sizes[key][0])
    monkeypatch.setattr(cost, "PROBE_WORK", 64 * job.facts.sizes[small][0])
    monkeypatch.setattr(cost, "_probe", lambda job, trial: timed.append(trial) or Cost(3.0, {}))
    costs = cost._probed(job, {cost.size_key(trial): trial for trial in ready.survey().trials})
    assert [trial["width"] for trial in timed] == [64]
    for key in larger:
        factor = job.facts.sizes[key][0] / job.facts.sizes[small][0]
        assert costs[key].kimg_seconds == pytest.approx(3.0 * factor)


def test_a_named_gpu_is_planned_by_flops_and_nothing_is_timed(tiny, tmp_path, no_probe):
    mapping = {**tiny, "resources": {"gpus_per_trial": 1}, "analyses": ["generalization"]}
    ready = prepared(mapping, tmp_path)
    found = estimated(ready, Machine(8, 2, "a100"))
    flops = [ready.facts.sizes[size_key(trial)][1] for trial in ready.survey().trials]
    images = 1000 * tiny["kimg"][-1]
    assert found.train_seconds == pytest.approx(
        3 * sum(flops) * images / sustained("a100", half=False)
    )
    assert found.slots == 2 and found.as_json()["gpu_hours"] > 0
    half = {**mapping, "training": {**tiny["training"], "autocast": "bfloat16"}}
    faster = estimated(prepared(half, tmp_path), Machine(8, 2, "a100"))
    assert faster.train_seconds == pytest.approx(found.train_seconds / 4)
    pairs = {**mapping, "resources": {"gpus_per_trial": 1, "workers": 2}}
    assert estimated(prepared(pairs, tmp_path), Machine(8, 2, "a100")).busy == 2


def test_a_trial_on_a_share_of_a_gpu_takes_as_much_longer(tiny, tmp_path, no_probe):
    walls = []
    for share in (1, 0.5):
        mapping = {**tiny, "resources": {"gpus_per_trial": share}, "kimg": [10**6, 2 * 10**6]}
        walls.append(estimated(prepared(mapping, tmp_path), Machine(8, 1, "v100")).wall_seconds)
    assert walls[0] == pytest.approx(walls[1], rel=0.01)  # the GPU is the same
