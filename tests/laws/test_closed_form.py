"""The closed forms behind the self-check: learning, cross-split distance, collapse."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chi2
from sklearn.datasets import load_digits

from analyses.collapse import collapse_sigma, collapse_sigma_gaussian, speciation_sigma
from analyses.cross_split import cross_split_mse, filter_variance
from analyses.laws.closed_form import (
    descend,
    descended,
    expected_fit_kl,
    flowed,
    gaussian_kl,
    large_sample_fit_kl,
    mean_gains,
    wiener_error,
)
from analyses.laws.draws import jacobians, normal, power_spectrum, skewed_points, stream
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser, kappa

POINTS = skewed_points(40, 6, 0)
MOMENTS = Moments.of_points(POINTS)
START = normal(stream(1), 6, 6)
LAM = power_spectrum(12)


# --- a linear net ---


def test_a_net_that_takes_no_step_stays_where_it_starts():
    torch.testing.assert_close(descended(MOMENTS, 0.5, START, 0.05, 0), START)
    torch.testing.assert_close(flowed(MOMENTS, 0.5, START, 0.0), START)


def test_endless_training_ends_at_the_wiener_filter_from_any_start():
    end = GaussianDenoiser(MOMENTS).weight(0.5)
    torch.testing.assert_close(descended(MOMENTS, 0.5, START, 0.05, 10**5), end)
    torch.testing.assert_close(flowed(MOMENTS, 0.5, START, 1e4), end)


def test_the_wiener_filter_is_a_fixed_point_of_training():
    end = GaussianDenoiser(MOMENTS).weight(0.5)
    torch.testing.assert_close(descend(POINTS, 0.5, end, 0.05, (50,))[0], end)


def test_a_mode_with_more_variance_is_learned_first():
    moments = Moments.of_covariance(torch.zeros(2), torch.diag(torch.tensor([2.0, 0.1])))
    start = torch.zeros(2, 2, dtype=torch.float64)
    early = flowed(moments, 0.5, start, 0.3).diagonal() / (torch.tensor([2.0 / 2.25, 0.1 / 0.35]))
    assert early[0] > 2 * early[1]


def test_training_does_not_depend_on_the_mean_of_the_points():
    torch.testing.assert_close(
        descend(POINTS + 5, 0.5, START, 0.05, (20,)), descend(POINTS, 0.5, START, 0.05, (20,))
    )


def test_snapshots_do_not_depend_on_the_horizon():
    short, long = (descend(POINTS, 0.5, START, 0.05, steps) for steps in ((5,), (5, 30)))
    assert torch.equal(short[0], long[0])


# --- few points ---


def test_the_mean_gain_of_one_mode_is_an_integral_over_chi_square():
    n, lam = 8, 1.5
    gain = lambda q: lam * q / n / (lam * q / n + 0.25) * chi2.pdf(q, n)  # noqa: E731
    found = mean_gains(torch.tensor([lam], dtype=torch.float64), n, 0.5, 4000, stream(0))
    assert float(found) == pytest.approx(quad(gain, 0, 100)[0], abs=0.005)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_with_many_points_the_divergence_is_half_the_parameters_over_n(d):
    n = 10**5
    assert expected_fit_kl(d, n) == pytest.approx(large_sample_fit_kl(d, n), rel=1e-3)


def test_the_expected_divergence_falls_as_points_are_added():
    found = [expected_fit_kl(16, n) for n in (19, 20, 40, 1000, 10**6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0


def test_too_few_points_have_no_expected_divergence():
    with pytest.raises(ValueError, match="n > d \\+ 2, got n=18 and d=16"):
        expected_fit_kl(16, 18)


def test_a_gaussian_does_not_diverge_from_itself_and_infinitely_from_a_degenerate_fit():
    exact = Moments.of_covariance(torch.zeros(5), torch.eye(5))
    assert gaussian_kl(exact) == pytest.approx(0, abs=1e-14)
    assert gaussian_kl(Moments.of_points(normal(stream(0), 5, 5))) == math.inf


def test_the_divergence_of_one_dimension_is_that_of_the_textbook():
    fit = Moments.of_covariance(torch.tensor([0.3]), torch.tensor([[1.7]]))
    assert gaussian_kl(fit) == pytest.approx((1.09 / 1.7 - 1 + math.log(1.7)) / 2, rel=1e-6)


def test_the_error_of_the_wiener_filter_is_sigma_squared_times_the_trace_of_its_jacobian():
    moments = Moments.of_covariance(torch.zeros(12), torch.diag(LAM))
    trace = jacobians(GaussianDenoiser(moments), normal(stream(0), 1, 12), 0.5)[0].trace()
    assert wiener_error(LAM, 0.5) == pytest.approx(0.25 * float(trace))


# --- disjoint draws ---


def test_the_cross_split_error_is_twice_the_variance_summed_over_outputs():
    x = normal(stream(0), 7, 12)
    basis = torch.eye(12, dtype=torch.float64)
    total = sum(filter_variance(LAM, 20, 0.5, v.expand(7, 12), x) for v in basis)
    torch.testing.assert_close(cross_split_mse(LAM, 20, 0.5, x), 2 * total)


def test_the_second_term_doubles_the_variance_along_the_input():
    x = normal(stream(0), 1, 12)
    weight = LAM / (LAM + kappa(LAM, 20, 0.5)) ** 2
    other = normal(stream(1), 1, 12)
    # `other` made orthogonal to x under Q, and as long as x.
    other = other - (other * weight) @ x.T / ((x * weight) @ x.T) * x
    other = other * (((x * weight) @ x.T) / ((other * weight) @ other.T)).sqrt()
    along, across = (filter_variance(LAM, 20, 0.5, v, x) for v in (x, other))
    torch.testing.assert_close(along, 2 * across)


def test_filters_of_many_points_agree_as_one_over_n():
    x = normal(stream(0), 7, 12)
    one, two = (cross_split_mse(LAM, n, 0.5, x) for n in (10**5, 10**6))
    torch.testing.assert_close(one / two, torch.full_like(one, 10), rtol=1e-3, atol=0)


def test_an_estimated_mean_adds_to_the_error_even_at_the_mean():
    x = torch.zeros(1, 12, dtype=torch.float64)
    assert float(cross_split_mse(LAM, 20, 0.5, x)) == 0
    assert float(cross_split_mse(LAM, 20, 0.5, x, known_mean=False)) > 0


def test_filters_of_no_points_are_refused():
    with pytest.raises(ValueError, match="n >= 1 and sigma > 0"):
        cross_split_mse(LAM, 0, 0.5, normal(stream(0), 1, 12))


# --- speciation and collapse ---


def test_without_a_wide_direction_there_is_no_speciation():
    assert math.isnan(speciation_sigma(torch.tensor([0.9, 0.1])))
    assert math.isnan(speciation_sigma(torch.zeros(0)))
    assert speciation_sigma(torch.tensor([1.0])) == 0


@pytest.mark.parametrize("n", [2, 100, 10**6])
@pytest.mark.parametrize("d", [1, 2, 64])
def test_one_variance_collapses_where_the_closed_form_says(n, d):
    found = collapse_sigma_gaussian(torch.full((d,), 2.25, dtype=torch.float64), n)
    assert found == pytest.approx(1.5 / math.sqrt(n ** (2 / d) - 1), rel=1e-10)


def test_at_the_collapse_the_gaussian_information_is_the_logarithm_of_n():
    sigma = collapse_sigma_gaussian(LAM, 50)
    assert float((1 + LAM / sigma**2).log().sum() / 2) == pytest.approx(math.log(50), rel=1e-12)


@pytest.mark.parametrize(("n", "expected"), [(32, 1.46), (256, 1.09), (1024, 0.94)])
def test_the_collapse_of_digits_is_found_again(n, expected):
    lam = Moments.of_points(torch.tensor(load_digits().data / 8 - 1)).eigenvalues
    assert collapse_sigma_gaussian(lam, n) == pytest.approx(expected, abs=0.006)


def test_one_point_or_no_variance_has_no_collapse():
    assert math.isnan(collapse_sigma_gaussian(LAM, 1))
    assert math.isnan(collapse_sigma_gaussian(torch.zeros(3), 10))
    assert math.isnan(collapse_sigma_gaussian(torch.zeros(0), 10))
    assert math.isnan(collapse_sigma(POINTS[:2], stream(0)))
    assert math.isnan(collapse_sigma(torch.zeros(5, 3), stream(0)))
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        collapse_sigma_gaussian(LAM, 0)


def test_points_that_are_all_duplicated_never_collapse():
    assert math.isnan(collapse_sigma(POINTS.repeat(2, 1), stream(0)))


def test_at_the_collapse_a_point_weighs_as_much_as_all_others():
    """The same draws, weighed one by one under the density of the noisy points."""
    sigma = collapse_sigma(POINTS, stream(3))
    generator = stream(3)
    own = torch.randperm(40, generator=generator)
    logs = []
    for i, eps in zip(own, normal(generator, 40, 6), strict=True):
        weights = (-(POINTS[i] + sigma * eps - POINTS).square().sum(1) / (2 * sigma**2)).exp()
        logs.append(float(((weights.sum() - weights[i]) / weights[i]).log()))
    assert sum(logs) / 40 == pytest.approx(0, abs=1e-9)


def test_the_collapse_scales_with_the_points_and_ignores_their_place():
    sigma = collapse_sigma(POINTS, stream(3))
    assert collapse_sigma(3 * POINTS, stream(3)) == pytest.approx(3 * sigma)
    assert collapse_sigma(POINTS + 7, stream(3)) == pytest.approx(sigma)


def test_more_points_collapse_later():
    points = normal(stream(0), 2000, 32)
    found = [collapse_sigma(points[:n], stream(1)) for n in (30, 200, 2000)]
    assert found == sorted(found, reverse=True)


def test_a_subset_of_inputs_finds_the_same_collapse_up_to_its_draws():
    points = normal(stream(0), 1000, 64)
    whole, part = (collapse_sigma(points, stream(1), inputs=inputs) for inputs in (1000, 200))
    assert part == pytest.approx(whole, rel=0.1)


def test_a_second_cluster_far_away_does_not_change_where_points_collapse():
    points = normal(stream(0), 40, 8)
    alone = collapse_sigma(points, stream(1))
    both = collapse_sigma(torch.cat([points, points.flip(0) + 1000]), stream(1))
    assert both == pytest.approx(alone, rel=0.15)
