import time

import numpy as np
import pytest
import xarray as xr

from analyses import onset
from analyses.phase import gaussian_times, phase
from analyses.spread import spread
from tests.analyses.cubes import ACROSS, KIMG, N_TRAIN, cube, lose, measured, onset_kimg

TIMES = np.arange(1.0, 7.0)


@pytest.fixture(scope="module")
def quick():
    return cube()


@pytest.fixture(scope="module")
def found(quick):
    return phase(quick)


@pytest.mark.parametrize(
    ("curve", "lasting", "first"),
    [
        ([0, 0, 0.1, 0.2, 0.3, 0.4], (2, 3), (2, 3)),
        ([0, 0.1, 0, 0.2, 0.3, 0.4], (3, 4), (1, 2)),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], (0, 1), (0, 1)),
        ([0, 0, 0, 0, 0, 0.05], (6, np.inf), (6, np.inf)),
        ([0, 0.1, 0.2, 0, 0, 0], (6, np.inf), (1, 2)),
        ([0, 0, np.nan, 0.2, 0.3, 0.4], (2, 4), (2, 4)),
        ([0, 0, 0, 0, np.nan, np.nan], (4, np.inf), (4, np.inf)),
        ([np.nan, 0.2, 0.3, 0.4, 0.5, 0.6], (0, 2), (0, 2)),
        ([np.nan] * 6, (np.nan, np.nan), (np.nan, np.nan)),
    ],
)
def test_onsets_are_intervals_that_survive_dips_and_gaps(curve, lasting, first):
    curve = np.array(curve, float)
    np.testing.assert_array_equal(onset.onset(curve, TIMES, 0.05), lasting)
    np.testing.assert_array_equal(onset.first_crossing(curve, TIMES, 0.05), first)


def test_a_minimum_is_interior_only_between_two_readings():
    curves = np.array([[3, 2, 1, 2], [1, 2, 3, 4], [4, 3, 2, 1], [np.nan, 1, 2, 3]], float)
    index, low, high, interior = onset.minimum(curves, np.array([1.0, 2, 4, 8]))
    assert index.tolist() == [2, 0, 3, 1]
    assert interior.tolist() == [True, False, False, False]
    assert (low[0], high[0]) == (2, 8)
    assert onset.minimum(np.full((1, 4), np.nan), np.arange(1.0, 5))[0].tolist() == [-1]


def test_the_boundary_in_n_train_notices_what_is_not_monotone():
    curves = np.array([[0.9, 0.5, 0.1, 0], [0.9, 0, 0.5, 0], [0, 0, 0, 0], [0.9, 0.9, 0.9, 0.9]])
    low, high, monotone = onset.last_above(curves, np.array([16.0, 32, 64, 128]), 0.2)
    assert low.tolist() == [32, 64, 0, 128]
    assert high.tolist() == [64, 128, 16, np.inf]
    assert monotone.tolist() == [True, False, True, True]


def test_onset_intervals_hold_the_true_onset(found):
    for i, n in enumerate(N_TRAIN[:3]):
        row = found.isel(n_train=i).sel(width=256)
        assert (row.tau_mem_low < 1.1 * onset_kimg(256, n)).all()
        assert (row.tau_mem_high > 0.9 * onset_kimg(256, n)).all()
    assert (found.tau_mem_censored.sel(width=64) == 1).all()
    assert (found.tau_mem_low.sel(width=64) == KIMG[-1]).all()


def test_the_gaussian_stage_is_found_with_its_bracket_for_every_reference(found):
    own = found.sel(reference="gaussian")
    assert (own.tau_gauss == 48).all()
    assert (own.tau_gauss_low == 32).all()
    assert (own.tau_gauss_high == 64).all()
    assert (own.tau_gauss_interior == 1).all()
    assert found.tau_gauss.sizes["reference"] == 5


def test_falls_and_rises_are_the_differences_of_the_means_inside_their_intervals(quick, found):
    rmse = quick.denoiser_rmse.sel(inputs="heldout", reference="gaussian", sigma=0.47)
    for name, other in (("fall", 16), ("rise", 384)):
        value = found[f"denoiser_rmse_{name}"]
        np.testing.assert_allclose(value, rmse.sel(kimg=other) - rmse.sel(kimg=48), atol=1e-6)
        assert (found[f"denoiser_rmse_{name}_low"] < value).all()
        assert (value < found[f"denoiser_rmse_{name}_high"]).all()
        assert (found[f"denoiser_rmse_{name}_low"] > 0).all()
    for name in ("linearity_cosine_centred", "affine_r2"):
        value = quick[name].sel(inputs="heldout", sigma=0.47)
        expected = value.sel(kimg=48) - value.sel(kimg=384)
        np.testing.assert_allclose(found[f"{name}_fall"], expected, atol=1e-5)


def test_slopes_find_the_law_the_cube_was_made_from():
    at = phase(cube(seed=(0, 1), draw=(0, 1, 2))).sel(width=256, split="a")
    assert at.onset_is_range == 0
    assert at.onset_replicates == 6
    assert at.tau_mem_offset_low < 46 < at.tau_mem_offset_high
    assert at.tau_mem_rate_low < 2.1 < at.tau_mem_rate_high
    assert 0.5 < at.tau_mem_slope < 0.85
    assert at.tau_mem_minus_gauss_slope_low < 1 < at.tau_mem_minus_gauss_slope_high


def test_below_four_replicates_the_ends_are_the_range_and_say_so(found):
    assert (found.onset_is_range == 1).all()
    at = found.sel(width=256)
    assert (at.tau_mem_slope_low <= at.tau_mem_slope + 1e-6).all()
    assert at.tau_mem_slope_admitted_low < 0.65 < at.tau_mem_slope_admitted_high
    assert found.tau_mem_slope_success.sel(width=64) == 0
    assert np.isnan(found.tau_mem_slope.sel(width=64)).all()


def test_resampled_samples_use_whatever_threshold_the_cube_was_made_with():
    made = cube(seed=(0, 1))
    twice = made.copy()
    twice["nearest_ratio"] = made.nearest_ratio * 1.4  # as if the threshold were 0.467
    xr.testing.assert_identical(phase(made), phase(twice))


def test_the_same_cube_gives_the_same_phase(quick, found):
    xr.testing.assert_identical(found, phase(quick))


def test_a_quickstart_cube_takes_less_than_five_seconds(quick):
    start = time.process_time()
    phase(quick)
    assert time.process_time() - start < 5


def test_a_large_cube_with_every_analysis_takes_less_than_twenty_seconds():
    made = measured(
        width=(64, 96, 128, 192, 256, 384),
        n_train=(16, 32, 64, 128),
        seed=(0, 1, 2),
        split=("a", "b"),
        kimg=(*KIMG, 512),
        images=64,
    )
    start = time.process_time()
    phase(made)
    assert time.process_time() - start < 20


def test_a_lost_cell_changes_only_its_own_trial(quick, found):
    lost = phase(lose(quick, width=256, n_train=16, draw=1, kimg=384))
    assert np.isnan(lost.denoiser_rmse_rise.sel(width=256, n_train=16, draw=1)).all()
    for name in ("tau_mem_low", "denoiser_rmse_rise", "affine_r2_fall"):
        np.testing.assert_array_equal(lost[name].sel(draw=0), found[name].sel(draw=0))


def test_a_cube_in_which_nothing_was_measured_has_no_times():
    made = measured(images=16)
    empty = phase(made.where(made.status == 9))
    assert (empty.criterion_says == -1).all()
    for name in ("kimg_star_low", "n_star_low", "exponent", "transition_n50", "emm_max"):
        assert np.isnan(empty[name]).all(), name
    assert np.isnan(empty.tau_mem_low).all()
    assert np.isnan(empty.tau_gauss).all()
    assert (empty.onset_replicates == 0).all()
    assert np.isnan(empty.tau_mem_slope).all()


@pytest.mark.parametrize(
    "small",
    [
        {"draw": (0,)},
        {"n_train": (64,)},
        {"width": (256,)},
        {"kimg": (64,)},
        {"sigma": (0.5,)},
    ],
    ids=str,
)
def test_an_axis_of_length_one_is_an_axis(small):
    found = phase(measured(**small, images=16))
    assert found.tau_mem_low.dims == ACROSS
    assert found.kimg_star_low.dims == ("criterion", *ACROSS)
    assert found.n_star_epochs_low.sizes["width"] == found.sizes["width"]
    assert found.exponent.dims == ("criterion", "slice", "axis", "split")


def test_a_single_cell_has_its_times_and_no_law():
    made = measured(width=(256,), n_train=(16,), draw=(0,), kimg=(384,), images=16)
    found = phase(made)
    assert found.kimg_star_high.sel(criterion="f_mem").item() == 384
    assert found.n_star_low.sel(criterion="f_mem").item() == 16
    for name in ("exponent", "stage_exponent", "clock_trend_fixed", "transition_n50"):
        assert np.isnan(found[name]).all(), name
    assert (found.exponent_success == 0).all()
    assert "tau_mem_sd_seed" not in found


@pytest.mark.parametrize("part", ["seed", "draw"])
def test_the_spread_between_seeds_and_between_draws_is_told_apart(part):
    made = cube(seed=(0, 1, 2, 3), draw=(0, 1, 2, 3), images=64)
    shift = 0.02 * xr.DataArray([-1.0, 1, -1, 1], dims=part)
    made["denoiser_rmse"] = made.denoiser_rmse + shift
    found = spread(made, gaussian_times(made)).sel(split="a")
    other = {"seed": "draw", "draw": "seed"}[part]
    own = found[f"tau_gauss_rmse_sd_{part}"]
    np.testing.assert_allclose(own, 0.02 * np.sqrt(4 / 3), rtol=0.04)
    assert (found[f"tau_gauss_rmse_sd_{part}_low"] < own).all()
    assert (own < found[f"tau_gauss_rmse_sd_{part}_high"]).all()
    assert (found[f"tau_gauss_rmse_sd_{other}"] < 2e-3).all()
    assert (found.tau_gauss_rmse_sd_residual < 2e-3).all()


def test_onsets_that_were_never_reached_have_no_spread(found):
    assert np.isnan(found.tau_mem_sd_draw.sel(width=64)).all()


def test_with_one_seed_and_one_draw_nothing_is_said_of_their_spread(quick):
    alone = quick.isel(draw=[0])
    assert not spread(alone, phase(alone)).data_vars


def test_a_further_axis_is_kept_in_every_variable():
    made = measured(training_lr=(1e-3, 4e-3), images=16)
    found = phase(made)
    for name, variable in found.data_vars.items():
        assert "training_lr" in variable.dims, name
    alone = phase(made.isel(training_lr=[1]))
    np.testing.assert_array_equal(found.tau_mem_slope[..., 1], alone.tau_mem_slope[..., 0])


@pytest.mark.parametrize(
    ("dropped", "absent"),
    [
        ("memorized_fraction", "tau_mem_low"),
        ("denoiser_rmse", "tau_gauss"),
        ("denoiser_rmse_image", "denoiser_rmse_fall"),
        ("affine_residual_image", "affine_r2_fall"),
        ("linearity_cosine_centred_pair", "linearity_cosine_centred_fall"),
    ],
)
def test_what_was_not_analysed_is_absent(quick, dropped, absent):
    found = phase(quick.drop_vars(dropped))
    assert absent not in found
    assert len(found.data_vars) > 3


def test_without_ratios_only_replicates_are_resampled():
    found = phase(cube(seed=(0, 1)).drop_vars("nearest_ratio"))
    assert found.tau_mem_slope_success.sel(width=256) == 1


def test_every_variable_says_what_it_is_and_in_which_unit(found):
    full = phase(measured(seed=(0, 1), split=("a", "b"), images=16))
    assert set(found) < set(full)
    for name, variable in full.data_vars.items():
        assert {"long_name", "units"} <= set(variable.attrs), name
    assert found.attrs["sigma"] == 0.47


def test_a_cube_without_training_time_is_refused(quick):
    with pytest.raises(ValueError, match="kimg"):
        phase(quick.isel(kimg=0))
