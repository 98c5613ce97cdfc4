import numpy as np
import pytest
import xarray as xr
from scipy.stats import kendalltau, spearmanr

from analyses.criteria import CRITERIA
from analyses.disagreement import disagreement, kendall, map_of_shares, spearman
from analyses.phase import phase
from tests.analyses.cubes import KIMG, cube, lose, measured


@pytest.fixture(scope="module")
def full():
    return measured(seed=(0, 1), images=16)


@pytest.fixture(scope="module")
def found(full):
    return phase(full)


def trials(times, seeds=1, draws=1, repeats=1):
    """A cube and its onset times, given as (criterion, repeat x width x seed x draw)."""
    times = np.asarray(times, float).reshape(len(times), repeats, -1, seeds, draws)
    coords = {
        "repeat": range(repeats),
        "width": np.arange(1.0, times.shape[2] + 1),
        "seed": range(seeds),
        "draw": range(draws),
    }
    coords = {k: list(v) for k, v in coords.items()}
    names = np.array([f"c{i}" for i in range(len(times))], object)
    made = xr.Dataset({"status": (tuple(coords), np.ones(times.shape[1:]))}, coords=coords)
    onset = xr.DataArray(times, dims=("criterion", *coords), coords={"criterion": names, **coords})
    says = xr.DataArray(
        np.ones((*times.shape, 1), np.int8), dims=(*onset.dims, "kimg"), coords=onset.coords
    )
    return made, xr.Dataset({"kimg_star_high": onset, "criterion_says": says})


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlations_are_those_of_scipy_with_never_as_a_tie_at_the_end(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 8, (3, 40)).astype(float)
    times[times > 6] = np.inf
    times[0, :3] = np.nan
    last = np.where(np.isinf(times), 99.0, times)
    for i in range(3):
        for j in range(3):
            known = ~np.isnan(last[i] + last[j])
            pair = last[i, known], last[j, known]
            assert spearman(times)[i, j] == pytest.approx(spearmanr(*pair).statistic)
            assert kendall(times)[i, j] == pytest.approx(kendalltau(*pair).statistic)


def test_only_the_order_of_the_onsets_counts():
    rng = np.random.default_rng(0)
    times = rng.integers(1, 9, (2, 30)).astype(float)
    for kind in (spearman, kendall):
        np.testing.assert_allclose(kind(times), kind(np.exp(times)))
        np.testing.assert_allclose(kind(times)[0, 1], -kind(times * [[1.0], [-1.0]])[0, 1])


def test_criteria_that_never_hold_order_nothing():
    times = np.array([[np.inf] * 5, [1.0, 2.0, 3.0, 4.0, np.inf]])
    for kind in (spearman, kendall):
        assert np.isnan(kind(times)[0]).all()
        assert kind(times)[1, 1] == pytest.approx(1)


def test_two_criteria_that_order_the_trials_alike_or_in_reverse_correlate_fully():
    made, found = trials([[1, 2, 4, 8], [10, 20, 30, np.inf], [8, 4, 2, 1]])
    at = disagreement(made, found)
    for name in ("criterion_rank_correlation", "criterion_kendall"):
        np.testing.assert_allclose(at[name].squeeze(), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
        assert at[f"{name}_low"].isnull().all()
    assert (at.criterion_n_cells == 4).all()


def test_trials_measured_by_one_criterion_alone_are_left_out():
    made, found = trials([[1, 2, 4, 8, np.nan], [1, np.nan, 2, 3, 0.5]])
    at = disagreement(made, found)
    np.testing.assert_array_equal(at.criterion_n_cells.squeeze(), [[4, 3], [3, 4]])
    assert at.criterion_rank_correlation[0, 1].item() == pytest.approx(1)


def test_the_interval_holds_the_correlation_of_many_replicates_as_often_as_it_says():
    # Onsets by two criteria: a common order, with noise of each trial, of each seed and each draw.
    def found(rng, seeds, draws, repeats):
        shape = (2, repeats, 8, seeds, draws)
        noise = sum(
            rng.standard_normal((*shape[:3], a, b))
            for a, b in ((seeds, draws), (seeds, 1), (1, draws))
        )
        times = np.round(np.arange(8.0)[:, None, None] + noise + 50)
        return disagreement(*trials(times, seeds, draws, repeats)).isel(
            criterion=0, criterion_other=1
        )

    rng = np.random.default_rng(10)
    for name in ("criterion_rank_correlation", "criterion_kendall"):
        truth = float(found(rng, 40, 40, 4)[name].mean())
        few = found(rng, 4, 3, 400)
        cover = float(((few[f"{name}_low"] <= truth) & (truth <= few[f"{name}_high"])).mean())
        assert 0.9 <= cover <= 0.99, (name, cover)


def test_the_map_is_the_share_of_the_criteria_that_say_memorizing():
    says = np.array([[1, 1, 0, -1], [1, 0, 0, -1], [1, -1, 0, -1], [1, 0, 0, -1]], np.int8)
    found = xr.Dataset({"criterion_says": (("criterion", "kimg"), says)})
    share = map_of_shares(found).criterion_disagreement
    np.testing.assert_allclose(share, [1, 1 / 3, 0, np.nan])


def test_all_criteria_agree_deep_inside_and_disagree_on_the_boundary(full, found):
    share = found.criterion_disagreement
    assert share.dims == (*found.tau_mem_low.dims, "kimg")
    assert (share.sel(width=256, n_train=16, kimg=KIMG[-1]) == 1).all()
    assert (share.sel(kimg=KIMG[0]) == 0).all()
    middle = share.sel(width=256, n_train=64, kimg=192)
    assert ((middle > 0) & (middle < 1)).all()


def test_criteria_made_from_the_same_onset_agree_more_than_one_that_follows_training_alone(found):
    at = found.criterion_rank_correlation.sel(split="a", criterion="f_mem")
    assert at.sel(criterion_other="psnr_gap") > 0.9
    assert at.sel(criterion_other="gaussian_rise") < at.sel(criterion_other="psnr_gap")
    assert at.sel(criterion_other="f_mem") == pytest.approx(1)
    both = found.criterion_rank_correlation.sel(split="a")
    np.testing.assert_allclose(both, both.transpose(), atol=1e-12)
    ends = found[["criterion_rank_correlation_low", "criterion_rank_correlation_high"]]
    assert (ends.criterion_rank_correlation_low <= found.criterion_rank_correlation + 1e-9).all()
    assert (ends.criterion_rank_correlation_high >= found.criterion_rank_correlation - 1e-9).all()


def test_a_lost_last_snapshot_leaves_the_other_trials_of_the_map(full, found):
    where = dict(width=256, n_train=16, seed=0, draw=1, split="a", kimg=384)
    lost = phase(lose(full, **where))
    assert np.isnan(lost.criterion_disagreement.sel(where))
    np.testing.assert_array_equal(
        lost.criterion_disagreement.sel(seed=1), found.criterion_disagreement.sel(seed=1)
    )


def test_without_criteria_there_is_nothing_to_compare():
    assert not disagreement(cube(images=8), xr.Dataset()).data_vars


def test_the_names_of_the_criteria_are_on_both_axes(found):
    for dim in ("criterion", "criterion_other"):
        assert found[dim].values.tolist() == list(CRITERIA)
