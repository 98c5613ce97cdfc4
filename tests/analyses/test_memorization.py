import pytest
import torch
from scipy.stats import ks_2samp

from analyses import memorization, nearest, samples
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def test_the_two_nearest_points_are_those_of_a_full_search():
    x, points = draw_points(50, seed=4), draw_points(30)
    near = nearest.nearest_two(x, points)
    distance, index = torch.cdist(x, points).sort(1)
    torch.testing.assert_close(near.first, distance[:, 0])
    torch.testing.assert_close(near.second, distance[:, 1])
    assert torch.equal(near.index, index[:, 0])


def test_a_copy_is_at_distance_zero_exactly():
    points = 100 + draw_points(30)
    assert (nearest.nearest_two(points, points).first == 0).all()


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, points = draw_points(50, seed=4), draw_points(30)
    whole = nearest.nearest_two(x, points)
    monkeypatch.setattr(nearest, "ROWS", 200)
    for a, b in zip(nearest.nearest_two(x, points), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_one_point_has_no_second_neighbour():
    with pytest.raises(ValueError, match="at least 2 distinct points, got 1"):
        nearest.nearest_two(draw_points(3), draw_points(1))


def test_training_points_that_are_all_the_same_are_an_error():
    subset = make_subset()
    subset.train = subset.train[:1].repeat(5, 1)
    with pytest.raises(ValueError, match="at least 2 distinct points, got 1"):
        memorization.reference(subset)


@pytest.mark.parametrize(("distance", "memorized"), [(0.2, 1.0), (0.25, 0.0), (0.3, 0.0)])
def test_a_third_is_meant_of_distances_not_of_their_squares(distance, memorized):
    """On a segment of length 1: r = t / (1 - t), which is 1/3 at t = 1/4."""
    subset = make_subset(n=2)
    a, b = subset.train
    place = a + distance * (b - a)
    specimen = wrapped(subset, lambda y, sigma: place.expand_as(y))
    found = memorization.measure(specimen, threshold=1 / 3 - 1e-9)
    assert float(found.memorized_fraction) == memorized
    assert found.nearest_ratio.values == pytest.approx(distance / (1 - distance), rel=1e-6)
    assert float(found.memorization_auc) == pytest.approx(1 - distance / (1 - distance))
    score = distance * float((b - a).norm() / place.norm())
    assert float(found.generalization_score) == pytest.approx(score)


def test_the_interval_is_wide_where_nothing_was_found():
    found = memorization.measure(make_specimen("gaussian_pool", samples=30), threshold=1e-6)
    assert float(found.memorized_fraction) == float(found.memorized_fraction_low) == 0
    assert float(found.memorized_fraction_high) == pytest.approx(1.96**2 / (30 + 1.96**2))


def test_the_gaussian_null_is_what_the_sampler_of_the_gaussian_denoiser_converges_to():
    null = memorization.reference(make_subset(n=3, samples=200))
    found = memorization.measure(make_specimen("gaussian", n=3, samples=200, steps=160))
    assert float(null.memorized_fraction_null_gaussian) > 0.05
    assert float(found.memorized_fraction) == pytest.approx(
        float(null.memorized_fraction_null_gaussian), abs=0.02
    )


def test_the_share_says_which_threshold_it_counts():
    found = memorization.measure(make_specimen("gaussian"), threshold=0.25)
    assert found.memorized_fraction.attrs["long_name"].endswith("nearest_ratio below 0.25")
    null = memorization.reference(make_subset())
    name = null.memorized_fraction_null_gaussian.attrs["long_name"]
    assert "below 0.3333, of samples of the Gaussian denoiser" in name


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5])
def test_a_threshold_outside_of_zero_and_one_is_refused(threshold):
    for function in (memorization.measure, memorization.reference):
        with pytest.raises(ValueError, match=r"`threshold` must be in \(0, 1\)"):
            function(make_specimen("gaussian"), threshold=threshold)


def test_the_samples_stored_are_those_that_are_counted():
    specimen = make_specimen("empirical", samples=30)
    stored = samples.measure(specimen).samples
    found = memorization.measure(specimen)
    assert stored.shape == (30, 6)
    nearest = specimen.train[found.nearest_index.values]
    distance = (torch.tensor(stored.values) - nearest).norm(dim=1)
    assert distance.tolist() == pytest.approx(found.nearest_distance.values.tolist(), abs=1e-6)


def test_a_cube_is_told_how_many_samples_to_show():
    assert samples.measure(make_specimen("gaussian")).samples.attrs["shown"] == "64"


def test_points_that_are_nearly_the_same_count_as_one():
    subset = make_subset(n=10)
    twins = subset.train + 1e-4
    subset.train = torch.cat([subset.train, twins])
    specimen = wrapped(subset, subset.empirical)
    apart = memorization.measure(specimen)
    assert float(apart.memorized_fraction) < 0.5
    one = memorization.measure(specimen, same_distance=0.01)
    assert float(one.memorized_fraction) == 1
    assert int(memorization.reference(subset, same_distance=0.01).n_distinct) == 10


def test_memorization_beyond_the_null_is_all_of_it_for_copies_and_none_for_held_out_images():
    copies = memorization.measure(make_specimen("empirical", m=200, samples=200))
    assert float(copies.memorized_excess) > 0.8
    assert float(copies.memorized_excess_low) > 0.5
    assert float(copies.nearest_ratio_ks_pvalue) < 1e-6
    assert float(copies.nearest_distance_ratio) < 1e-3
    subset = make_subset(n=30, m=200, samples=200)
    near = nearest.near_heldout(subset, nearest.Sameness())
    same = memorization._excess(near, (near,), 1 / 3) | memorization._against(near, near)
    assert float(same["memorized_excess"]) == 0
    assert float(same["memorized_excess_low"]) < 0 < float(same["memorized_excess_high"])
    assert float(same["nearest_ratio_ks_pvalue"]) == 1
    assert float(same["nearest_distance_ratio"]) == 1
    assert float(same["memorization_auc_excess"]) == 0


def test_the_test_of_smaller_ratios_is_that_of_scipy():
    x, null = draw_points(200)[:, 0], draw_points(150, seed=3)[:, 0] + 0.3
    statistic, pvalue = memorization.ks_smaller(x, null)
    known = ks_2samp(x.numpy(), null.numpy(), alternative="greater", method="asymp")
    assert float(statistic) == pytest.approx(known.statistic)
    assert float(pvalue) == pytest.approx(known.pvalue, rel=0.3)


@pytest.mark.parametrize(("n", "flag"), [(7, 1), (8, 0)])
def test_few_points_are_flagged(n, flag):
    assert int(memorization.reference(make_subset(n=n)).small_n_flag) == flag
