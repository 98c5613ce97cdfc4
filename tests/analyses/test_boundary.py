import numpy as np
import pytest
import xarray as xr

from analyses.boundary import boundary, emm, kimg_star, n_star, tau_gen
from analyses.clocks import common_grid, cost, read_at
from analyses.criteria import readings
from analyses.phase import phase
from analyses.sharpness import sharpness
from tests.analyses.cubes import KIMG, N_TRAIN, cube, lose, measured, onset_kimg


@pytest.fixture(scope="module")
def full():
    return measured(seed=(0, 1), split=("a", "b"), images=32)


@pytest.fixture(scope="module")
def found(full):
    return boundary(full, readings(full))


def shares(f, n, kimg):
    """A cube of one trial per n_train whose memorized fraction is f (kimg, n_train)."""
    made = cube(width=(256,), n_train=n, draw=(0,), kimg=kimg, images=8, samples=8)
    values = np.asarray(f, float).T[None, :, None, None, None]
    return made.assign(memorized_fraction=(made.memorized_fraction.dims, values))


def test_the_boundary_of_f_mem_is_the_one_at_its_two_levels(full, found):
    old = phase(full[["memorized_fraction", "status"]])
    for name, level in (("f_mem", 0.05), ("f_mem_half", 0.5)):
        for end in ("low", "high", "monotone"):
            own = found[f"n_star_{end}"].sel(criterion=name)
            expected = old[f"n_boundary_{end}"].sel(level=level)
            np.testing.assert_array_equal(own, expected)


def test_the_onset_of_f_mem_is_tau_mem(full, found):
    old = phase(full[["memorized_fraction", "status"]])
    for end in ("low", "high", "censored"):
        own = found[f"kimg_star_{end}"].sel(criterion="f_mem")
        np.testing.assert_array_equal(own, old[f"tau_mem_{end}"])


@pytest.mark.parametrize(
    ("name", "at"), [("psnr_gap", 0.7), ("twin_ratio", 1.2), ("twin_reproducibility", 1.2)]
)
def test_onsets_hold_the_times_at_which_the_criteria_were_made_to_pass(found, name, at):
    for n in N_TRAIN:
        true = at * onset_kimg(256, n)
        row = found.sel(criterion=name, width=256, n_train=n)
        if true < 0.9 * KIMG[-1]:
            assert (row.kimg_star_low < 1.12 * true).all()
            assert (row.kimg_star_high > 0.88 * true).all()
        elif true > 1.15 * KIMG[-1]:
            assert (row.kimg_star_censored == 1).all()


def test_at_equal_epochs_the_same_cells_are_compared_as_at_their_own_kimg():
    # Doubling grids: every n_train has a snapshot at every number of epochs that it reached.
    kimg, n = (8, 16, 32, 64, 128), (16, 32, 64)
    f = np.random.default_rng(0).random((5, 3))
    made = shares(f, n, kimg)
    found = n_star(made, readings(made), "epochs")
    own = found.sel(criterion="f_mem_half").squeeze()
    np.testing.assert_allclose(own.epochs_grid, 125.0 * 2.0 ** np.arange(7))
    for e in own.epochs_grid.values:
        spent = [round(e * m / 1000) for m in n]
        at = [(i, kimg.index(t)) for i, t in enumerate(spent) if t in kimg]
        above = [n[i] for i, k in at if f[k, i] > 0.5]
        below = [n[i] for i, k in at if f[k, i] <= 0.5 and n[i] > max(above, default=0)]
        assert own.n_star_epochs_low.sel(epochs_grid=e) == max(above, default=0)
        assert own.n_star_epochs_high.sel(epochs_grid=e) == min(below, default=np.inf)


def test_a_cell_is_read_at_its_last_snapshot_and_never_beyond_its_last_or_before_its_first():
    array = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("n_train", "kimg"))
    spent = xr.DataArray([[10.0, 20.0, 40.0], [5.0, 10.0, 20.0]], dims=("n_train", "kimg"))
    taken = read_at(array, spent, np.array([4.0, 5, 9.9, 10, 19, 21, 40, 43]), "epochs_grid")
    nan = np.nan
    expected = [[nan, nan, 0, 0, 0, 1, 2, nan], [nan, 3, 4, 4, 4, 5, nan, nan]]
    np.testing.assert_array_equal(taken, expected)


def test_the_grid_covers_all_cells_evenly_on_a_log_scale(full):
    for clock in ("epochs", "flops"):
        spent = cost(full, clock)
        grid = common_grid(full, spent)
        assert grid[0] == spent.min()
        assert spent.max() / grid[-1] < grid[1] / grid[0]
        np.testing.assert_allclose(np.diff(np.log(grid)), np.log(grid[1] / grid[0]))
        assert len(grid) <= 24


def test_an_untrained_snapshot_has_no_place_on_the_grid():
    made = cube(kimg=(0, 16, 32), images=8)
    assert common_grid(made, cost(made, "epochs"))[0] == 16000 / 256
    assert np.isfinite(boundary(made, readings(made)).epochs_grid).all()


def test_a_cube_that_does_not_know_its_compute_has_no_boundary_at_equal_compute():
    made = cube(images=8)
    found = boundary(made, readings(made))
    assert "n_star_flops_low" not in found
    assert "n_star_epochs_low" in found


def test_curves_that_are_not_monotone_are_flagged_and_still_bounded():
    f = [[0, 0, 0], [0.9, 0, 0.9], [0, 0, 0], [0.9, 0, 0.9], [0.9, 0.9, 0.9]]
    made = shares(f, (16, 32, 64), (8, 16, 32, 64, 128))
    said = readings(made)
    time = kimg_star(made, said).sel(criterion="f_mem").squeeze()
    assert time.kimg_star_low.values.tolist() == [32, 64, 32]
    assert time.kimg_star_high.values.tolist() == [64, 128, 64]
    assert time.kimg_star_monotone.values.tolist() == [0, 1, 0]
    place = n_star(made, said).sel(criterion="f_mem").squeeze()
    assert place.n_star_low.values.tolist() == [0, 64, 0, 64, 64]
    assert place.n_star_monotone.values.tolist() == [1, 0, 1, 0, 1]


def test_tau_gen_is_the_first_snapshot_at_twice_the_floor_whatever_n_train(full, found):
    assert (found.tau_gen_low == 48).all()
    assert (found.tau_gen_high == 64).all()
    assert (found.tau_gen_censored == 0).all()
    assert found.tau_gen_high.attrs["level"] == pytest.approx(0.04)
    late = tau_gen(full.assign(sliced_wasserstein=full.sliced_wasserstein + 1))
    assert (late.tau_gen_censored == 1).all()
    assert (late.tau_gen_low == KIMG[-1]).all()


def test_the_level_of_tau_gen_is_the_same_for_all_trials_though_their_floors_differ(full):
    tilted = full.assign(
        sliced_wasserstein_floor=full.sliced_wasserstein_floor * (full.n_train / 64.0)
    )
    assert (tau_gen(tilted).tau_gen_high == 64).all()


def test_without_a_quality_there_is_no_tau_gen():
    assert not tau_gen(cube(images=8)).data_vars


def test_the_largest_memorized_n_train_is_read_at_equal_epochs_last_and_best():
    # At 1000 epochs: n = 16 at 16 kimg (1.0, after 0.9), n = 32 at 32 kimg (0.5, after 0.95).
    f = [[0.9, 0.2], [1.0, 0.95], [1.0, 0.5]]
    made = shares(f, (16, 32), (8, 16, 32))
    at = emm(made).squeeze().sel(epochs_grid=1000, method="nearest")
    assert (float(at.emm_last), float(at.emm_last_next)) == (16, 32)
    assert (float(at.emm_max), float(at.emm_max_next)) == (32, np.inf)
    assert emm(made).squeeze().emm_last.sel(epochs_grid=500, method="nearest") == 32


def test_the_best_snapshot_is_unknown_where_the_last_one_is():
    found = emm(shares([[0.9], [np.nan], [1.0]], (16,), (8, 16, 32))).squeeze()
    assert found.epochs_grid.values.round().tolist() == [500, 1000, 2000]
    np.testing.assert_array_equal(found.emm_max, [16, np.nan, 16])
    np.testing.assert_array_equal(found.emm_last, [16, np.nan, 16])


def test_the_transition_is_where_half_of_the_samples_are_copies(full):
    found = sharpness(full).sel(width=256, split="a")
    for kimg in (192, 256, 384):
        # f = 1/2 at t^3 = 19, that is at tau = kimg / 19^(1/3).
        n = (kimg / 19 ** (1 / 3) - 46) / 2.1
        at = found.sel(kimg=kimg)
        if 20 < n < 200:
            assert at.transition_success == 1
            assert at.transition_n50 == pytest.approx(n, rel=0.08)
            assert at.transition_n50_low < n < at.transition_n50_high
            assert at.transition_n90 < at.transition_n50 < at.transition_n10
    none = sharpness(full).sel(width=64)
    assert (none.transition_success == 0).all()
    assert (none.transition_n50_high == 16).all()


def test_a_lost_cell_leaves_all_other_boundaries_as_they_were(full, found):
    where = dict(width=256, n_train=64, seed=1, draw=0, split="a", kimg=192)
    made = lose(full, **where)
    lost = boundary(made, readings(made))
    for name, value in lost.data_vars.items():
        same = value if "width" not in value.dims else value.sel(width=[64, 128])
        np.testing.assert_array_equal(same, found[name].sel(same.coords.indexes), err_msg=name)
    before, after = (
        x.n_star_low.sel(criterion="f_mem", width=256, split="a") for x in (found, lost)
    )
    changed = before.where(before != after, drop=True)
    assert changed.sizes["kimg"] <= 1
