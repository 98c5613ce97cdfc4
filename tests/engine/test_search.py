"""The boundary search: on surfaces that are known, over kills, and in what it leaves undone."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from analyses import onset
from engine.boundary import WAIT, Boundary, BoundaryPlan, coarse, replay
from engine.grid import Cell, trials
from engine.pieces import Piece, Variable
from engine.spec import SpecError, parse
from engine.work import SKIPPED
from tests.engine.helpers import TINY, prepared

HALF_OCTAVES = [4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256]


def mapping(n_train, width, seed=(0, 1), target=0.3, budget=1000, **more):
    """A sweep that looks for a boundary."""
    axes = {"width": list(width), "n_train": list(n_train), "seed": list(seed)}
    boundary = {"budget": budget, "target_width": target, **more}
    return {
        **TINY,
        "axes": axes,
        "analyses": ["memorization"],
        "sampler": {"samples": 256, "steps": 4},
        "search": {"boundary": boundary},
    }


def surface(sweep, seed=0, blur=0.25, correlation=0.01):
    """log2 N* per width, and a measured share of each trial, drawn around the logistic curve."""
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-0.5, 0.5)
    threshold = {
        w: 4.5 + offset + 1.5 * np.log2(w / 64) + rng.normal(0, 0.1) for w in sweep.axes["width"]
    }
    shares = {}
    for trial in trials(sweep):
        away = threshold[trial["width"]] - np.log2(trial["n_train"])
        f = np.clip(expit(away / blur), 1e-6, 1 - 1e-6)
        p = rng.beta(f * (1 / correlation - 1), (1 - f) * (1 / correlation - 1))
        shares[trial] = [rng.binomial(256, p) / 256]
    return threshold, shares


def held(search, threshold):
    """How many intervals hold the threshold."""
    low, high = search.fit().ends
    truth = np.array(list(threshold.values()))
    return int(((low[0] <= truth) & (truth <= high[0])).sum())


def bracket(search):
    """n_train around the level, by the rule of the phase group, on the mean over replicates."""
    share = search.share[0, 0]
    known = ~np.isnan(share)
    mean = np.where(known, share, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)
    return np.array(onset.last_above(mean, 2**search.model.x, 0.5)[:2])


def test_half_of_the_grid_locates_the_boundary_as_all_of_it_does():
    sweep = parse(mapping(HALF_OCTAVES, [64, 128]), "x")
    threshold, shares = surface(sweep)
    full = Boundary(sweep, 2)
    for trial, share in shares.items():
        full.tell(trial, share)
    # To the last per cent only every trial that has anything to say would do.
    target = 1.1 * float(full.fit().widths.max())
    found = replay(parse(mapping(HALF_OCTAVES, [64, 128], target=target), "x"), shares)
    assert found.fit().widths.max() <= target < 0.4
    assert len(found.asked) <= len(shares) / 2
    assert held(found, threshold) == len(threshold)
    np.testing.assert_allclose(bracket(found), bracket(full))


def test_on_digits_half_of_the_trials_locate_the_boundary_as_all_of_them_did():
    """Counts of 512 samples, recorded from the whole grid of sweeps/boundary_digits.yaml."""
    path = Path(__file__).parent / "boundary_digits.csv"
    rows = [
        {k: int(v) for k, v in row.items()}
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    axes = {a: sorted({row[a] for row in rows}) for a in ("width", "n_train", "seed")}
    counts = {tuple(row[a] for a in axes): row["memorized"] for row in rows}

    def asking(target):
        raw = mapping(axes["n_train"], axes["width"], axes["seed"], target)
        return parse({**raw, "sampler": {"samples": 512, "steps": 18}}, "x")

    sweep = asking(1.0)
    shares = {t: [counts[tuple(t[a] for a in axes)] / 512] for t in trials(sweep)}
    full = Boundary(sweep, 2)
    for trial, share in shares.items():
        full.tell(trial, share)
    known = full.fit()
    found = replay(asking(1.1 * float(known.widths.max())), shares)
    assert len(shares) == 100 and len(found.asked) <= 50
    assert found.fit().widths.max() <= known.widths.max()
    one, other = known.ends, found.fit().ends
    assert (np.maximum(one[0], other[0]) < np.minimum(one[1], other[1])).all()  # they overlap


def test_every_kimg_and_further_axis_has_a_boundary_of_its_own():
    raw = mapping(HALF_OCTAVES[:9], [64, 96], [0], target=0.6, kimg="every")
    raw |= {"kimg": [1, 2], "training": {"lr": 4e-3, "warmup_kimg": 1}}
    raw["axes"]["training.batch"] = [64, 128]
    sweep = parse(raw, "x")

    def truth(trial, kimg):
        return (
            3 + np.log2(kimg) / 2 + np.log2(trial["width"] / 64) + (trial["training.batch"] == 128)
        )

    shares = {
        t: [float(expit((truth(t, k) - np.log2(t["n_train"])) / 0.2)) for k in (1, 2)]
        for t in trials(sweep)
    }
    found = replay(sweep, shares)
    low, high = (ends.reshape(2, 2, 2) for ends in found.fit().ends)  # batch, kimg, width
    assert (high - low).max() <= 0.6 and len(found.asked) < len(shares)
    for trial in found.asked:
        group, width = [64, 128].index(trial["training.batch"]), [64, 96].index(trial["width"])
        for k, kimg in enumerate((1, 2)):
            at = truth(trial, kimg)
            assert low[group, k, width] <= at <= high[group, k, width]


def test_intervals_from_chosen_trials_hold_the_boundary_as_often_as_they_say():
    sweep = parse(mapping(HALF_OCTAVES[2:9], [64, 96], budget=12), "x")
    hits = 0
    for seed in range(8):
        threshold, shares = surface(sweep, seed, blur=0.4)
        found = replay(sweep, shares)
        assert len(found.asked) <= 12
        hits += held(found, threshold)
    assert binom.cdf(hits, 16, 0.95) > 0.01, f"{hits} of 16"


def test_the_search_goes_where_the_curve_falls():
    sweep = parse(mapping(HALF_OCTAVES, [64], seed=[0]), "x")
    threshold, shares = surface(sweep, blur=0.1)
    found = replay(sweep, shares)
    chosen = [t for t in found.asked if t not in coarse(sweep)]
    away = [abs(np.log2(t["n_train"]) - threshold[64]) for t in chosen]
    assert chosen and np.median(away) < 1.0
    assert len(found.asked) < len(HALF_OCTAVES) / 2


def test_the_coarse_grid_takes_few_numbers_all_texts_and_one_replicate():
    raw = mapping([8, 16, 32, 64, 128, 256], [64, 80, 96, 112, 128])
    raw["axes"] |= {"training.noise": ["lognormal", "uniform"], "split": ["a", "b"]}
    chosen = coarse(parse(raw, "x"))
    points = {axis: {t[axis] for t in chosen} for axis, _ in chosen[0].coordinates}
    assert points == {
        "width": {64, 96, 128},
        "n_train": {16, 64, 256},
        "seed": {0},
        "draw": {0},
        "split": {"a"},
        "training.noise": {"lognormal", "uniform"},
    }
    assert len(chosen) == 18


def test_trials_under_way_are_not_asked_for_twice_and_bound_what_is_asked():
    sweep = parse(mapping(HALF_OCTAVES, [64], target=0.05), "x")
    _, shares = surface(sweep)
    search, asked = Boundary(sweep, 3), []
    while (trial := search.ask()) is not WAIT:
        asked.append(trial)
    assert asked == coarse(sweep)
    for trial in asked:
        search.tell(trial, shares[trial])
    more = [search.ask() for _ in range(4)]
    assert more[3] is WAIT and len({*asked, *more[:3]}) == 6
    assert len({t["n_train"] for t in more[:3]}) > 1  # what is expected of the first counts


def store_share(ready, trial, share):
    """What an analysis stores of a trial's last cell, and of the one before."""
    piece = Piece(
        {"memorized_fraction": Variable((), np.asarray(share), {})},
        {},
        ready.prints["pieces"]["memorization"],
    )
    for kimg in ready.sweep.kimg:
        ready.store.write_piece(Cell(trial, kimg), "memorization", piece)


def plan_of(ready):
    return BoundaryPlan(ready.sweep, ready.store, ready.prints, ready.survey())


def work(ready, shares, at_most=1000):
    """Start and store trials until the plan is over; returns those it handed out."""
    plan, handed = plan_of(ready), []
    while len(handed) < at_most and (chosen := plan.next(str(len(handed)))) is not None:
        trial, kimg = chosen
        assert kimg == list(ready.sweep.kimg)
        handed.append(trial)
        if len(handed) < at_most:  # a kill comes before the last one is stored
            store_share(ready, trial, shares[trial][0])
            plan.done(str(len(handed) - 1), {"done": True}, False)
    return handed


@pytest.fixture
def small():
    return mapping(HALF_OCTAVES[2:9], [64], seed=[0], target=0.2, budget=6)


def test_a_killed_search_goes_on_as_if_it_had_not_been(small, tmp_path):
    whole, cut = (prepared(small, tmp_path / name) for name in ("whole", "cut"))
    _, shares = surface(whole.sweep)
    expected = work(whole, shares)
    first = work(cut, shares, at_most=4)
    second = work(cut, shares)
    assert second[0] == first[-1]
    assert first[:-1] + second == expected and len(set(expected)) == len(expected)


def test_a_finished_search_skips_the_rest_and_a_larger_budget_goes_on(small, tmp_path):
    ready = prepared(small, tmp_path)
    _, shares = surface(ready.sweep)
    assert ready.survey().most() == 6
    assert len(work(ready, shares)) <= 6
    after = ready.survey()
    begun = int(after.begun.sum())
    assert after.is_finished or after.to_reference()
    assert (after.pieces[~after.begun] == SKIPPED).all()
    assert after.counts()["skipped"] == 2 * (7 - begun) > 0
    assert all(entry["value"] is not None for entry in ready.store.asked()[:-1])
    narrower = {"boundary": {"budget": 7, "target_width": 1e-3}}
    wider = prepared({**small, "search": narrower}, tmp_path)
    assert wider.survey().most() == 7 - begun
    assert len(work(wider, shares)) == 7 - begun


def test_what_failed_or_was_lost_keeps_no_one_waiting(small, tmp_path):
    ready = prepared(small, tmp_path)
    plan = plan_of(ready)
    coarse_points = [plan.next(str(i)) for i in range(3)]
    assert plan.next("4") is WAIT
    plan.done("0", {"failed": True}, False)
    plan.done("1", None, True)
    assert plan.next("4") is WAIT
    plan.done("2", {"done": True}, False)
    assert plan.next("4") is WAIT  # its piece may still come
    plan.give_up()
    trial, _ = plan.next("4")
    assert trial not in [t for t, _ in coarse_points]


def test_stored_trials_that_no_search_asked_for_count_and_are_used(small, tmp_path):
    ready = prepared(small, tmp_path)
    _, shares = surface(ready.sweep)
    before = trials(ready.sweep)[:2]
    for trial in before:
        store_share(ready, trial, shares[trial][0])
    handed = work(ready, shares)
    assert not set(handed) & set(before) and len(handed) + 2 <= 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "memorized_share"}, r"unknown share 'memorized_share' \(did you mean"),
        ({"metric": "memorized_label_fraction"}, r"measured by novelty; wanted 'novelty'"),
        ({"budget": 2}, r"budget: 2 does not pay for the coarse grid; wanted at least 3"),
        ({"level": 1.0}, r"search.boundary.level: .*less than 1"),
        ({"target_width": 0}, r"search.boundary.target_width: .*greater than 0"),
        ({"budgett": 2}, r"unknown key 'search.boundary.budgett' \(did you mean 'budget'"),
    ],
)
def test_bad_settings_are_named_before_anything_starts(small, tmp_path, change, message):
    small["search"]["boundary"] |= change
    with pytest.raises(SpecError, match=message):
        prepared(small, tmp_path)


def test_a_search_is_one_of_two_and_needs_an_axis(small):
    two = {"optuna": {"trials": 3}, **small["search"]}
    with pytest.raises(SpecError, match=r"search: wanted one of optuna and boundary"):
        parse({**small, "search": two}, "x.yaml")
    axes = {**small["axes"], "n_train": [8, 16]}
    with pytest.raises(SpecError, match=r"at least 3 values on axes.n_train.*got \[8, 16\]"):
        parse({**small, "axes": axes}, "x.yaml")
