import pytest
import torch

from analyses import quality
from analyses.labels import Label
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def test_a_shift_is_as_far_as_its_projections():
    x = draw_points(50)
    shift = torch.tensor([3.0, 0, 0, 0, 0, 4.0], dtype=torch.float64)
    e = torch.eye(6, dtype=torch.float64)
    found = quality.sliced_wasserstein(x, x + shift, e)
    assert float(found) == pytest.approx((25 / 6) ** 0.5)
    assert float(quality.frechet(x, x + shift)) == pytest.approx(25)


def test_the_frechet_distance_of_scaled_points_is_known():
    """tr(C + 4 C - 2 * 2 C) = tr C about the mean."""
    x = draw_points(80)
    x = x - x.mean(0)
    assert float(quality.frechet(x, 2 * x)) == pytest.approx(float(x.square().sum() / 80))


def test_order_does_not_matter_and_equal_sets_are_at_distance_zero():
    x, theta = draw_points(30), torch.eye(6, dtype=torch.float64)
    again = x[torch.arange(29, -1, -1)]
    assert float(quality.sliced_wasserstein(x, again, theta)) == 0
    assert float(quality.frechet(x, again)) == pytest.approx(0, abs=1e-10)


def test_new_real_images_lie_at_the_floor_and_shifted_ones_do_not():
    subset = make_subset(m=400, samples=400)
    floor = quality.reference(subset)
    real = quality._distances(subset, draw_points(400, seed=7), 128, 16)
    for name in ("sliced_wasserstein", "frechet_pca"):
        excess = float(real[name]) - float(floor[f"{name}_floor"])
        assert abs(excess) < 3 * (float(real[f"{name}_se"]) + float(floor[f"{name}_floor_sd"]))
    far = quality._distances(subset, draw_points(400, seed=7) + 1.0, 128, 16)
    assert far["sliced_wasserstein"] > 2 * float(floor.sliced_wasserstein_floor)


def test_copies_of_few_points_are_worse_than_the_pool():
    few = quality.measure(make_specimen("empirical", n=3, m=200, samples=200))
    pool = quality.measure(make_specimen("gaussian_pool", n=3, m=200, samples=200))
    assert float(few.sliced_wasserstein) > 1.5 * float(pool.sliced_wasserstein)


def test_the_gaussian_reference_is_what_its_sampler_gives():
    subset = make_subset(m=200, samples=200, steps=80)
    bracket = quality.reference(subset)
    own = quality.measure(wrapped(subset, subset.gaussian))
    assert float(own.sliced_wasserstein) == pytest.approx(
        float(bracket.sliced_wasserstein_gaussian), rel=0.02
    )


def test_the_feature_space_is_named():
    found = quality.measure(make_specimen("gaussian"), features=3)
    assert "in 3 principal coordinates of the pool" in found.frechet_pca.attrs["long_name"]
    assert isinstance(quality.LABELS["frechet_pca"], Label)


@pytest.mark.parametrize("options", [{"directions": 0}, {"features": 0}])
def test_nothing_to_compare_is_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        quality.measure(make_specimen("gaussian"), **options)
