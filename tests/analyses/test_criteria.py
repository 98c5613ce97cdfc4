import numpy as np
import pytest

from analyses.criteria import CRITERIA, margins, readings
from tests.analyses.cubes import ACROSS, cube, lose, measured


@pytest.fixture(scope="module")
def full():
    return measured(seed=(0, 1), split=("a", "b"), images=32)


@pytest.fixture(scope="module")
def said(full):
    return readings(full)


def test_a_finished_sweep_has_every_criterion_in_the_order_of_the_table(said):
    assert said.criterion.values.tolist() == list(CRITERIA)
    assert said.criterion_value.dims == ("criterion", *ACROSS, "kimg")
    assert said.criterion_says.dtype == np.int8


@pytest.mark.parametrize("name", CRITERIA)
def test_memorizing_is_beyond_the_level_in_the_direction_of_the_criterion(said, name):
    own = said.sel(criterion=name)
    beyond = own.criterion_value - float(own.criterion_level)
    beyond = beyond if own.criterion_direction == "above" else -beyond
    np.testing.assert_array_equal(own.criterion_says == 1, beyond > 0)
    np.testing.assert_array_equal(margins(said).sel(criterion=name), beyond)


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_holds_in_the_most_memorizing_cell_and_not_at_the_first_snapshot(
    said, name
):
    says = said.criterion_says.sel(criterion=name, width=256, n_train=16)
    assert (says.sel(kimg=384) == 1).all()
    assert (says.sel(kimg=16) == 0).all()


@pytest.mark.parametrize("name", CRITERIA)
def test_a_number_on_its_level_is_not_memorizing(said, name):
    exact = said.assign(criterion_value=said.criterion_value * 0 + said.criterion_level)
    assert not (margins(exact).sel(criterion=name) > 0).any()


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_without_its_sources_is_absent(full, name):
    for source in CRITERIA[name].needs:
        left = readings(full.drop_vars(source)).criterion.values.tolist()
        assert name not in left
        assert len(left) > 5


def test_a_cube_without_any_source_has_no_criteria(full):
    assert not readings(full[["status"]]).data_vars


def test_a_cube_without_the_reference_that_a_criterion_compares_with_leaves_it_out(full):
    kept = full.isel(reference=[2, 3], flow_reference=[0])
    left = readings(kept).criterion.values.tolist()
    assert {"gaussian_rise", "gaussian_share", "flow"}.isdisjoint(left)


def test_missing_numbers_are_neither_memorizing_nor_not(full, said):
    where = dict(width=256, n_train=16, seed=0, draw=1, split="a", kimg=96)
    lost = readings(lose(full, **where))
    assert np.isnan(lost.criterion_value.sel(where)).all()
    assert (lost.criterion_says.sel(where) == -1).all()
    twins = ["twin_ratio", "twin_reproducibility"]
    assert (lost.criterion_says.sel(where | {"split": "b"}).sel(criterion=twins) == -1).all()
    same = lost.criterion_says.where(lost.criterion_says >= 0, said.criterion_says)
    np.testing.assert_array_equal(same, said.criterion_says)


def test_the_agreement_of_twins_stands_in_both_splits(said):
    for name in ("twin_ratio", "twin_reproducibility"):
        value = said.criterion_value.sel(criterion=name)
        np.testing.assert_array_equal(value.sel(split="a"), value.sel(split="b"))
        assert value.notnull().all()


def test_a_large_distance_before_the_gaussian_stage_is_lack_of_training():
    made = cube(images=16)
    own = made.denoiser_rmse.sel(inputs="heldout", reference="gaussian", sigma=0.47)
    assert (own.sel(kimg=16) > 1.5 * own.sel(kimg=48)).all()
    rise = readings(made).criterion_value.sel(criterion="gaussian_rise")
    assert (rise.sel(kimg=[16, 32, 48]) == 0).all()
    expected = own.sel(kimg=384) / own.min("kimg") - 1
    np.testing.assert_allclose(rise.sel(kimg=384), expected)


def test_a_run_that_still_approaches_the_gaussian_denoiser_has_not_memorized():
    made = cube(images=16, kimg=(16, 32, 48))
    assert (readings(made).criterion_says.sel(criterion="gaussian_rise") == 0).all()


def test_a_failed_snapshot_does_not_move_the_least_distance_of_other_trials(full, said):
    where = dict(width=256, n_train=16, seed=0, draw=1, split="a", kimg=48)
    lost = readings(lose(full, **where)).criterion_value.sel(criterion="gaussian_share")
    whole = said.criterion_value.sel(criterion="gaussian_share")
    assert np.isnan(lost.sel(where))
    np.testing.assert_array_equal(lost.sel(seed=1), whole.sel(seed=1))
    np.testing.assert_array_equal(lost.sel(draw=0), whole.sel(draw=0))


def test_a_perfect_gaussian_denoiser_does_not_divide_by_zero():
    made = cube(images=16)
    made["denoiser_rmse"] = made.denoiser_rmse * 0
    assert (readings(made).criterion_says.sel(criterion="gaussian_rise") != 1).all()


def test_the_first_criterion_says_what_the_memorized_fraction_says(full, said):
    says = said.criterion_says.sel(criterion="f_mem")
    np.testing.assert_array_equal(says, full.memorized_fraction > 0.05)
