"""The crossing of a level in n_train: against brute force, and against the truth."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import betabinom, binom

from analyses.level_set import BLURS, CORRELATIONS, SPREAD, STEP, WALKS, LevelSet

N, WIDTHS, SAMPLES = [16, 32, 64, 128], [64, 128], 40


def shares(model, measured, widths=1, replicates=1):
    """Shares of one group by (width, n_train, replicate); NaN where not measured."""
    share = np.full((1, widths, len(model.x), replicates), np.nan)
    for place, value in measured.items():
        share[(0, *place)] = value
    return share


def likelihood(model, n, k, level):
    """P(k | threshold, blur, correlation) from scipy's beta-binomial."""
    t, b, r = np.ix_(model.t, BLURS, CORRELATIONS)
    f = expit(np.clip(logit(level) + (t - model.x[n]) / b, -12, 12))
    return betabinom.pmf(k, SAMPLES, f * (1 / r - 1), (1 - f) * (1 / r - 1))


def blur_prior():
    prior = np.exp(-0.5 * (np.log(BLURS / BLURS[::2][:, None]) / SPREAD) ** 2)
    return prior / prior.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("level", [0.5, 0.1])
def test_the_posterior_of_one_slice_is_bayes_rule_with_scipys_beta_binomial(level):
    model = LevelSet(N, WIDTHS[:1], level, SAMPLES)
    fit = model.fit(shares(model, {(0, 1, 0): 30 / 40, (0, 2, 0): 7 / 40}))
    own = likelihood(model, 1, 30, level) * likelihood(model, 2, 7, level)
    expected = np.einsum("mb,tbr->tbr", blur_prior(), own)
    np.testing.assert_allclose(fit.table[0, 0], expected / expected.sum(), rtol=0.02, atol=1e-7)


def test_widths_are_pooled_as_by_the_sum_over_every_pair_of_thresholds():
    model = LevelSet(N, WIDTHS, 0.5, SAMPLES)
    fit = model.fit(shares(model, {(0, 1, 0): 25 / 40, (1, 3, 0): 22 / 40}, widths=2))
    own = [likelihood(model, 1, 25, 0.5), likelihood(model, 3, 22, 0.5)]
    first, second = (np.einsum("mb,tbr->mrt", blur_prior(), each) for each in own)
    marginals = np.zeros((2, len(model.t)))
    for tau in WALKS:
        kernel = np.exp(-0.5 * ((model.t - model.t[:, None]) / tau) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        joint = np.einsum("mri,mrj,ij->ij", first, second, kernel)
        marginals += joint.sum(axis=1), joint.sum(axis=0)
    marginals /= marginals.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fit.table[0].sum(axis=(-2, -1)), marginals, rtol=0.03, atol=1e-6)


def test_a_width_between_two_measured_ones_is_known_better_than_one_beyond():
    model = LevelSet(N, [64, 128, 256, 512], 0.5, 512)
    seen = {(w, n, 0): f for w in (0, 2) for n, f in ((1, 0.9), (2, 0.2))}
    between, beyond = model.fit(shares(model, seen, widths=4)).widths[0, [1, 3]]
    assert between < beyond < np.ptp(model.x) + STEP


def test_a_threshold_beyond_the_axis_is_known_to_be_there():
    model = LevelSet(N, [64], 0.5, 512)
    for share, end in ((0.0, model.x[0]), (1.0, model.x[-1])):
        fit = model.fit(shares(model, {(0, n, 0): share for n in range(4)}))
        low, high = fit.ends
        assert low == end or high == end
        assert fit.widths.item() < 0.5


def drawn(rng, model, thresholds, blurs, correlation, replicates):
    """Measured shares of every trial of a grid, by the model or, as `blurs` say, nearly so."""
    f = expit((thresholds[:, None] - model.x) / blurs[:, None])[..., None]
    f = np.repeat(np.clip(f, 1e-6, 1 - 1e-6), replicates, axis=-1)
    p = rng.beta(f * (1 / correlation - 1), (1 - f) * (1 / correlation - 1))
    return rng.binomial(model.samples, p)[None] / model.samples


def test_intervals_hold_the_threshold_as_often_as_they_say():
    model, rng = LevelSet([16, 23, 32, 45, 64, 91, 128], [64, 96, 128, 192], 0.5, 256), None
    held = trials = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        steps = rng.normal(0.5, 0.4, 4)
        thresholds = np.clip(4.5 + steps.cumsum(), model.x[0] + 0.2, model.x[-1] - 0.2)
        blurs = np.exp(rng.normal(np.log(rng.uniform(0.2, 0.6)), 0.3, 4))
        share = drawn(rng, model, thresholds, blurs, rng.choice([0.005, 0.05]), 2)
        share[rng.uniform(size=share.shape) < 0.5] = np.nan
        low, high = model.fit(share).ends
        held += int(((low[0] <= thresholds) & (thresholds <= high[0])).sum())
        trials += 4
    assert binom.cdf(held, trials, 0.95) > 0.01, f"{held} of {trials}"
    assert held < trials  # or they would be too wide to be 95 %


def test_the_gain_is_what_trials_of_the_posterior_bring_on_average():
    model, rng = LevelSet([16, 23, 32, 45, 64, 91, 128], [64], 0.5, 256), np.random.default_rng(0)
    share = shares(model, {(0, 1, 0): 0.97, (0, 5, 0): 0.05}, replicates=2)
    fit = model.fit(share)
    gain, p = fit.gain(0, 0, 0.1), fit.table[0, 0].ravel()
    brought = {}
    for n in (int(gain.argmax()), int(gain.argmin())):
        widths = []
        for place in rng.choice(len(p), 60, p=p):
            t, b, r = np.unravel_index(place, fit.table.shape[2:])
            f, rho = np.clip(model.share[n, t, b], 1e-6, 1 - 1e-6), CORRELATIONS[r]
            new = share.copy()
            new[0, 0, n, 1] = (
                rng.binomial(256, rng.beta(f * (1 / rho - 1), (1 - f) * (1 / rho - 1))) / 256
            )
            widths.append(model.fit(new).widths.item())
        brought[n] = fit.widths.item() - np.mean(widths)
    best, worst = brought.values()
    assert best > worst
    assert best == pytest.approx(gain.max(), rel=0.3)


def test_nothing_is_gained_below_the_target():
    model = LevelSet(N, [64], 0.5, 512)
    fit = model.fit(shares(model, {(0, n, 0): f for n, f in enumerate((1.0, 0.8, 0.1, 0.0))}))
    assert np.allclose(fit.gain(0, 0, 4.0), 0)
