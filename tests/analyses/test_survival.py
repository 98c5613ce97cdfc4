import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import linregress, norm, t

from analyses.exponents import exponent
from analyses.regression import fit_offset, fit_power
from analyses.survival import Groups, survival_fit, turnbull

N = np.repeat([16.0, 32, 64, 128, 256], 4)
WIDTH = np.tile([128.0, 128, 256, 256], 5)
Z = np.log(np.stack([N, WIDTH], axis=1))
SNAPSHOTS = np.array([0, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, np.inf])


def onsets(seed=0, scatter=0.3, repeats=None):
    rng = np.random.default_rng(seed)
    shape = len(N) if repeats is None else (repeats, len(N))
    return np.exp(5 + 0.9 * Z[:, 0] - 0.7 * Z[:, 1] + scatter * rng.standard_normal(shape))


def between(tau):
    at = np.searchsorted(SNAPSHOTS, tau)
    return SNAPSHOTS[at - 1], SNAPSHOTS[at]


def loss(p, low, high, z=Z):
    with np.errstate(divide="ignore"):
        ends = [norm.cdf((np.log(x) - p[0] - z @ p[1:-1]) / np.exp(p[-1])) for x in (low, high)]
    return -np.log(np.maximum(ends[1] - ends[0], 1e-300)).sum()


def test_exact_onsets_give_least_squares_with_its_intervals():
    tau = onsets()
    fit = survival_fit(np.log(N)[:, None], tau, tau)
    line = linregress(np.log(N), np.log(tau))
    half = t.ppf(0.975, len(N) - 2) * line.stderr
    assert fit.coefficients[0] == pytest.approx([line.intercept, line.slope])
    assert fit.se[0] == pytest.approx([line.intercept_stderr, line.stderr])
    assert (fit.low[0, 1], fit.high[0, 1]) == pytest.approx((line.slope - half, line.slope + half))


def test_censored_onsets_reach_the_maximum_that_scipy_finds():
    low, high = between(onsets(1, scatter=0.9))
    assert np.isinf(high).any() and (low == 0).any()
    fit = survival_fit(Z, low, high)
    start = [5, 0.9, -0.7, -1]
    options = {"maxiter": 20000, "maxfev": 20000, "xatol": 1e-8, "fatol": 1e-11}
    best = minimize(loss, start, (low, high), method="Nelder-Mead", options=options)
    assert fit.coefficients[0] == pytest.approx(best.x[:3], rel=1e-3, abs=1e-3)
    assert fit.scatter[0] == pytest.approx(np.exp(best.x[3]), rel=1e-3)
    assert fit.log_likelihood[0] == pytest.approx(-best.fun, abs=1e-6)


def test_standard_errors_are_those_of_the_observed_information():
    low, high = between(onsets(1))
    fit = survival_fit(Z, low, high)
    at = np.append(fit.coefficients[0], np.log(fit.scatter[0]))
    step, size = 1e-3 * np.eye(4), 4
    information = [
        [
            (
                loss(at + step[i] + step[j], low, high)
                - loss(at + step[i] - step[j], low, high)
                - loss(at - step[i] + step[j], low, high)
                + loss(at - step[i] - step[j], low, high)
            )
            / 4e-6
            for j in range(size)
        ]
        for i in range(size)
    ]
    bounded = ((low > 0) & np.isfinite(high)).sum()
    expected = np.sqrt(np.diag(np.linalg.inv(information))[:3] * bounded / (bounded - 3))
    assert fit.se[0] == pytest.approx(expected, rel=1e-3)


def test_one_covariate_gives_the_power_law_of_the_regression():
    low, high = between(onsets(2))
    fit, power = survival_fit(np.log(N)[:, None], low, high), fit_power(N, low, high)
    assert fit.coefficients[0] == pytest.approx([power.intercept[0], power.slope[0]], rel=1e-5)
    assert fit.se[0, 1] == pytest.approx(power.slope_se[0], rel=1e-4)


def test_the_standard_errors_of_the_offset_law_are_the_spread_of_its_fits():
    rng = np.random.default_rng(3)
    tau = (46 + 2.1 * N) * np.exp(0.1 * rng.standard_normal((2000, len(N))))
    fit = fit_offset(N, tau, tau)
    assert np.median(fit.offset_se) == pytest.approx(fit.offset.std(), rel=0.06)
    assert np.median(fit.rate_se) == pytest.approx(fit.rate.std(), rel=0.06)


def test_the_units_of_covariates_and_times_only_move_the_intercept():
    low, high = between(onsets(4))
    fit = survival_fit(Z, low, high)
    other = survival_fit(Z + np.log([7.0, 0.01]), 3 * low, 3 * high)
    assert other.coefficients[0, 1:] == pytest.approx(fit.coefficients[0, 1:], rel=1e-5)
    assert other.se[0, 1:] == pytest.approx(fit.se[0, 1:], rel=1e-5)


def test_without_covariates_the_median_onset_is_fitted():
    tau = onsets()
    fit = survival_fit(np.empty((len(N), 0)), tau, tau)
    assert fit.coefficients[0] == pytest.approx([np.log(tau).mean()])


def test_many_data_sets_at_once_are_as_many_fits():
    low, high = between(onsets(5, repeats=3))
    together = survival_fit(Z, low, high)
    for index in range(3):
        alone = survival_fit(Z, low[index], high[index])
        assert together.coefficients[index] == pytest.approx(alone.coefficients[0], rel=1e-3)


def test_what_is_not_identified_is_a_failure_and_not_a_number():
    low, high = between(onsets())
    never = survival_fit(Z, np.full(len(N), 512.0), np.full(len(N), np.inf))
    twins = survival_fit(np.stack([Z[:, 0], Z[:, 0]], axis=1), low, high)
    wide_only = survival_fit(Z, *np.where(WIDTH == 128, [[512.0], [np.inf]], [low, high]))
    nothing = survival_fit(Z, np.full(len(N), np.nan), np.full(len(N), np.nan))
    for fit in (never, twins, wide_only, nothing):
        assert not fit.success[0]
        for values in (fit.coefficients, fit.se, fit.low, fit.high):
            assert np.isnan(values).all()


def test_observations_of_a_shared_draw_are_not_counted_as_independent():
    rng = np.random.default_rng(6)
    seed, draw = np.indices((3, 4)).reshape(2, -1)
    n = np.array([16.0, 32, 64, 128])
    slope = 0.9 + 0.3 * rng.standard_normal(4)[draw]
    tau = np.exp(3 + slope[:, None] * np.log(n / 45) + 0.02 * rng.standard_normal((12, 4)))
    z, tau = np.log(np.tile(n, 12))[:, None], tau.ravel()
    alone = survival_fit(z, tau, tau)
    grouped = survival_fit(z, tau, tau, Groups(np.repeat(seed, 4), np.repeat(draw, 4)))
    assert grouped.clustered[0] and not alone.clustered[0]
    np.testing.assert_array_equal(grouped.coefficients, alone.coefficients)
    length, naive = ((f.high - f.low)[0, 1] for f in (grouped, alone))
    assert length > 2 * naive
    by_draw = np.array([slope[draw == d][0] for d in range(4)])
    expected = 2 * t.ppf(0.975, 3) * by_draw.std(ddof=1) / 2
    assert length == pytest.approx(expected, rel=0.25)


def test_replicates_that_agree_between_snapshots_still_have_an_interval():
    n = np.tile([16.0, 32, 64, 128], 6)
    low, high = between(3 * n)
    seed, draw = (np.repeat(i.ravel(), 4) for i in np.indices((3, 2)))
    found = exponent(n, low, high, seed, draw)
    assert found["low"] < 1 < found["high"]
    assert found["high"] - found["low"] > 0.02


def test_the_exponent_takes_boundaries_that_are_open_to_one_side():
    width = np.array([32.0, 64, 128, 256, 512])
    star = 0.5 * width
    low, high = 0.8 * star, 1.25 * star
    low[0], high[-1] = 0, np.inf
    found = exponent(width, low, high, np.zeros(5, int), np.zeros(5, int))
    assert found["success"] and found["replicates"] == 1
    assert not found["is_range"]
    assert found["estimate"] == pytest.approx(1, abs=0.1)
    assert found["low"] < 1 < found["high"]


def test_two_replicates_give_their_range_and_four_an_interval():
    n = np.array([16.0, 32, 64, 128])
    x = np.tile(n, 4)
    seed, draw = (np.repeat(i.ravel(), 4) for i in np.indices((2, 2)))
    tau = (x / 16) ** np.repeat([0.8, 1.0, 0.85, 1.05], 4)
    two = exponent(x[:8], tau[:8], tau[:8], seed[:8], draw[:8])
    assert two["is_range"] and two["replicates"] == 2
    assert (two["low"], two["high"]) == pytest.approx((0.8, 1.0), abs=1e-6)
    both = np.stack([tau, np.where(np.arange(16) < 8, tau, np.nan)])
    found = exponent(x, both, both, seed, draw)
    assert found["is_range"].tolist() == [False, True]
    assert found["low"][1] == pytest.approx(0.8, abs=1e-6)
    assert found["low"][0] < 0.8 and found["high"][0] > 1.05


def test_without_a_boundary_there_is_no_exponent():
    x = np.tile([16.0, 32, 64, 128], 4)
    seed, draw = (np.repeat(i.ravel(), 4) for i in np.indices((2, 2)))
    for low, high in ((np.nan, np.nan), (512.0, np.inf), (0.0, 16.0)):
        found = exponent(x, np.full(16, low), np.full(16, high), seed, draw)
        assert not found["success"]
        assert np.isnan([found["estimate"], found["low"], found["high"]]).all()


def test_exact_onsets_give_turnbull_the_empirical_distribution():
    values = np.array([3.0, 1.0, 2.0, 2.0])
    found = turnbull(values, values)
    np.testing.assert_array_equal(found.right, [1, 2, 3])
    np.testing.assert_allclose(found.cumulative, [0.25, 0.75, 1.0])


def test_right_censored_onsets_give_turnbull_the_kaplan_meier_estimate():
    low = np.array([1.0, 2, 3, 4, 5, 6])
    high = np.array([1.0, np.inf, 3, np.inf, 5, np.inf])
    found = turnbull(low, high)
    survival = np.cumprod([5 / 6, 3 / 4, 1 / 2])
    np.testing.assert_allclose(1 - found.cumulative[:3], survival, atol=1e-6)


def test_turnbull_reaches_the_greatest_likelihood():
    low, high = between(onsets(7))
    found = turnbull(low, high)
    assert found.success
    assert found.mass.sum() == pytest.approx(1)
    inside = (found.left >= low[:, None]) & (found.right <= high[:, None])
    gain = (inside / (inside @ found.mass)[:, None]).mean(axis=0)
    # Kuhn-Tucker: moving mass anywhere gains nothing.
    assert gain.max() <= 1 + 1e-4
    np.testing.assert_allclose(gain[found.mass > 1e-4], 1, atol=1e-3)


def test_turnbull_of_nothing_is_a_failure():
    found = turnbull([np.nan], [np.nan])
    assert not found.success
    assert found.mass.size == 0
