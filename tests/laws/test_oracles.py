"""Laws of the closed-form denoisers and of the sampler."""

import math
from itertools import pairwise

import pytest
import torch

from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser, KappaDenoiser, kappa, kappa_hat
from analyses.sampler import SIGMA_MAX, edm_grid, sample
from tests.analyses.specimens import draw_points

POINTS = draw_points(40)
MOMENTS = Moments.of_points(POINTS)
INPUTS = draw_points(15, seed=7)


def diagonal(spectrum, mean=0.0):
    values = torch.tensor(spectrum, dtype=torch.float64)
    return Moments.of_covariance(torch.full_like(values, mean), torch.diag(values))


def near(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_the_gaussian_denoiser_leaves_the_mean_in_place(sigma):
    mean = MOMENTS.mean[None]
    near(GaussianDenoiser(MOMENTS)(mean, sigma), mean)


def test_without_noise_the_gaussian_denoiser_is_the_identity_at_full_rank():
    near(GaussianDenoiser(MOMENTS)(INPUTS, 1e-8), INPUTS)


def test_without_noise_the_gaussian_denoiser_projects_on_the_span_of_few_points():
    few = Moments.of_points(POINTS[:4])
    projected = few.mean + (INPUTS - few.mean) @ few.basis @ few.basis.T
    near(GaussianDenoiser(few)(INPUTS, 1e-8), projected)


@pytest.mark.parametrize("oracle", [GaussianDenoiser(MOMENTS), EmpiricalDenoiser(POINTS)])
def test_under_huge_noise_every_output_is_the_mean(oracle):
    near(oracle(INPUTS, 1e8), MOMENTS.mean.expand_as(INPUTS), 1e-10)


def test_without_noise_the_empirical_denoiser_returns_the_nearest_point():
    nearest = POINTS[torch.cdist(INPUTS, POINTS).argmin(1)]
    near(EmpiricalDenoiser(POINTS)(INPUTS, 1e-4), nearest)


def test_at_small_noise_the_empirical_denoiser_leaves_its_points_in_place():
    near(EmpiricalDenoiser(POINTS)(POINTS, 0.02), POINTS)


def test_the_empirical_denoiser_approaches_the_gaussian_one_as_noise_grows():
    def gap(sigma):
        y = INPUTS + sigma * torch.randn(INPUTS.shape, generator=torch.Generator().manual_seed(3))
        return (EmpiricalDenoiser(POINTS)(y, sigma) - GaussianDenoiser(MOMENTS)(y, sigma)).norm()

    gaps = [float(gap(sigma)) for sigma in (1.0, 10.0, 100.0, 1000.0)]
    assert all(after < before / 5 for before, after in pairwise(gaps)), gaps


@pytest.mark.parametrize("n", [2, 5, 6, 7])
def test_few_generic_points_have_one_eigenvalue_less_than_points(n):
    assert Moments.of_points(draw_points(n, 12)).rank == n - 1


def test_constant_pixels_have_no_variance_and_leave_the_rank():
    points = draw_points(50)
    points[:, 2] = 0.1
    assert Moments.of_points(points).rank == 5
    assert Moments.of_points(points[:4]).rank == 3


def test_at_zero_noise_the_distance_to_the_gaussian_denoiser_is_the_missing_rank():
    few = Moments.of_points(POINTS[:4])
    missing = (INPUTS - few.mean) - (INPUTS - few.mean) @ few.basis @ few.basis.T
    rmse = (INPUTS - GaussianDenoiser(few)(INPUTS, 1e-9)).norm(dim=1).mean()
    near(rmse, missing.norm(dim=1).mean())


def test_the_singular_values_of_the_gaussian_weight_are_its_gains():
    gains = MOMENTS.eigenvalues / (MOMENTS.eigenvalues + 0.25)
    near(torch.linalg.svdvals(GaussianDenoiser(MOMENTS).weight(0.5)), gains)


def test_the_gaussian_denoiser_is_its_weight_and_bias():
    oracle = GaussianDenoiser(MOMENTS)
    near(oracle(INPUTS, 0.5), INPUTS @ oracle.weight(0.5).T + oracle.bias(0.5))


@pytest.mark.parametrize("oracle", [GaussianDenoiser(MOMENTS), EmpiricalDenoiser(POINTS)])
def test_the_jacobian_of_a_posterior_mean_is_symmetric_and_positive(oracle):
    jacobian = torch.autograd.functional.jacobian(lambda y: oracle(y[None], 0.5)[0], INPUTS[0])
    near(jacobian, jacobian.T, 1e-10)
    assert torch.linalg.eigvalsh(jacobian).min() > -1e-10


def test_the_jacobian_of_the_empirical_denoiser_is_the_posterior_covariance():
    y, sigma = INPUTS[0], 0.5
    jacobian = torch.autograd.functional.jacobian(
        lambda y: EmpiricalDenoiser(POINTS)(y[None], sigma)[0], y
    )
    w = torch.softmax(-(y - POINTS).square().sum(1) / (2 * sigma**2), 0)
    centred = POINTS - w @ POINTS
    near(jacobian, (w[:, None] * centred).T @ centred / sigma**2, 1e-10)


def test_the_jacobian_of_the_gaussian_denoiser_is_its_weight():
    oracle = GaussianDenoiser(MOMENTS)
    jacobian = torch.autograd.functional.jacobian(lambda y: oracle(y[None], 0.5)[0], INPUTS[0])
    near(jacobian, oracle.weight(0.5))


def test_the_squared_error_of_the_optimum_is_predicted_without_the_clean_image():
    """SURE: E|D - x|^2 = E|D - y|^2 + 2 sigma^2 E tr J - d sigma^2, for D_G."""
    sigma, d = 0.5, 6
    noise = torch.randn(
        200_000, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x = POINTS[torch.arange(200_000) % len(POINTS)]
    y = x + sigma * noise
    oracle = GaussianDenoiser(MOMENTS)
    out = oracle(y, sigma)
    sure = (out - y).square().sum(1).mean() + sigma**2 * (2 * oracle.weight(sigma).trace() - d)
    assert float(sure) == pytest.approx(float((out - x).square().sum(1).mean()), rel=0.01)


@pytest.mark.parametrize("block", [1, 7, 39])
def test_the_empirical_denoiser_does_not_depend_on_its_blocks(block):
    for sigma in (0.01, 0.3, 3.0):
        whole, parts = EmpiricalDenoiser(POINTS), EmpiricalDenoiser(POINTS, block)
        near(parts(INPUTS, sigma), whole(INPUTS, sigma))
        near(parts.n_eff(INPUTS, sigma), whole.n_eff(INPUTS, sigma), 1e-9)


def test_a_mean_of_softmaxes_of_blocks_is_another_denoiser():
    whole = EmpiricalDenoiser(POINTS)(INPUTS, 0.3)
    halves = [EmpiricalDenoiser(half)(INPUTS, 0.3) for half in POINTS.chunk(2)]
    assert (torch.stack(halves).mean(0) - whole).abs().max() > 0.1


def test_the_posterior_entropy_counts_the_points_that_share_an_output():
    oracle = EmpiricalDenoiser(POINTS)
    near(oracle.n_eff(POINTS, 1e-4), torch.ones(40, dtype=torch.float64))
    near(oracle.n_eff(POINTS, 1e8), torch.full((40,), 40, dtype=torch.float64), 1e-6)
    w = torch.softmax(-torch.cdist(INPUTS, POINTS).square() / 0.5, 1)
    near(oracle.n_eff(INPUTS, 0.5), (-(w * w.log()).sum(1)).exp(), 1e-10)


@pytest.mark.parametrize("block", [-1, 0])
def test_an_empty_block_is_refused(block):
    with pytest.raises(ValueError, match="`block` must be at least 1"):
        EmpiricalDenoiser(POINTS, block)


# --- kappa ---


@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.5, 80.0])
@pytest.mark.parametrize("n", [1, 16, 10_000])
def test_kappa_solves_its_equation_inside_its_bracket(sigma, n):
    lam = MOMENTS.eigenvalues
    root = kappa(lam, n, sigma)
    # A floating-point root of a sum of these sizes: relative to kappa itself.
    assert root - sigma**2 == pytest.approx(
        float(root / n * (lam / (lam + root)).sum()), rel=1e-9, abs=1e-12 * root
    )
    assert sigma**2 <= root <= sigma**2 + float(lam.sum()) / n * (1 + 1e-9)


def test_kappa_falls_to_the_noise_variance_as_points_are_added():
    roots = [kappa(MOMENTS.eigenvalues, n, 0.5) for n in (4, 16, 64, 10**9)]
    assert roots == sorted(roots, reverse=True)
    assert roots[-1] == pytest.approx(0.25, rel=1e-8)


def test_with_endless_points_the_kappa_denoiser_is_the_gaussian_one_of_the_pool():
    near(
        KappaDenoiser(MOMENTS, 10**12)(INPUTS, 0.5), GaussianDenoiser(MOMENTS)(INPUTS, 0.5), 1e-10
    )


@pytest.fixture(scope="module")
def gains():
    """Mean over 400 samples of the gain of the N-point filter in the population's basis."""
    d = 64
    lam = 2.8 * torch.arange(1, d + 1, dtype=torch.float64) ** -1.3
    generator = torch.Generator().manual_seed(0)

    def mean_gain(n, sigmas):
        total = torch.zeros(len(sigmas), d, dtype=torch.float64)
        for _ in range(400):
            x = torch.randn(n, d, generator=generator, dtype=torch.float64) * lam.sqrt()
            values, vectors = torch.linalg.eigh(x.T @ x / n)
            values = values.clamp(min=0)
            for row, sigma in zip(total, sigmas, strict=True):
                row += vectors.square() @ (values / (values + sigma**2))
        return total / 400

    return lam, {n: mean_gain(n, (0.5, 0.1)) for n in (16, 64, 256)}


@pytest.mark.parametrize(
    ("n", "sigma", "error", "naive_error"),
    [
        (16, 0.5, 0.013, 0.180),
        (64, 0.5, 0.005, 0.051),
        (256, 0.5, 0.002, 0.014),
        (16, 0.1, 0.021, 0.62),
        (64, 0.1, 0.009, 0.23),
        (256, 0.1, 0.002, 0.05),
    ],
)
def test_kappa_predicts_the_mean_gain_far_better_than_the_noise_variance(
    gains, n, sigma, error, naive_error
):
    lam, measured = gains
    measured = measured[n][(0.5, 0.1).index(sigma)]
    gap = (measured - lam / (lam + kappa(lam, n, sigma))).abs().max()
    naive = (measured - lam / (lam + sigma**2)).abs().max()
    assert gap < 1.5 * error + 0.001
    assert naive == pytest.approx(naive_error, rel=0.1)
    assert naive > 5 * gap


@pytest.mark.parametrize("n", [16, 64, 256])
def test_kappa_can_be_estimated_from_one_sample(n):
    d = 64
    lam = 2.8 * torch.arange(1, d + 1, dtype=torch.float64) ** -1.3
    generator = torch.Generator().manual_seed(1)
    guesses = []
    for _ in range(30):
        x = torch.randn(n, d, generator=generator, dtype=torch.float64) * lam.sqrt()
        guesses.append(kappa_hat(torch.linalg.eigvalsh(x.T @ x / n).clamp(min=0), n, 0.5))
    assert sum(guesses) / 30 == pytest.approx(kappa(lam, n, 0.5), rel=0.02)


def test_kappa_needs_points_and_noise():
    with pytest.raises(ValueError, match="n >= 1 and sigma > 0"):
        kappa(MOMENTS.eigenvalues, 0, 0.5)


# --- the probability flow ---


def test_the_exact_flow_of_the_gaussian_denoiser_composes_and_is_undone():
    oracle = GaussianDenoiser(Moments.of_points(POINTS[:4]))
    once = oracle.flow(INPUTS, 5.0, 0.1)
    near(oracle.flow(oracle.flow(INPUTS, 5.0, 1.0), 1.0, 0.1), once)
    near(oracle.flow(once, 0.1, 5.0), INPUTS, 1e-10)


def test_the_exact_flow_solves_its_equation():
    oracle, step = GaussianDenoiser(Moments.of_points(POINTS[:4])), 1e-5
    slope = (oracle.flow(INPUTS, 1.0, 1 + step) - oracle.flow(INPUTS, 1.0, 1 - step)) / (2 * step)
    near(slope, INPUTS - oracle(INPUTS, 1.0), 1e-8)


def multipliers(spectrum, steps, solver):
    """Final scale of each mode under the sampler, over that of the exact flow."""
    oracle = GaussianDenoiser(diagonal(spectrum))
    latents = torch.ones(1, len(spectrum), dtype=torch.float64)
    return (
        sample(oracle, latents, steps, solver) / oracle.flow(SIGMA_MAX * latents, SIGMA_MAX, 0.0)
    )[0]


@pytest.mark.parametrize(("steps", "error"), [(40, 0.016), (80, 0.0035), (160, 0.0007)])
def test_heun_converges_to_the_exact_flow_at_second_order(steps, error):
    spectrum = [10**exponent for exponent in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)]
    assert (multipliers(spectrum, steps, "heun") - 1).abs().max() == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize(
    ("steps", "solver", "expected"),
    [
        (10, "euler", [0.634, 0.674, 0.712, 0.751, 0.785, 0.816, 0.856]),
        (40, "euler", [0.896, 0.912, 0.925, 0.936, 0.946, 0.954, 0.965]),
        (18, "heun", [1.127, 1.090, 1.064, 1.045, 1.032, 1.022, 1.013]),
    ],
)
def test_few_steps_change_the_scale_of_each_mode_by_known_factors(steps, solver, expected):
    found = multipliers([0.001, 0.01, 0.1, 1, 10, 100, 1000], steps, solver)
    assert found.tolist() == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_a_sample_is_the_last_denoised_output(solver):
    outputs = []

    def denoiser(y, sigma):
        outputs.append(EmpiricalDenoiser(POINTS)(y, sigma))
        return outputs[-1]

    samples = sample(denoiser, INPUTS, 5, solver)
    assert torch.equal(samples, outputs[-1])
    assert len(outputs) == (9 if solver == "heun" else 5)


def test_samples_of_the_empirical_denoiser_are_training_points():
    samples = sample(EmpiricalDenoiser(POINTS), INPUTS)
    near(torch.cdist(samples, POINTS).amin(1), torch.zeros(15, dtype=torch.float64), 1e-6)


def test_the_grid_is_that_of_edm():
    grid = edm_grid(10)
    assert grid == pytest.approx(
        [80, 42.41518932, 21.10867674, 9.72320136, 4.06612360, 1.50174198, 0.46997906,
         0.11663856, 0.02043533, 0.002], abs=6e-9,
    )  # fmt: skip
    assert edm_grid(1) == pytest.approx([80])


def test_the_raw_linearity_error_of_a_gaussian_denoiser_is_its_bias_at_huge_noise():
    """T6: (sqrt2 - 1)/sqrt2 over the mix of outputs, sqrt2 - 1 over the output of the mix."""
    oracle = GaussianDenoiser(diagonal([1.0] * 6, mean=0.5))
    y = INPUTS[:2] * 1e3
    mixed = oracle(y.sum(0, keepdim=True) / math.sqrt(2), 1e6)
    of_outputs = oracle(y, 1e6).sum(0, keepdim=True) / math.sqrt(2)
    gap = (mixed - of_outputs).norm()
    assert gap / of_outputs.norm() == pytest.approx(0.2929, abs=1e-4)
    assert gap / mixed.norm() == pytest.approx(0.4142, abs=1e-4)
