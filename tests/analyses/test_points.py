import pytest
import torch

from analyses import points
from tests.analyses.specimens import make_specimen, make_subset, wrapped


def test_every_sample_of_a_memorizing_denoiser_hits_a_point():
    found = points.measure(make_specimen("empirical", samples=50))
    assert int(found.point_hits.sum()) == 50
    assert (found.point_hits == found.point_nearest_hits).all()


def test_isolated_points_that_are_copied_give_an_area_of_one():
    subset = make_subset(n=10)
    distance = torch.cdist(subset.train, subset.train).fill_diagonal_(torch.inf).amin(1)
    far = subset.train[distance.argmax()]
    found = points.measure(wrapped(subset, lambda y, sigma: far.expand_as(y)))
    assert float(found.point_hits_auc) == 1
    assert int(found.point_hits.max()) == subset.sampler.samples


def test_nothing_copied_has_no_area():
    found = points.measure(make_specimen("gaussian_pool"), threshold=1e-9)
    assert int(found.point_hits.sum()) == 0 and found.point_hits_auc.isnull()


def test_the_area_counts_pairs_and_halves_ties():
    score = torch.tensor([3.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    positive = torch.tensor([True, False, True, False])
    value, se = points.auc(score, positive)
    assert float(value) == pytest.approx(3.5 / 4)
    assert 0 < float(se) < 0.5


def test_coverage_is_that_of_hand_placed_points():
    subset = make_subset(n=3)
    subset.train = torch.zeros(3, 6, dtype=torch.float64)
    subset.train[1, 0], subset.train[2, 0] = 1.0, 3.0
    found = points.reference(subset, scale=1.0)
    e = [torch.tensor(-(d**2) / 2).exp().item() for d in (1.0, 2.0, 3.0)]
    expected = [e[0] + e[2], e[0] + e[1], e[1] + e[2]]
    assert found.point_coverage.values == pytest.approx(expected)
    assert found.point_nearest_distance.values.tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="`scale` must be at least 0"):
        points.reference(subset, scale=-1.0)
