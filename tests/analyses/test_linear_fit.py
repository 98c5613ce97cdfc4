import numpy as np
import pytest
import torch

from analyses import linear_fit
from analyses.affine import affine_fit, design
from analyses.specimen import Specimen
from analyses.weight import Whole
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def fit(y, out, n_points):
    return affine_fit(design(y, n_points), y, out)


def bent(y, sigma=0.5):
    return torch.tanh(2 * y) + 0.1 * y.flip(-1)


@pytest.mark.parametrize(("n", "sigma"), [(3, 0.002), (10, 0.1), (40, 80.0)])
def test_the_fit_of_a_gaussian_denoiser_returns_its_weight_and_bias(n, sigma):
    """T3."""
    specimen = make_specimen("gaussian", n=n, sigmas=(sigma,))
    for law in ("train", "heldout"):
        found = linear_fit.distil(specimen, law, sigma, 4)
        wiener = specimen.gaussian.weight(sigma)
        torch.testing.assert_close(found.weight.matrix, wiener, rtol=0, atol=1e-8)
        _, y, _ = specimen.evaluate(law, sigma, 4)
        bias = found.predicted - y[0] @ wiener.T
        expected = specimen.gaussian.bias(sigma).expand_as(bias)
        torch.testing.assert_close(bias, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n_points", [7, 8, 20])
def test_each_fold_is_predicted_by_least_squares_on_the_other(n_points):
    y = draw_points(60, seed=4).view(3, 20, 6)
    out = bent(y)
    found = fit(y, out, n_points)
    fold = torch.arange(20) % n_points % 2
    residual = torch.empty(3, 20, dtype=torch.float64)
    for scored in (0, 1):
        a = y[:, fold != scored].flatten(0, 1).numpy()
        b = out[:, fold != scored].flatten(0, 1).numpy()
        solution = np.linalg.lstsq(np.c_[a, np.ones(len(a))], b, rcond=None)[0]
        rows = y[:, fold == scored]
        predicted = rows @ torch.tensor(solution[:-1]) + torch.tensor(solution[-1])
        residual[:, fold == scored] = (out[:, fold == scored] - predicted).square().mean(2)
        torch.testing.assert_close(found.predicted[fold == scored], predicted[0])
    torch.testing.assert_close(found.residual, residual.mean(0))
    whole = np.linalg.lstsq(
        np.c_[y.flatten(0, 1).numpy(), np.ones(60)], out.flatten(0, 1).numpy(), rcond=None
    )[0]
    torch.testing.assert_close(found.weight.matrix, torch.tensor(whole[:-1].T))
    centred = out - out.flatten(0, 1).mean(0)
    torch.testing.assert_close(found.variance, centred.square().mean(2).mean(0))


def test_the_shares_by_image_give_the_variance_explained():
    specimen = wrapped(make_subset(), bent)
    result = linear_fit.measure(specimen, draws=4)
    ratio = result.affine_residual_image.sum("image") / result.affine_variance_image.sum("image")
    assert (1 - ratio).values == pytest.approx(
        result.affine_r2.sel(inputs="heldout").values, abs=1e-6
    )
    rmse = np.sqrt(result.affine_residual_image.mean("image"))
    assert rmse.values == pytest.approx(
        result.affine_residual_rmse.sel(inputs="heldout").values, rel=1e-6
    )


def test_the_batch_error_is_the_spread_of_the_weight_over_repetitions():
    generator = torch.Generator().manual_seed(0)
    x = draw_points(40, seed=5)
    found = []
    for _ in range(60):
        noise = torch.randn(4, 40, 6, generator=generator, dtype=torch.float64)
        y = x[torch.arange(40) % 10] + noise
        found.append(fit(y, bent(y), 10))
    weights = torch.stack([one.weight.matrix for one in found])
    spread = (weights - weights.mean(0)).square().sum((1, 2)).mean().sqrt()
    error = torch.stack([one.weight_error for one in found]).square().mean().sqrt()
    assert float(error) == pytest.approx(float(spread), rel=0.2)


def test_inputs_that_span_less_than_all_directions_leave_the_identity_in_the_others():
    y = torch.zeros(2, 20, 6, dtype=torch.float64)
    y[..., :2] = draw_points(40, d=2).view(2, 20, 2)
    weight = fit(y, 3 * y, 20).weight.matrix
    expected = torch.diag(torch.tensor([3.0, 3, 1, 1, 1, 1], dtype=torch.float64))
    torch.testing.assert_close(weight, expected)


def test_a_zero_weight_is_at_distance_one():
    """T12."""
    zero, none = torch.zeros(6, 6, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    found = linear_fit.weights(Whole(zero), none, make_subset().gaussian, 0.5, 2)
    assert float(found["weight_distance"]) == pytest.approx(1)


def test_the_overlap_is_free_of_signs_and_rotations():
    subset = make_subset()
    none, basis = torch.tensor(0.0, dtype=torch.float64), subset.moments.basis
    turn = torch.linalg.qr(draw_points(3, d=3))[0]
    sizes = torch.tensor([3.0, 3, 3, 1, 1, 1], dtype=torch.float64)
    for leading, overlap in ((basis[:, :3] @ turn, 1), (basis[:, 3:], 0)):
        axes = torch.linalg.qr(torch.cat([-leading, basis], 1))[0]
        found = linear_fit.weights(Whole(axes * sizes @ axes.T), none, subset.gaussian, 0.5, 3)
        assert float(found["subspace_overlap"]) == pytest.approx(overlap, abs=1e-12)


def test_the_fit_scored_out_of_fold_explains_less_than_one_scored_in_sample():
    specimen = make_specimen("empirical", n=8, sigmas=(0.5,))
    out_of_fold = linear_fit.measure(specimen, draws=4).affine_r2.sel(inputs="train").item()
    _, y, out = specimen.evaluate("train", 0.5, 4)
    a, b = y.flatten(0, 1).numpy(), out.flatten(0, 1).numpy()
    columns = np.c_[a, np.ones(len(a))]
    residual = b - columns @ np.linalg.lstsq(columns, b, rcond=None)[0]
    in_sample = 1 - (residual**2).sum() / ((b - b.mean(0)) ** 2).sum()
    assert out_of_fold < in_sample - 0.02


def test_the_reference_is_the_measure_of_a_memorizing_denoiser():
    specimen = make_specimen("empirical")
    own, reference = linear_fit.measure(specimen, draws=4), linear_fit.reference(specimen, draws=4)
    for name in ("affine_r2", "affine_r2_se", "weight_distance", "weight_distance_se"):
        tagged = name.replace("_se", "") + "_empirical" + "_se" * name.endswith("_se")
        assert reference[tagged].values == pytest.approx(own[name].values, abs=1e-10)


@pytest.mark.parametrize("n", [2, 3])
def test_two_training_points_are_enough(n):
    result = linear_fit.measure(Specimen.of(make_subset(n=n), bent), draws=3)
    assert not result.affine_r2.isnull().any()


def test_no_modes_is_refused():
    with pytest.raises(ValueError, match="`modes` must be at least 1, got 0"):
        linear_fit.measure(make_specimen("gaussian"), draws=2, modes=0)
