import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2

from analyses.logistic import firth
from analyses.transition import effective_memorization, transition

N = 2.0 ** np.arange(3, 11)
X = np.log(N)


def expected(n50, width, samples=512):
    """Counts of a logistic transition, not rounded."""
    return samples * expit(-(X - np.log(n50)) / width)


def test_counts_on_a_logistic_curve_give_it_back():
    found = transition(N, expected(90.0, 0.5)[None], 512)
    assert found.success and found.monotone
    assert found.n50 == pytest.approx(90, rel=1e-3)
    assert found.width == pytest.approx(0.5, rel=5e-3)
    assert found.log_ratio == pytest.approx(2 * np.log(9) * 0.5, rel=5e-3)
    assert np.log(found.n10 / found.n90) == pytest.approx(found.log_ratio)
    assert expit(-np.log(found.n10 / found.n50) / found.width) == pytest.approx(0.1)
    assert found.n50_low < 90 < found.n50_high
    assert found.width_low < 0.5 < found.width_high


def penalised_loss(p, k, s):
    eta = p[0] + p[1] * (X - X.mean())
    design = np.stack([np.ones_like(X), X - X.mean()], 1)
    weight = s * expit(eta) * expit(-eta)
    information = (design * weight[:, None]).T @ design
    return (s * np.logaddexp(0, eta) - k * eta).sum() - 0.5 * np.linalg.slogdet(information)[1]


@pytest.mark.parametrize("k", [[64, 60, 50, 20, 4, 1, 0, 0], [64, 64, 64, 64, 0, 0, 0, 0]])
def test_the_fit_is_the_greatest_penalised_likelihood(k):
    k, s = np.array(k, float), np.full(8, 64.0)
    best = minimize(
        penalised_loss,
        [0, -2],
        (k, s),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 5000},
    )
    beta, added = firth(X, k[None], s[None])
    assert beta[0] == pytest.approx(best.x, rel=1e-3, abs=1e-3)
    assert added.sum() == pytest.approx(2)


def test_the_profile_interval_is_where_the_deviance_rises_by_its_quantile():
    k = np.rint(expected(90, 0.5))
    found = transition(N, k[None], 512)

    def deviance(n50):
        def loss(width):
            eta = -(X - np.log(n50)) / width[0]
            return 2 * (512 * np.logaddexp(0, eta) - k * eta).sum()

        return minimize(loss, [0.5], method="Nelder-Mead", options={"xatol": 1e-9}).fun

    assert found.dispersion < 0.5  # rounded counts: the binomial quantile applies
    for end in (found.n50_low, found.n50_high):
        assert deviance(end) - deviance(found.n50) == pytest.approx(chi2.ppf(0.95, 1), rel=1e-3)


def test_a_curve_that_is_not_logistic_has_a_longer_interval():
    bent = expected(90, 0.5) * np.array([1, 0.9, 1, 0.8, 1.1, 1.5, 1, 1])
    found, straight = (transition(N, np.rint(k)[None], 512) for k in (bent, expected(90, 0.5)))
    assert found.dispersion > 3
    lengths = [np.log(f.n50_high / f.n50_low) for f in (found, straight)]
    assert lengths[0] > 2 * lengths[1]


def test_a_step_between_two_sizes_has_a_finite_width_that_is_only_bounded():
    found = transition(N, np.where(N < 100, 512.0, 0.0)[None], 512)
    assert found.success
    assert 64 < found.n50 < 128
    assert 0 < found.width < 0.2
    assert found.inside == 0
    assert found.width_low == 0
    assert 64 < found.n50_low < 68 < 120 < found.n50_high < 128
    assert np.isfinite(found.width_high)


def test_one_share_between_0_and_1_places_n50_and_only_bounds_the_width():
    k = np.array([512.0, 512, 512, 512, 100, 0, 0, 0])
    found = transition(N, k[None], 512)
    assert found.inside == 1
    assert found.width_low == 0
    assert np.isfinite(found.width_high)
    assert 64 < found.n50_low < found.n50 < found.n50_high < 128


def test_replicates_that_agree_on_a_step_leave_n50_open_between_two_sizes():
    seed, draw = np.indices((3, 2)).reshape(2, -1)
    k = np.tile(np.where(N < 100, 512.0, 0.0), (6, 1))
    found = transition(N, k, 512, seed, draw)
    assert 64 < found.n50_low < 68 < 120 < found.n50_high < 128


@pytest.mark.parametrize(
    ("share", "ends"), [(0.0, (0, 8)), (1.0, (1024, np.inf)), (0.3, (0, 8)), (0.7, (1024, np.inf))]
)
def test_a_curve_on_one_side_of_half_is_censored(share, ends):
    found = transition(N, np.full((1, 8), 512 * share), 512)
    assert not found.success
    assert (found.n50_low, found.n50_high) == ends
    assert np.isnan([found.n50, found.width, found.n10, found.log_ratio]).all()


def test_a_rising_curve_is_not_a_transition_and_not_monotone():
    found = transition(N, expected(90, 0.5)[None, ::-1], 512)
    assert not found.success
    assert not found.monotone
    assert np.isnan(found.width)
    assert (found.n50_low, found.n50_high) == (0, np.inf)


def test_a_bump_is_noticed_and_breaks_nothing_but_noise_is_not_a_bump():
    k = np.rint(expected(90, 0.5))
    bump, noise = k.copy(), k.copy()
    bump[6] += 150
    noise[7] += 1
    assert not transition(N, bump[None], 512).monotone
    assert transition(N, bump[None], 512).success
    assert transition(N, noise[None], 512).monotone


def test_missing_counts_and_missing_replicates_change_nothing():
    k = np.rint(expected(90, 0.5))
    gap = np.where(np.arange(8) == 1, np.nan, k)
    kept = ~np.isnan(gap)
    with_gap, without = transition(N, gap[None], 512), transition(N[kept], k[kept][None], 512)
    assert with_gap.n50 == pytest.approx(without.n50)
    assert with_gap.n50_low == pytest.approx(without.n50_low, rel=1e-6)
    padded = transition(N, np.stack([k, np.full(8, np.nan)]), 512)
    assert padded.n50_high == pytest.approx(transition(N, k[None], 512).n50_high)


def test_nothing_measured_gives_nothing():
    found = transition(N, np.full((2, 3, 8), np.nan), 512)
    assert found.n50.shape == (2,)
    assert not found.success.any()
    assert np.isnan([found.n50, found.n50_low, found.n50_high, found.width]).all()


def test_cells_are_fitted_apart():
    rng = np.random.default_rng(0)
    share = expected(np.array([60.0, 90, 140])[:, None, None], 0.5)[:, None]
    k = rng.binomial(512, np.broadcast_to(share / 512, (3, 2, 4, 8))).astype(float)
    found = transition(N, k, 512)
    assert found.n50.shape == (3, 2)
    alone = transition(N, k[1, 0], 512)
    assert found.n50[1, 0] == pytest.approx(alone.n50)
    assert found.width_high[1, 0] == pytest.approx(alone.width_high)


def test_draws_that_differ_make_the_interval_long_however_many_seeds_there_are():
    seed, draw = np.indices((8, 2)).reshape(2, -1)
    k = np.rint(np.stack([expected((70, 120)[d], 0.5) for d in draw]))
    crossed = transition(N, k, 512, seed, draw)
    pooled = transition(N, k, 512)
    assert crossed.n50 == pytest.approx(pooled.n50)
    lengths = [np.log(f.n50_high / f.n50_low) for f in (crossed, pooled)]
    assert lengths[0] > 5 * lengths[1]
    assert crossed.n50_low < 70 < 120 < crossed.n50_high


def test_the_effective_memorization_is_an_interval_of_the_grid():
    share = np.array([[1.0, 0.9, 0.5, 0.1], [0.8] * 4, [1.0] * 4, [1.0, 0.2, 0.95, 0.1]])
    low, high, monotone = effective_memorization(share, np.array([8.0, 16, 32, 64]))
    assert low.tolist() == [16, 0, 64, 32]
    assert high.tolist() == [32, 8, np.inf, 64]
    assert monotone.tolist() == [True, True, True, False]
