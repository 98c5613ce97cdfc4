import numpy as np
import pytest
import xarray as xr

from analyses.boundary import boundary
from analyses.clock import clock, line_slope, line_spearman
from analyses.criteria import readings
from analyses.phase import phase
from analyses.pooled import Observations, difference, pooled_exponent
from analyses.slices import exponents
from tests.analyses.cubes import lose, measured

SEEDS, DRAWS = 3, 2


def law(b=1.5, c=-1.0, scatter=0.02, seed=range(SEEDS), draw=range(DRAWS), width=None, n=None):
    """A cube whose onset is tau = n^b (width/64)^c / 16 kimg, and f_mem a step in time there."""
    width = 32.0 * 2.0 ** (np.arange(9) / 2) if width is None else width
    n = 4.0 * 2.0 ** (np.arange(17) / 2) if n is None else n
    axes = {
        "width": width,
        "n_train": n,
        "seed": list(seed),
        "draw": list(draw),
        "split": np.array(["a"], object),
    }
    kimg = 2.0 ** (np.arange(1, 19) / 2)
    coords = axes | {"kimg": kimg}
    grid = [xr.DataArray(np.asarray(v), dims=k) for k, v in coords.items() if k != "split"]
    w, m, _, _, t = grid
    rng = np.random.default_rng(3)
    shape = [len(v) for v in axes.values()]
    trial = xr.DataArray(np.exp(scatter * rng.standard_normal(shape)), dims=list(axes))
    tau = m**b * (w / 64) ** c / 16 * trial
    f = xr.where(t > tau, 1.0, 0.0).transpose(*axes, "kimg")
    made = xr.Dataset({"memorized_fraction": f}, coords=coords)
    return made.assign_coords(n_params=w**2, flops=6 * w**2 * 1000 * t)


def found_in(made):
    said = readings(made)
    found = said.merge(boundary(made, said), compat="no_conflicts")
    return exponents(made, found).sel(split="a")


@pytest.fixture(scope="module")
def onset():
    return found_in(law()).sel(criterion="f_mem")


@pytest.mark.parametrize(
    ("slice_", "axis", "expected"),
    [
        # tau = n^(3/2) / w: at equal kimg N* ~ (w t)^(2/3), at equal epochs ~ (w e)^2, and with
        # t ~ F / w^2 at equal compute ~ w^(-2/3).
        ("steps", "width", 2 / 3),
        ("steps", "n_params", 1 / 3),
        ("steps", "kimg", 2 / 3),
        ("epochs", "width", 2.0),
        ("epochs", "n_params", 1.0),
        ("epochs", "kimg", 2.0),
        ("flops", "width", -2 / 3),
        ("flops", "n_params", -1 / 3),
        ("samples", "width", -1.0),
        ("samples", "n_params", -0.5),
        ("samples", "n_train", 1.5),
    ],
)
def test_every_slice_has_the_exponent_that_follows_from_the_law(onset, slice_, axis, expected):
    at = onset.sel(slice=slice_, axis=axis)
    assert at.exponent_success == 1
    assert at.exponent_is_range == 0
    assert at.exponent_replicates == SEEDS * DRAWS
    assert at.exponent == pytest.approx(expected, rel=0.12)
    assert at.exponent_low < expected < at.exponent_high


def test_what_a_slice_does_not_vary_has_no_exponent(onset):
    for slice_, axis in (("steps", "n_train"), ("flops", "kimg"), ("samples", "kimg")):
        at = onset.sel(slice=slice_, axis=axis)
        assert np.isnan(at.exponent)
        assert at.exponent_success == 0


def test_the_boundary_at_equal_epochs_and_at_equal_steps_scales_differently(onset):
    at = onset.sel(axis="width")
    difference = at.exponent_steps_minus_epochs
    steps, epochs = (at.exponent.sel(slice=s) for s in ("steps", "epochs"))
    np.testing.assert_allclose(difference, steps - epochs)
    assert at.exponent_steps_minus_epochs_low < 2 / 3 - 2 < at.exponent_steps_minus_epochs_high
    assert at.exponent_steps_minus_epochs_high < 0


def test_exponents_do_not_depend_on_the_unit_of_the_axes():
    made = law(seed=(0,), draw=(0, 1))
    by = {"width": 10, "kimg": 3, "flops": 7, "n_params": 2}
    scaled = made.assign_coords(
        {name: (made[name].dims, k * made[name].values) for name, k in by.items()}
    )
    a, b = (found_in(x).exponent.sel(criterion="f_mem") for x in (made, scaled))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_two_replicates_have_a_range_and_one_an_interval_about_itself():
    two = found_in(law(seed=(0,))).sel(criterion="f_mem", slice="samples", axis="n_train")
    assert two.exponent_is_range == 1
    assert two.exponent_low <= two.exponent <= two.exponent_high
    one = found_in(law(seed=(0,), draw=(0,))).sel(
        criterion="f_mem", slice="samples", axis="n_train"
    )
    assert one.exponent_is_range == 0
    assert one.exponent_low < 1.5 < one.exponent_high


def test_a_single_width_has_no_exponent_in_width_and_keeps_the_others():
    found = found_in(law(width=np.array([64.0]))).sel(criterion="f_mem")
    assert np.isnan(found.exponent.sel(axis=["width", "n_params"])).all()
    at = found.sel(slice="samples", axis="n_train")
    assert at.exponent_low < 1.5 < at.exponent_high


def test_stages_that_ignore_n_train_have_an_exponent_of_nought_and_memorization_has_not():
    made = measured(seed=(0, 1), images=16)
    found = phase(made).sel(split="a")
    for stage in ("tau_gauss", "tau_gen"):
        for axis in ("n_train", "width"):
            at = found.sel(stage=stage, axis=axis)
            assert at.stage_exponent_low < 0 < at.stage_exponent_high
            assert abs(at.stage_exponent) < 0.05
    at = found.sel(stage="tau_mem", axis="n_train")
    assert 0.4 < at.stage_exponent_low < at.stage_exponent_high < 0.95
    assert at.stage_exponent == found.exponent.sel(
        criterion="f_mem", slice="samples", axis="n_train"
    )


def points(rng, seeds=SEEDS, draws=DRAWS, step=2**0.5, slope=0.1):
    """N* over width at four levels, read on a grid, for b = 1.3: seeds and draws tilt the line."""
    x, level = np.array([64.0, 128.0, 256.0, 512.0]), np.arange(4.0)
    s, d, i, k = (a.ravel() for a in np.indices((seeds, draws, 4, 4)))
    spread = slope * (rng.standard_normal(seeds)[s] + rng.standard_normal(draws)[d])
    noise = 0.1 * rng.standard_normal((seeds, draws, 4))[s, d, i]
    log = np.log(20) + 0.7 * level[k] + (1.3 + spread) * np.log(x[i] / 100) + noise
    cell = np.floor(log / np.log(step))
    low, high = step**cell, step ** (cell + 1)
    least, most = step ** np.floor(np.log([16, 1500]) / np.log(step))
    high = np.where(high > most, np.inf, np.where(low < least, least, high))
    low = np.where(np.isinf(high), np.minimum(low, most), np.where(low < least, 0.0, low))
    return Observations(x[i], level[k], low, high, s, d)


def test_the_interval_of_a_pooled_exponent_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(1)
    fits = [pooled_exponent(points(rng), SEEDS, DRAWS) for _ in range(400)]
    cover = np.mean([fit.low <= 1.3 <= fit.high for fit in fits])
    assert 0.9 <= cover <= 0.99
    assert abs(np.mean([fit.estimate for fit in fits]) - 1.3) < 0.03


def test_replicates_that_the_grid_cannot_tell_apart_do_not_make_an_interval_of_no_length():
    rng = np.random.default_rng(0)
    data = points(rng, 1, 1, step=2.0, slope=0.0)
    same = [np.tile(getattr(data, name), 6) for name in ("x", "level", "low", "high")]
    ids = np.repeat(np.indices((SEEDS, DRAWS)).reshape(2, -1), len(data.x), axis=1)
    fit = pooled_exponent(Observations(*same, *ids), SEEDS, DRAWS)
    alone = pooled_exponent(data, 1, 1)
    assert fit.coarse
    assert fit.high - fit.low > 0.5 * (alone.high - alone.low)
    assert fit.estimate == pytest.approx(alone.estimate, abs=1e-5)


def test_the_range_of_two_replicates_says_nothing_where_one_of_them_identifies_nothing():
    data = points(np.random.default_rng(5), 1, 2)
    never = data.draw == 1
    low, high = np.where(never, 1024.0, data.low), np.where(never, np.inf, data.high)
    fit = pooled_exponent(Observations(data.x, data.level, low, high, data.seed, data.draw), 1, 2)
    assert fit.is_range
    assert fit.success
    assert np.isnan([fit.low, fit.high]).all()
    both = pooled_exponent(data, 1, 2)
    assert both.low <= np.nanmin(both.single) <= np.nanmax(both.single) <= both.high


def test_a_difference_of_a_fit_with_itself_is_nought():
    fit = pooled_exponent(points(np.random.default_rng(2)), SEEDS, DRAWS)
    none = difference(fit, fit)
    assert none.estimate == 0
    assert none.low <= 0 <= none.high


def test_levels_that_nothing_bounds_do_not_spoil_the_fit():
    data = points(np.random.default_rng(3))
    more = Observations(
        *(
            np.concatenate([getattr(data, name), extra])
            for name, extra in (
                ("x", np.array([64.0, 128.0])),
                ("level", np.array([9.0, 9.0])),
                ("low", np.array([0.0, 0.0])),
                ("high", np.array([16.0, 16.0])),
                ("seed", np.array([0, 1])),
                ("draw", np.array([0, 0])),
            )
        )
    )
    fits = [pooled_exponent(x, SEEDS, DRAWS) for x in (data, more)]
    assert fits[0].estimate == fits[1].estimate


def test_without_observations_nothing_is_identified():
    empty = Observations(*(np.zeros(0) for _ in range(4)), *(np.zeros(0, int) for _ in range(2)))
    fit = pooled_exponent(empty, 1, 1)
    assert not fit.success
    assert np.isnan([fit.estimate, fit.low, fit.high]).all()


def test_a_clock_effect_is_gone_at_the_minimum_and_a_capacity_effect_is_not():
    made = measured(seed=(0, 1), images=16)
    found = phase(made).sel(split="a")
    late = found.sel(kimg=384)
    # After its minimum the distance rises faster for small n_train and for large width.
    assert late.clock_sign_fixed.sel(axis="n_train") == -1
    assert late.clock_sign_fixed.sel(axis="width") == 1
    assert (found.clock_sign_minimum == 0).all()
    assert late.clock_trend_fixed.sel(axis="n_train") == pytest.approx(-1)
    tilted = made.assign(denoiser_rmse=made.denoiser_rmse * (made.width / 64.0) ** 0.5)
    again = phase(tilted).sel(split="a", axis="width")
    assert again.clock_sign_minimum == 1
    assert again.clock_slope_minimum == pytest.approx(0.5, abs=0.02)
    assert again.clock_trend_minimum == 1


def test_a_minimum_at_the_last_snapshot_is_not_compared():
    made = measured(kimg=(16, 32, 48), images=16)
    found = phase(made)
    assert np.isnan(found.distance_at_minimum).all()
    assert np.isnan(found.clock_trend_minimum).all()
    assert found.clock_trend_fixed.sel(axis="n_train").notnull().all()


def test_trends_along_a_line_ignore_what_is_missing():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = np.array([[3.0, np.nan, 2.0, 1.0], [1.0, np.nan, np.nan, 2.0], [5.0, 5.0, 5.0, 5.0]])
    np.testing.assert_array_equal(line_spearman(y, x), [-1, np.nan, np.nan])
    np.testing.assert_allclose(line_slope(y, x)[1:], [1 / 3, 0], atol=1e-12)


def test_a_lost_cell_changes_no_exponent_by_more_than_its_interval():
    made = law(seed=(0, 1))
    made["status"] = made.memorized_fraction.astype(np.int8)
    at = dict(width=64.0, n_train=16.0, seed=1, draw=1, split="a", kimg=8.0)
    whole, lost = (found_in(x).sel(criterion="f_mem") for x in (made, lose(made, **at)))
    near = (lost.exponent > whole.exponent_low) & (lost.exponent < whole.exponent_high)
    assert (near | whole.exponent.isnull()).all()


def test_without_distances_there_is_no_clock():
    assert not clock(law(), xr.Dataset()).data_vars
