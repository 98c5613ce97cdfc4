import numpy as np
import pytest
from scipy.stats import chi2, t, ttest_1samp

from analyses.phase import onset_times
from analyses.slopes import slopes
from analyses.variance import (
    components,
    crossed_interval,
    crossed_mean,
    leave_one_out,
    present,
)
from tests.analyses.cubes import cube


@pytest.fixture
def tables():
    """30 tables of 4 seeds and 3 draws."""
    rng = np.random.default_rng(0)
    seed, draw = rng.standard_normal((30, 4, 1)), 0.5 * rng.standard_normal((30, 1, 3))
    return 2 + seed + draw + 0.3 * rng.standard_normal((30, 4, 3))


def mean_squares(y):
    """Of seeds, draws and the rest of one full table, by the textbook formulas."""
    s, d = y.shape
    by_seed, by_draw = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    rest = ((y - by_seed - by_draw + y.mean()) ** 2).sum() / ((s - 1) * (d - 1))
    return d * by_seed.var(ddof=1), s * by_draw.var(ddof=1), rest


def test_the_components_of_full_tables_are_those_of_the_analysis_of_variance(tables):
    found = components(tables)
    for index, y in enumerate(tables):
        seed, draw, rest = mean_squares(y)
        assert found.seed[index] == pytest.approx(max((seed - rest) / 3, 0))
        assert found.draw[index] == pytest.approx(max((draw - rest) / 4, 0))
        assert found.residual[index] == pytest.approx(rest)
        assert found.truncated[index] == (seed < rest or draw < rest)


@pytest.mark.parametrize("gaps", [[(0, 0)], [(0, 0), (1, 2), (3, 1)]])
def test_components_are_unbiased_whatever_is_missing(gaps):
    rng = np.random.default_rng(1)
    y = 3 * rng.standard_normal((20000, 4, 1)) + 2 * rng.standard_normal((20000, 1, 3))
    y = y + 0.5 * rng.standard_normal((20000, 4, 3))
    for place in gaps:
        y[:, *place] = np.nan
    found = components(y)
    assert found.seed.mean() == pytest.approx(9, rel=0.04)
    assert found.draw.mean() == pytest.approx(4, rel=0.04)
    assert found.residual.mean() == pytest.approx(0.25, rel=0.04)


def test_a_missing_seed_changes_nothing(tables):
    wider = np.concatenate([tables, np.full((30, 1, 3), np.nan)], axis=1)
    for name in ("seed", "draw_high", "residual_low"):
        np.testing.assert_allclose(
            getattr(components(wider), name), getattr(components(tables), name)
        )
    np.testing.assert_allclose(crossed_mean(wider), crossed_mean(tables))


def test_a_shift_and_the_order_of_seeds_change_no_component(tables):
    found, moved = components(tables), components(100 + tables[:, ::-1])
    np.testing.assert_allclose(moved.seed_high, found.seed_high)
    np.testing.assert_allclose(moved.residual, found.residual, rtol=1e-6)


def test_a_variance_that_is_not_there_is_cut_at_zero_and_says_so():
    y = np.array([[1.0, -1.0], [-1.0, 1.0]])
    found = components(y)
    assert (found.seed, found.seed_low, found.draw) == (0, 0, 0)
    assert found.truncated
    assert found.residual == pytest.approx(4)


def test_with_one_draw_only_the_variance_over_seeds_is_known_and_contains_the_rest():
    y = np.array([[1.0], [2.0], [4.0], [np.nan]])
    found = components(y)
    assert found.confounded
    assert found.seed == pytest.approx(np.var([1, 2, 4], ddof=1))
    assert found.seed_low == pytest.approx(2 * found.seed / chi2.ppf(0.975, 2))
    assert np.isnan([found.draw, found.draw_high, found.residual]).all()


@pytest.mark.parametrize(
    "y",
    [
        [[1.0, np.nan], [np.nan, 2.0]],
        [[1.0, 2.0], [3.0, np.nan]],
        [[1.0, np.nan], [np.nan, np.nan]],
        [[np.nan, np.nan], [np.nan, np.nan]],
    ],
)
def test_what_cannot_be_told_apart_is_nan(y):
    found = components(np.array(y))
    assert np.isnan([found.seed, found.draw, found.residual]).all()
    assert not found.truncated


def test_the_interval_of_a_mean_honours_both_sources(tables):
    mean, low, high = crossed_mean(tables)
    for index, y in enumerate(tables):
        seed, draw, _ = mean_squares(y)
        freedom = (seed + draw) ** 2 / (seed**2 / 3 + draw**2 / 2)
        half = t.ppf(0.975, freedom) * np.sqrt((seed + draw) / 12)
        assert mean[index] == pytest.approx(y.mean())
        assert (low[index], high[index]) == pytest.approx((y.mean() - half, y.mean() + half))


def test_more_seeds_do_not_make_up_for_two_draws():
    rng = np.random.default_rng(2)
    draw = rng.standard_normal((200, 1, 2))
    few, many = (draw + 0.1 * rng.standard_normal((200, s, 2)) for s in (3, 30))
    lengths = [np.median(np.subtract(*crossed_mean(y)[:0:-1])) for y in (few, many)]
    assert lengths[1] > 0.7 * lengths[0]
    pooled = ttest_1samp(many.reshape(200, -1), 0, axis=1).confidence_interval()
    assert np.mean((pooled.low < 0) & (pooled.high > 0)) < 0.5


def test_with_one_draw_the_interval_is_that_of_student_over_seeds():
    values = np.array([1.0, 2.0, 4.0])
    expected = ttest_1samp(values, 0).confidence_interval()
    for table in (values[:, None], values[None, :]):
        assert crossed_mean(table)[1:] == pytest.approx((expected.low, expected.high))


def test_a_single_value_has_a_mean_and_no_interval():
    mean, low, high = crossed_mean(np.array([[[3.0]], [[np.nan]]]))
    np.testing.assert_array_equal(mean, [3, np.nan])
    assert np.isnan([low, high]).all()


def test_a_fit_that_fails_without_a_level_leaves_the_interval_open():
    estimate = np.array([1.0, 1.0])
    without = np.array([[0.9, 0.9], [1.1, np.nan]])
    both = np.ones((2, 2), bool)
    one = np.ones((1, 2)), np.ones((1, 2), bool)
    low, high = crossed_interval(estimate, without, one[0], both, one[1])
    assert low[0] < 1 < high[0]
    assert np.isnan([low[1], high[1]]).all()


def test_a_known_variance_alone_gives_the_normal_interval():
    same = np.ones((3, 1))
    low, high = crossed_interval(same[0], same, same[:1], same > 0, same[:1] > 0, 0.25)
    assert (low[0], high[0]) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-4)


def test_levels_are_left_out_one_at_a_time():
    ids = np.array([5, 7, 5])
    np.testing.assert_array_equal(leave_one_out(ids), [[0, 1, 0], [1, 0, 1]])
    known = np.array([[True, False, True], [False, True, False]])
    np.testing.assert_array_equal(present(ids, known), [[True, False], [False, True]])


def found_slopes(made):
    return slopes(made, onset_times(made)).sel(width=256, split="a")


def test_slopes_keep_seeds_and_draws_apart():
    at = found_slopes(cube(seed=(0, 1, 2), draw=(0, 1)))
    assert (at.onset_replicates, at.onset_seeds, at.onset_draws) == (6, 3, 2)
    assert at.onset_is_range == 0
    assert at.tau_mem_slope_low < at.tau_mem_slope < at.tau_mem_slope_high
    for source in ("seed", "draw", "residual"):
        ends = [float(at[f"tau_mem_slope_{source}_sd{end}"]) for end in ("_low", "", "_high")]
        assert 0 <= ends[0] <= ends[1] <= ends[2]


def test_slopes_that_differ_between_draws_show_it_in_their_draws_alone():
    made = cube(seed=(0, 1, 2), draw=(0, 1)).drop_vars("nearest_ratio")
    found = onset_times(made)
    n = made.n_train.values.astype(float)
    for index, slope in enumerate((0.6, 1.0)):
        tau = 20 * (n / 16) ** slope
        found.tau_mem_low.loc[dict(draw=index, width=256, split="a")] = (0.99 * tau)[:, None]
        found.tau_mem_high.loc[dict(draw=index, width=256, split="a")] = (1.01 * tau)[:, None]
    at = slopes(made, found).sel(width=256, split="a")
    assert at.tau_mem_slope_draw_sd == pytest.approx(0.4 / np.sqrt(2), rel=1e-3)
    assert at.tau_mem_slope_seed_sd == pytest.approx(0, abs=1e-4)
    assert at.tau_mem_slope_low < 0 < 1.6 < at.tau_mem_slope_high  # two draws: t = 12.7


def test_with_one_draw_the_interval_is_about_it_alone_and_its_variance_unknown():
    at = found_slopes(cube(seed=(0, 1, 2, 3), draw=(0,)))
    assert (at.onset_seeds, at.onset_draws, at.onset_is_range) == (4, 1, 0)
    assert np.isfinite(at.tau_mem_slope_low)
    assert np.isnan(at.tau_mem_slope_draw_sd)
