import numpy as np
import pytest
import torch

from analyses import posterior
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import SHAPE, make_specimen, make_subset, stream, wrapped

GRID = (80.0, 10.0, 2.0, 0.5, 0.1, 0.01)


def test_the_effective_number_is_the_exponential_of_the_entropy_along_the_path():
    specimen = make_specimen("gaussian", sigmas=GRID)
    result = posterior.measure(specimen)
    for sigma in GRID:
        y = specimen.path().at[sigma]
        logits = -torch.cdist(y, specimen.train).square() / (2 * sigma**2)
        w = logits.softmax(1)
        entropy = -torch.xlogy(w, w).sum(1)
        found = float(result.n_eff_path.sel(sigma=sigma))
        assert found == pytest.approx(float(entropy.exp().mean()), rel=1e-8)


def test_a_memorizing_denoiser_goes_from_all_points_to_one():
    result = posterior.measure(make_specimen("empirical", sigmas=GRID))
    assert float(result.n_eff_path.sel(sigma=80.0)) == pytest.approx(10, rel=0.01)
    assert float(result.n_eff_path.sel(sigma=0.01)) == pytest.approx(1, abs=1e-6)
    assert (result.n_eff_path.diff("sigma") < 0).all()
    assert (result.decision_sigma > 0.05).all()


def test_a_path_that_keeps_to_one_point_has_decided_where_it_comes_near_it():
    subset = make_subset(sigmas=(40.0, 0.01))
    specimen = wrapped(subset, lambda y, sigma: subset.train[3].expand_as(y))
    result = posterior.measure(specimen)
    # The path is a straight line to the point, and at large noise it may be nearer to another.
    assert (result.decision_sigma > 0).all()
    near = torch.cdist(specimen.path().at[40.0], subset.train).argmin(1) == 3
    assert near.any() and not near.all()
    expected = torch.where(near, 40.0, 0.01).double()
    assert result.decision_sigma.values == pytest.approx(expected.numpy())
    assert float(result.decision_sigma_median) == pytest.approx(float(expected.quantile(0.5)))


def test_the_order_of_the_listed_noise_levels_is_irrelevant():
    one, other = (
        posterior.measure(make_specimen("gaussian", sigmas=sigmas))
        for sigmas in (GRID, GRID[::-1])
    )
    assert (one.decision_sigma.values == other.decision_sigma.values).all()
    assert one.n_eff_path.values == pytest.approx(other.n_eff_path.values[::-1])


def test_a_change_below_the_smallest_level_is_not_decided():
    nearest = torch.tensor([[4, 4, 4], [5, 4, 4]])
    found = posterior.decided(nearest, torch.tensor([4, 4, 5]), torch.tensor([2.0, 1.0]))
    assert found.tolist() == [0, 2, 0]


def test_duplicates_of_a_training_point_are_one_point():
    subset = make_subset(sigmas=GRID)
    doubled = make_subset(sigmas=GRID)
    doubled.train = subset.train.repeat(2, 1)
    one, two = (
        posterior.measure(Specimen.of(s, subset.gaussian)).decision_sigma.values
        for s in (subset, doubled)
    )
    assert (one == two).all()


def test_the_reference_is_the_measure_of_a_memorizing_denoiser():
    subset = make_subset(sigmas=GRID)
    own = posterior.measure(Specimen.of_oracle(subset, "empirical"))
    reference = posterior.reference(subset)
    assert (reference.n_eff_path_empirical == own.n_eff_path).all()
    assert (reference.n_eff_path_empirical_se == own.n_eff_path_se).all()
    assert float(reference.decision_sigma_median_empirical) == float(own.decision_sigma_median)


def test_a_gaussian_cluster_collapses_where_theory_says():
    """T21: sigma_C^2 = s^2 / (N^{2/d} - 1), for the one variance s^2."""
    d, n, spread = 64, 400, 1.5
    z = torch.randn(n, d, generator=stream("cluster"), dtype=torch.float64)
    z = z - z.mean(0)
    points = z @ torch.linalg.cholesky(torch.linalg.inv(z.T @ z / n))  # covariance exactly 1
    other = make_subset(d=d)
    cluster = Subset(spread * points, other.heldout, other.pool, (0.5,), other.shape, stream)
    reference = posterior.reference(cluster)
    expected = spread / (n ** (2 / d) - 1) ** 0.5
    assert float(reference.collapse_sigma_gaussian) == pytest.approx(expected)
    # From the points: a mean of logarithms, which puts it above the population's.
    assert 1 < float(reference.collapse_sigma) / expected < 1.1
    assert float(reference.speciation_sigma) == pytest.approx((spread**2 - 1) ** 0.5)


def test_the_levels_of_theory_do_not_count_duplicates():
    subset = make_subset(n=20)
    doubled = Subset(subset.train.repeat(2, 1), subset.heldout, subset.pool, (0.5,), SHAPE, stream)
    one, two = posterior.reference(subset), posterior.reference(doubled)
    for name in ("speciation_sigma", "collapse_sigma", "collapse_sigma_gaussian"):
        assert float(one[name]) == pytest.approx(float(two[name]), nan_ok=True)


def test_nothing_is_evaluated_beside_the_samples():
    rows = []
    specimen = wrapped(make_subset(), lambda y, sigma: rows.append(len(y)) or y / (1 + sigma))
    specimen.samples()
    before = sum(rows)
    assert np.isfinite(posterior.measure(specimen).n_eff_path).all()
    assert sum(rows) == before
