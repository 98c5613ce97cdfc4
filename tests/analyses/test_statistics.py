import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest, norm

from analyses.regression import admitted_slopes, fit_offset, fit_power, scatter_floor
from analyses.statistics import (
    bootstrap_weights,
    paired_difference,
    paired_r2_difference,
    percentile_interval,
    weighted_mean,
    wilson,
)

N = np.repeat([16.0, 32, 64, 128, 256], 4)
SNAPSHOTS = np.array([0, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, np.inf])


def between_snapshots(tau):
    at = np.searchsorted(SNAPSHOTS, tau)
    return SNAPSHOTS[at - 1], SNAPSHOTS[at]


@pytest.mark.parametrize(("k", "n"), [(0, 512), (3, 20), (256, 512), (511, 512), (512, 512)])
def test_wilson_agrees_with_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    low, high = wilson(k, n, z=norm.ppf(0.975))
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_is_nan_where_nothing_was_counted_and_keeps_the_shape():
    low, high = wilson([[1, np.nan], [0, 2]], [[4, 4], [0, 4]])
    assert np.isnan(low).tolist() == [[False, True], [True, False]]
    assert low.shape == high.shape == (2, 2)


def test_percentiles_agree_with_numpy_where_values_are_missing():
    values = np.random.default_rng(0).standard_normal((50, 3))
    values[::7, 1] = np.nan
    low, high = percentile_interval(values)
    np.testing.assert_allclose(low, np.nanpercentile(values, 2.5, axis=0))
    np.testing.assert_allclose(high, np.nanpercentile(values, 97.5, axis=0))


def test_bootstrap_weights_repeat_and_sum_to_the_sample_size():
    weights = bootstrap_weights(40, 100)
    assert (weights.sum(1) == 40).all()
    np.testing.assert_array_equal(weights, bootstrap_weights(40, 100))
    assert weighted_mean(weights, np.full((3, 40), 7.0)).shape == (100, 3)


def test_the_paired_interval_covers_a_known_difference_about_95_times_in_100():
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((400, 100))
    first = shared + 0.3 + 0.2 * rng.standard_normal((400, 100))
    estimate, low, high = paired_difference(first, shared)
    assert 0.92 <= np.mean((low < 0.3) & (high > 0.3)) <= 0.975
    assert np.median(high - low) < 0.1  # unpaired it would be about 0.55
    assert ((low <= estimate) & (estimate <= high)).all()


def test_the_paired_r2_interval_covers_a_known_difference_about_95_times_in_100():
    rng = np.random.default_rng(2)
    variance = rng.gamma(4.0, 0.25, (400, 150))
    size = rng.gamma(4.0, 0.25, (400, 150))
    estimate, low, high = paired_r2_difference((0.1 * size, variance), (0.3 * size, variance))
    assert 0.9 <= np.mean((low < 0.2) & (high > 0.2)) <= 0.98
    np.testing.assert_allclose(estimate.mean(), 0.2, atol=0.002)


def test_a_power_law_without_scatter_is_recovered():
    fit = fit_power(N, 3 * N[None] ** 0.7, 3 * N[None] ** 0.7)
    assert fit.success.all()
    assert fit.slope == pytest.approx(0.7, abs=1e-6)
    assert fit.intercept == pytest.approx(np.log(3), abs=1e-5)


def test_an_offset_law_without_scatter_is_recovered():
    tau = 46 + 2.1 * N[None]
    fit = fit_offset(N, tau, tau)
    assert (fit.offset[0], fit.rate[0]) == pytest.approx((46, 2.1), rel=1e-5)


def test_exact_onsets_give_least_squares_on_logs():
    rng = np.random.default_rng(3)
    tau = np.exp(1 + 0.9 * np.log(N) + 0.3 * rng.standard_normal(N.size))
    fit = fit_power(N, tau, tau)
    slope, intercept = np.polyfit(np.log(N), np.log(tau), 1)
    scatter = np.std(np.log(tau) - intercept - slope * np.log(N))
    assert (fit.slope[0], fit.scatter[0]) == pytest.approx((slope, scatter), rel=1e-5)


@pytest.mark.parametrize(
    ("fit", "curve"),
    [
        (fit_power, lambda p: p[0] + p[1] * np.log(N)),
        (fit_offset, lambda p: np.log(np.maximum(p[0] + p[1] * N, 1e-9))),
    ],
)
def test_censored_fits_reach_the_maximum_that_scipy_finds(fit, curve):
    rng = np.random.default_rng(4)
    low, high = between_snapshots((40 + 3.0 * N) * np.exp(0.4 * rng.standard_normal(N.size)))
    assert np.isinf(high).any()

    def loss(p):
        with np.errstate(divide="ignore"):
            ends = [norm.cdf((np.log(x) - curve(p)) / np.exp(p[2])) for x in (low, high)]
        return -np.log(np.maximum(ends[1] - ends[0], 1e-300)).sum()

    start = (3.0, 0.7, -1.0) if fit is fit_power else (40.0, 3.0, -1.0)
    bounds = [(None, None), (None, None), (np.log(scatter_floor(low[None], high[None])), 2)]
    options = {"maxiter": 20000, "maxfev": 20000, "xatol": 1e-9, "fatol": 1e-12}
    best = minimize(loss, start, method="Nelder-Mead", bounds=bounds, options=options)
    found = fit(N, low, high)
    ours = (found.intercept, found.slope) if fit is fit_power else (found.offset, found.rate)
    assert found.success[0]
    assert [x[0] for x in ours] == pytest.approx(best.x[:2], rel=1e-4)


def test_censoring_does_not_bias_the_slope():
    rng = np.random.default_rng(5)
    tau = np.exp(1.5 + 0.9 * np.log(N) + 0.3 * rng.standard_normal((400, N.size)))
    low, high = between_snapshots(tau)
    early, late = low < 48, high > 384
    assert 0.05 < early.mean() and 0.05 < late.mean()
    low, high = np.where(early, 0.0, np.minimum(low, 384)), np.where(late, np.inf, high)
    fit = fit_power(N, low, np.where(early, np.maximum(high, 48), high))
    assert fit.success.mean() > 0.99
    assert np.nanmean(fit.slope) == pytest.approx(0.9, abs=0.03)


def test_a_slope_that_the_intervals_do_not_fix_is_a_failure_and_not_a_number():
    n = np.array([16.0, 32, 64])
    unreached = fit_power(n, np.full((1, 3), 384.0), np.full((1, 3), np.inf))
    one_inside = fit_power(n, [[64.0, 384, 384]], [[96.0, np.inf, np.inf]])
    single_n = fit_offset([16.0, 16.0], [[64.0, 64.0]], [[96.0, 96.0]])
    nothing = fit_power(n, np.full((1, 3), np.nan), np.full((1, 3), np.nan))
    for fit in (unreached, one_inside, nothing):
        assert not fit.success[0]
        assert np.isnan(fit.slope[0])
    assert not single_n.success[0]


def passes(slope, n, low, high):
    """Whether a line of this slope on logs passes through every interval."""
    with np.errstate(divide="ignore"):
        floor, ceiling = (np.log(x) - slope * np.log(n) for x in (low, high))
    return floor.max() <= ceiling.min()


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.3])
def test_the_admitted_slopes_are_those_of_the_lines_through_all_intervals(exponent):
    low, high = between_snapshots(20 * (N / 16) ** exponent)
    least, greatest = admitted_slopes(N, low, high)
    assert least <= exponent <= greatest < least + 1
    for inside, beyond in ((least + 1e-9, least - 1e-3), (greatest - 1e-9, greatest + 1e-3)):
        assert passes(inside, N, low, high)
        assert not passes(beyond, N, low, high)


def test_where_no_power_law_passes_no_slope_is_admitted():
    n = [16.0, 32, 64]
    assert np.isnan(admitted_slopes(n, [1, 10, 1], [2, 20, 2])).all()
    assert np.isnan(admitted_slopes([16.0, 16, 32], [1, 4, 1], [2, 8, 9])).all()
    assert admitted_slopes(n, [0, 0, 0], [np.inf] * 3) == (-np.inf, np.inf)
    assert admitted_slopes(n, [4, np.nan, 4], [4, np.nan, 64]) == (0, 2)


def test_missing_observations_change_nothing():
    low, high = between_snapshots(46 + 2.1 * N)
    gap = np.where(np.arange(N.size) % 4 == 3, np.nan, 0.0)
    kept = ~np.isnan(gap)
    whole, part = fit_offset(N, low + gap, high + gap), fit_offset(N[kept], low[kept], high[kept])
    assert whole.offset == pytest.approx(part.offset, rel=1e-6)


def test_an_upside_down_interval_is_refused():
    with pytest.raises(ValueError, match="0 <= low <= high"):
        fit_power([16.0, 32.0], [[2.0, 2.0]], [[1.0, 3.0]])
