"""Nominal 95 % intervals cover 90 to 99 % of 400 repeats whose true values are known."""

import numpy as np
import pytest
from scipy.special import expit

from analyses.exponents import exponent
from analyses.onset_laws import Replicates, intervals
from analyses.statistics import (
    paired_difference,
    paired_r2_difference,
    wilson,
)
from analyses.survival import Groups, survival_fit
from analyses.transition import transition
from analyses.variance import components, crossed_mean

REPEATS = 400
N = np.array([16.0, 32, 64, 128, 256])
SNAPSHOTS = np.concatenate(
    [[0.0, 16, 32, 48, 64, 96], np.geomspace(128, 2048, 9).round(), [np.inf]]
)
CROSSED = [(3, 2), (5, 5)]


def assert_covers(low, high, truth):
    """NaN ends count as not covering: an interval that is never given is no interval."""
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.90 <= covered <= 0.99, covered


def crossed(rng, seeds, draws, by_seed, by_draw, rest):
    """Seed ids, draw ids and a + b + e of every (seed, draw), "repeat r"."""
    seed, draw = np.indices((seeds, draws)).reshape(2, -1)
    a = by_seed * rng.standard_normal((REPEATS, seeds))[:, seed]
    b = by_draw * rng.standard_normal((REPEATS, draws))[:, draw]
    return seed, draw, a + b + rest * rng.standard_normal((REPEATS, seed.size))


def between(tau):
    """The snapshots around each onset."""
    at = np.searchsorted(SNAPSHOTS, tau)
    return SNAPSHOTS[at - 1], SNAPSHOTS[at]


@pytest.mark.parametrize(("share", "samples"), [(0.05, 512), (0.5, 50), (0.02, 512)])
def test_wilson_covers_a_share(share, samples):
    hits = np.random.default_rng(1).binomial(samples, share, REPEATS)
    assert_covers(*wilson(hits, samples), share)


@pytest.mark.parametrize("count", [3, 4, 10])
def test_student_covers_a_mean(count):
    values = 2 + np.random.default_rng(2).standard_normal((REPEATS, count))
    assert_covers(*crossed_mean(values[:, :, None])[1:], 2)


@pytest.mark.parametrize("images", [64, 256])
def test_the_paired_bootstrap_covers_a_difference(images):
    rng = np.random.default_rng(3)
    shared = rng.gamma(2.0, 0.5, (REPEATS, images))
    first = shared + 0.3 * rng.gamma(2.0, 0.5, shared.shape)
    assert_covers(*paired_difference(first, shared)[1:], 0.3)


@pytest.mark.parametrize("images", [64, 256])
def test_the_paired_bootstrap_covers_a_difference_of_r2(images):
    rng = np.random.default_rng(4)
    variance, size, other = rng.gamma(4.0, 0.25, (3, REPEATS, images))
    first, second = (0.1 * size, variance), (0.2 * size + 0.1 * other, variance)
    assert_covers(*paired_r2_difference(first, second)[1:], 0.2)


@pytest.mark.parametrize(("seeds", "draws"), CROSSED)
@pytest.mark.parametrize("scales", [(1, 1, 1), (1, 0.3, 0.5), (0.3, 1, 0.5), (0.3, 0.3, 1)])
def test_the_crossed_interval_covers_the_mean_of_all_seeds_and_draws(seeds, draws, scales):
    y = crossed(np.random.default_rng(5), seeds, draws, *scales)[2]
    table = 7 + y.reshape(REPEATS, seeds, draws)
    assert_covers(*crossed_mean(table)[1:], 7)


@pytest.mark.parametrize("scales", [(1, 1, 1), (1, 0.3, 0.5)])
def test_the_crossed_interval_covers_the_mean_where_values_are_missing(scales):
    table = crossed(np.random.default_rng(6), 4, 3, *scales)[2].reshape(REPEATS, 4, 3)
    table[:, 0, 1:] = np.nan
    table[:, 3, 0] = np.nan
    assert_covers(*crossed_mean(table)[1:], 0)


@pytest.mark.parametrize(("seeds", "draws"), CROSSED)
def test_the_intervals_of_the_variance_components_cover_them(seeds, draws):
    y = crossed(np.random.default_rng(7), seeds, draws, 1, 0.5, 0.7)[2]
    found = components(y.reshape(REPEATS, seeds, draws))
    for source, truth in (("seed", 1), ("draw", 0.25), ("residual", 0.49)):
        ends = (getattr(found, f"{source}_{end}") for end in ("low", "high"))
        assert_covers(*ends, truth)


@pytest.mark.parametrize("scatter", [0.3, 0.6])
def test_the_survival_fit_covers_its_exponents(scatter):
    rng = np.random.default_rng(8)
    z = np.log([(n, w) for n in N for w in (128.0, 256.0) for _ in range(3)])
    mean = 5.2 + 0.9 * (z[:, 0] - np.log(16)) - 0.5 * (z[:, 1] - np.log(128))
    tau = np.exp(mean + scatter * rng.standard_normal((REPEATS, len(z))))
    fit = survival_fit(z, *between(tau))
    assert np.isinf(between(tau)[1]).mean() > 0.02
    assert_covers(fit.low[:, 1], fit.high[:, 1], 0.9)
    assert_covers(fit.low[:, 2], fit.high[:, 2], -0.5)


def onsets(rng, seeds, draws, spreads, rest, curve):
    """Observations of every (seed, draw, n): n, seed, draw, low, high, replicates first."""
    seed, draw, level = crossed(rng, seeds, draws, *spreads, 0)
    slope = crossed(rng, seeds, draws, *spreads, 0)[2] / 2
    log_tau = np.log(curve(N)) + level[..., None] + slope[..., None] * np.log(N / 64)
    tau = np.exp(log_tau + rest * rng.standard_normal(log_tau.shape))
    low, high = (a.reshape(REPEATS, -1) for a in between(tau))
    return np.tile(N, seed.size), np.repeat(seed, N.size), np.repeat(draw, N.size), low, high


@pytest.mark.parametrize(("seeds", "draws"), CROSSED)
def test_the_survival_fit_with_groups_covers_an_exponent(seeds, draws):
    rng = np.random.default_rng(9)
    n, seed, draw, low, high = onsets(rng, seeds, draws, (0.2, 0.2), 0.2, lambda n: 4 * n**0.9)
    fit = survival_fit(np.log(n)[:, None], low, high, Groups(seed, draw))
    assert fit.clustered.all()
    assert_covers(fit.low[:, 1], fit.high[:, 1], 0.9)


@pytest.mark.parametrize(("seeds", "draws"), [*CROSSED, (4, 1)])
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_the_exponent_covers_the_true_one(seeds, draws, spread):
    rng = np.random.default_rng(10)
    # One draw alone says nothing about draws: then only seeds may differ.
    spreads = spread, spread if draws > 1 else 0.0
    n, seed, draw, low, high = onsets(rng, seeds, draws, spreads, 0.2, lambda n: 4 * n**0.9)
    found = exponent(n, low, high, seed, draw)
    assert not found["is_range"].any()
    assert_covers(found["low"], found["high"], 0.9)


@pytest.mark.parametrize(("seeds", "draws"), [(3, 2), (4, 3)])
def test_the_offset_law_covers_offset_and_rate(seeds, draws):
    rng = np.random.default_rng(11)
    shape = (REPEATS, seeds * draws, N.size)
    seed, draw, level = crossed(rng, seeds, draws, 0.05, 0.05, 0)
    tau = (46 + 2.1 * N) * np.exp(level[..., None] + 0.1 * rng.standard_normal(shape))
    low, high = between(tau)
    found = intervals(N, Replicates(low, high, np.full(shape, np.nan), seed, draw))
    assert_covers(*found["tau_mem_offset"][1:], 46)
    assert_covers(*found["tau_mem_rate"][1:], 2.1)


def counts(rng, n50, width, n, samples=512):
    """Memorized counts of logistic transitions at `n50` "repeat r"."""
    share = expit(-(np.log(n) - np.log(n50)[..., None]) / width)
    return rng.binomial(samples, share).astype(float)


@pytest.mark.parametrize("width", [0.4, 1.0])
def test_the_profile_interval_covers_the_transition_of_one_replicate(width):
    rng, n = np.random.default_rng(12), 2.0 ** np.arange(3, 11)
    found = transition(n, counts(rng, np.full((REPEATS, 1), 90.0), width, n), 512)
    assert_covers(found.n50_low, found.n50_high, 90)
    assert_covers(found.width_low, found.width_high, width)


@pytest.mark.parametrize(("seeds", "draws"), CROSSED)
@pytest.mark.parametrize("width", [0.2, 0.5])
def test_the_crossed_interval_covers_the_transition(seeds, draws, width):
    rng, n = np.random.default_rng(13), 2.0 ** np.arange(3, 11)
    seed, draw, level = crossed(rng, seeds, draws, 0.15, 0.15, 0.1)
    found = transition(n, counts(rng, 90 * np.exp(level), width, n), 512, seed, draw)
    assert_covers(found.n50_low, found.n50_high, 90)
