import numpy as np
import pytest
import torch

from analyses import spectrum
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser
from analyses.sampler import sample
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import draw_points, make_specimen, make_subset, stream, wrapped

# --- variances ---


def test_the_variance_along_an_axis_is_that_of_the_projections():
    x = draw_points(50)
    basis = torch.linalg.qr(draw_points(6, seed=3))[0][:, :4]
    variance, _ = spectrum.variance_along(x, basis)
    expected = (x @ basis).var(0, correction=0)
    torch.testing.assert_close(variance[:4], expected)
    assert variance[4:].isnan().all() and variance.shape == (6,)


def test_the_training_points_have_their_eigenvalues_as_variances():
    subset = make_subset(n=40)
    variance, _ = spectrum.variance_along(subset.train, subset.moments.basis)
    torch.testing.assert_close(variance, subset.moments.eigenvalues)


def test_the_error_of_a_variance_is_the_textbook_one_for_normal_samples():
    z = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variance, se = spectrum.variance_along(2 * z, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(se, (2 / 19_999) ** 0.5 * variance, rtol=0.05, atol=0)


def test_the_error_of_a_variance_is_its_spread_where_samples_are_not_normal():
    eye = torch.eye(6, dtype=torch.float64)
    found = [spectrum.variance_along(draw_points(400, seed=s), eye) for s in range(200)]
    spread = torch.stack([variance for variance, _ in found]).std(0)
    error = torch.stack([se for _, se in found]).mean(0)
    torch.testing.assert_close(error, spread, rtol=0.25, atol=0)


def test_samples_of_a_gaussian_denoiser_have_the_known_excess_of_the_sampler():
    """T8b: 18 Heun steps stretch a mode by 1.127 at lam .001 to 1.032 at lam 10."""
    lam = torch.tensor([100.0, 10, 1, 0.1, 0.01, 0.001], dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)
    gaussian = GaussianDenoiser(Moments(torch.zeros(6, dtype=torch.float64), lam, eye))
    z = make_subset().latents(20)
    sampled, _ = spectrum.variance_along(sample(gaussian, z), eye)
    exact, _ = spectrum.variance_along(gaussian.flow(80 * z, 80.0, 0.0), eye)
    expected = torch.tensor([1.022, 1.032, 1.045, 1.064, 1.090, 1.127], dtype=torch.float64)
    torch.testing.assert_close((sampled / exact).sqrt(), expected, atol=1e-3, rtol=0)


def test_a_gaussian_denoiser_returns_the_training_spectrum():
    specimen = make_specimen("gaussian", n=40, samples=400, steps=60)
    result = spectrum.measure(specimen, modes=6)
    lam = specimen.moments.eigenvalues.numpy()
    error = np.abs(result.sample_variance - lam) / result.sample_variance_se
    assert float(error.max()) < 4
    assert float(result.sample_top_pc_overlap) == pytest.approx(1)
    assert float(result.sample_mean_distance) < 3 * float(result.sample_mean_noise)


def test_a_memorizing_denoiser_has_no_variance_off_the_training_points():
    result = spectrum.measure(make_specimen("empirical", n=4, samples=50))
    assert result.sample_variance.isnull().values.tolist() == [False] * 3 + [True] * 3
    assert float(result.sample_top_pc_overlap) == pytest.approx(1, abs=1e-8)


def test_a_denoiser_without_contrast_has_neither_variance_nor_axes():
    """Its samples are one image, at a known distance from the mean of the training points."""
    subset = make_subset()
    specimen = wrapped(subset, lambda y, sigma: subset.moments.mean.expand_as(y) + 2.0)
    result = spectrum.measure(specimen)
    assert result.sample_variance.values == pytest.approx(0, abs=1e-20)
    assert float(result.sample_mean_distance) == pytest.approx(2)
    assert float(result.sample_mean_distance_se) == pytest.approx(0, abs=1e-12)
    assert float(result.sample_top_pc_overlap) == 0


def test_the_noise_of_the_mean_is_what_samples_of_the_law_itself_show():
    mean = draw_points(200_000, seed=5).mean(0)
    found = [spectrum._shift(draw_points(50, seed=s + 10), mean) for s in range(300)]
    distances = [distance.square() for distance, _, _ in found]
    noises = [noise.square() for _, noise, _ in found]
    ratio = torch.stack(distances).mean() / torch.stack(noises).mean()
    assert float(ratio) == pytest.approx(1, abs=0.15)


def test_the_error_of_a_large_mean_distance_is_its_spread():
    far = torch.full((6,), 5.0, dtype=torch.float64)
    found = [spectrum._shift(draw_points(60, seed=s), far) for s in range(300)]
    spread = torch.stack([distance for distance, _, _ in found]).std()
    error = torch.stack([se for _, _, se in found]).mean()
    assert float(error) == pytest.approx(float(spread), rel=0.15)


def test_the_overlap_with_axes_that_samples_lack_is_nought():
    subset = make_subset(n=40)
    least = subset.moments.basis[:, -1:]
    specimen = wrapped(subset, lambda y, sigma: y @ least @ least.T)
    assert float(spectrum.measure(specimen, modes=3).sample_top_pc_overlap) < 1e-8


def test_the_reference_is_the_measure_of_an_oracle_in_the_denoisers_place():
    subset = make_subset()
    reference = spectrum.reference(subset, modes=2)
    for name in ("gaussian", "empirical"):
        own = spectrum.measure(Specimen.of_oracle(subset, name), modes=2)
        for of in own.data_vars:
            stem = of.removesuffix("_se")
            tagged = f"{stem}_{name}" + "_se" * of.endswith("_se")
            assert reference[tagged].equals(own[of].rename(tagged))


def test_no_modes_is_refused():
    with pytest.raises(ValueError, match="`modes` must be at least 1, got 0"):
        spectrum.measure(make_specimen("gaussian"), modes=0)


# --- emergence ---

TIMES = np.concatenate([[0.0], np.geomspace(0.01, 1000, 200)])


def linear_dynamics(lam, sigma=0.3, eta=0.5, start=0.1):
    """T14: variance of the outputs of a linear net under gradient flow, mode by mode.

    Its gain relaxes to the Wiener gain as exp(-2 eta tau (lam + sigma^2)).
    """
    rate = lam + sigma**2
    gain = lam / rate * (1 - (1 - start) * np.exp(-2 * eta * TIMES[:, None] * rate))
    return gain**2 * rate, (lam / rate) ** 2 * rate, rate


def test_modes_of_a_linear_denoiser_emerge_inversely_to_their_rate():
    """alpha = 1."""
    variance, target, rate = linear_dynamics(np.geomspace(0.05, 20, 12))
    low, high = spectrum.emergence(TIMES, variance, target)
    assert spectrum.emergence_exponent(rate, low, high) == pytest.approx(1, abs=0.01)
    # Half way in the logarithm: (1 - .9 e) = sqrt(.1).
    crossing = -np.log((1 - 0.1**0.5) / 0.9) / rate
    assert ((low < crossing) & (crossing <= high)).all()


def test_a_mode_that_has_to_fall_emerges_as_one_that_has_to_rise():
    rising = np.array([[1.0], [2.0], [5.0], [80.0]])
    up = spectrum.emergence(np.arange(4.0), rising, np.array([100.0]))
    down = spectrum.emergence(np.arange(4.0), 1 / rising, np.array([0.01]))
    assert up[0] == down[0] == 2 and up[1] == down[1] == 3


def test_modes_that_start_near_their_target_are_left_out():
    variance = np.array([[1.0, 1.0, 1.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    low, high = spectrum.emergence(np.array([0.0, 1.0]), variance, np.array([1.9, 2.1, 0.6, 1.0]))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False, True, True]


def test_a_mode_that_has_not_emerged_is_censored():
    low, high = spectrum.emergence(
        np.array([0.0, 1.0, 2.0]), np.array([[1.0], [1.5], [2.0]]), np.array([100.0])
    )
    assert float(low[0]) == 2 and np.isinf(high[0])


def test_the_first_crossing_counts_and_a_missing_snapshot_widens_it():
    variance = np.array([[1.0], [np.nan], [50.0], [2.0], [90.0]])
    low, high = spectrum.emergence(np.arange(5.0), variance, np.array([100.0]))
    assert (float(low[0]), float(high[0])) == (0, 2)


def test_too_few_emergences_give_no_exponent():
    nan, inf = np.nan, np.inf
    for low, high in ([[nan, nan], [nan, nan]], [[1.0, nan], [2.0, nan]], [[1.0, 4], [inf, inf]]):
        alpha = spectrum.emergence_exponent(np.array([1.0, 2]), np.array(low), np.array(high))
        assert np.isnan(alpha)


def test_times_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="`times` must increase, one for each row"):
        spectrum.emergence(np.array([0.0, 0.0]), np.ones((2, 1)), np.ones(1))


BASES = torch.eye(6).double().split([2, 4], dim=1)


def of_subspaces(x):
    """Samples `x` of data that are normal in two orthogonal subspaces of 2 and 4 dimensions."""
    pool = Moments.of_covariance(torch.zeros(6).double(), torch.eye(6).double())
    points = draw_points(10)
    subset = Subset(points, draw_points(24), pool, (0.5,), (1, 2, 3), stream, subspaces=BASES)
    return spectrum._subspaces(x, subset)


def test_a_subspace_is_whole_only_where_no_direction_of_it_is_missing():
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert of_subspaces(2 * x)["subspace_variance"].tolist() == pytest.approx([1, 1], abs=1e-9)
    assert of_subspaces(x)["subspace_variance"].tolist() == pytest.approx([1, 1], abs=0.05)
    x[:, 0] = 0  # one of two directions, however large the other
    x[:, 1] *= 2
    x[:, 2:4] *= 0.5**0.5  # half of the variance of two of four
    found = of_subspaces(x)
    assert found["subspace_variance"].tolist() == pytest.approx([0.5, 0.75], abs=0.05)
    assert found["subspace_dim"].tolist() == [2, 4]


def test_data_of_unknown_subspaces_have_no_share_of_them():
    assert not [name for name in spectrum.measure(make_specimen("gaussian")) if "subspace" in name]
