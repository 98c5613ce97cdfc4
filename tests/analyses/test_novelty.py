import pytest
import torch

from analyses import novelty
from tests.analyses.specimens import make_specimen, make_subset, wrapped


def shares(specimen, **options):
    found = novelty.measure(specimen, **options)
    return [float(found[name]) for name in novelty.NAMES]


def test_samples_of_the_empirical_denoiser_are_memorized():
    assert shares(make_specimen("empirical", m=200, samples=200)) == [1, 0, 0]


def test_samples_of_the_gaussian_of_the_pool_are_novel():
    memorized, spurious, novel = shares(make_specimen("gaussian_pool", m=200, samples=200))
    assert novel > 0.9 and memorized < 0.05 and spurious < 0.05


def test_copies_of_each_other_away_from_the_training_points_are_spurious():
    subset = make_subset(m=200, samples=100)
    place = subset.train.mean(0) + 5.0
    assert shares(wrapped(subset, lambda y, sigma: place.expand_as(y))) == [0, 1, 0]


def test_the_null_is_what_the_quantile_says():
    null = novelty.reference(make_subset(m=200, samples=200), quantile=0.1)
    assert float(null.memorized_label_fraction_null) == pytest.approx(0.1, abs=0.01)
    total = sum(float(null[f"{name}_null"]) for name in novelty.NAMES)
    assert total == pytest.approx(1)


def test_the_nearest_other_is_sought_among_as_many_as_allowed():
    x = torch.tensor([[0.0], [3.0], [1.0], [10.0]], dtype=torch.float64)
    assert novelty.nearest_other(x, 4).tolist() == [1, 2, 1, 7]
    assert novelty.nearest_other(x, 2).tolist() == [3, 2, 9, 10]
    with pytest.raises(ValueError, match=r"`size` must be in 2\.\.4, got 5"):
        novelty.nearest_other(x, 5)


def test_a_quantile_outside_of_zero_and_one_is_refused():
    with pytest.raises(ValueError, match=r"`quantile` must be in \(0, 1\), got 1"):
        novelty.measure(make_specimen("gaussian"), quantile=1.0)
