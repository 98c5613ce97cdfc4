import math

import pytest
import torch

from analyses import gaussian
from analyses.oracles import kappa
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def test_the_distances_of_hand_made_outputs():
    out = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    other = torch.tensor([[3.0, 4.0], [2.0, 2.0]], dtype=torch.float64)
    values, root = gaussian.distances(out, y, other[None], 2)
    assert root[0].tolist() == pytest.approx([0, math.sqrt(2)])
    assert float(values["denoiser_rmse"]) == pytest.approx(math.sqrt(2) / 2)
    assert float(values["denoiser_nmse"]) == pytest.approx((0 + 2 / 2) / 2)
    assert float(values["denoiser_explained_variance"]) == pytest.approx(1 - 4 / 29)
    assert float(values["score_explained_variance"]) == pytest.approx(1 - 4 / 20)


@pytest.mark.parametrize("oracle", ["gaussian", "gaussian_pool", "kappa", "empirical"])
def test_an_oracle_has_no_distance_to_itself_and_some_to_the_others(oracle):
    result = gaussian.measure(make_specimen(oracle), draws=2)
    at = result.denoiser_rmse.sel(sigma=0.5)
    assert at.sel(reference=oracle).values == pytest.approx(0, abs=1e-12)
    for other in {"gaussian", "gaussian_pool", "kappa", "empirical"} - {oracle}:
        assert (at.sel(reference=other) > 1e-3).all()


def test_the_distance_by_image_has_the_mean_that_is_reported():
    result = gaussian.measure(make_specimen("empirical"), draws=2)
    reported = result.denoiser_rmse.sel(reference="gaussian", inputs="heldout")
    assert result.denoiser_rmse_image.mean("image").values == pytest.approx(
        reported.values, rel=1e-6
    )


def test_an_output_of_zero_is_left_out_of_the_relative_distance():
    result = gaussian.measure(wrapped(make_subset(), lambda y, sigma: 0 * y), draws=2)
    assert result.denoiser_nmse.isnull().all()
    assert not result.denoiser_rmse.isnull().any()


def test_the_reference_describes_the_subset():
    subset = make_subset(n=4)
    result = gaussian.reference(subset)
    roots = [kappa(subset.pool.eigenvalues, 4, sigma) for sigma in subset.sigmas]
    assert result.kappa.values.tolist() == roots
    assert (result.n_eff >= 1).all() and (result.n_eff <= 4).all()
    spectrum = result.train_eigenvalues.values
    assert len(spectrum) == 6 and (spectrum[3:] == 0).all() and (spectrum[:3] > 0).all()
    variance = float((subset.train - subset.train.mean(0)).square().sum(1).mean())
    assert spectrum.sum() == pytest.approx(variance)
    measured = gaussian.measure(make_specimen("empirical", n=4), draws=2).denoiser_rmse
    assert result.empirical_gaussian_rmse.values == pytest.approx(
        measured.sel(reference="gaussian").values, abs=1e-12
    )


def test_the_standard_error_is_the_spread_over_sets_of_images():
    """Held-out law, 40 disjoint sets of 24 images."""
    subset = make_subset()
    images = draw_points(960, seed=11)
    memory, filtered = subset.empirical(images, 0.5), subset.gaussian(images, 0.5)
    found = [
        gaussian.distances(a, y, b[None], 24)[0]
        for a, b, y in zip(memory.split(24), filtered.split(24), images.split(24), strict=True)
    ]
    for name in ("denoiser_rmse", "denoiser_nmse", "score_explained_variance"):
        values = torch.stack([one[name] for one in found])
        errors = torch.stack([one[f"{name}_se"] for one in found])
        assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.35)


def test_the_identity_and_its_multiples_are_told_apart():
    specimen = wrapped(make_subset(), lambda y, sigma: -0.25 * y)
    found = gaussian.measure(specimen, draws=4)
    assert found.identity_distance.values == pytest.approx(1.25)
    assert found.identity_cosine.values == pytest.approx(-1)


@pytest.mark.parametrize(("n", "positive"), [(4, True), (6, True), (30, False)])
def test_the_rank_floor_is_where_the_distance_of_the_identity_to_d_g_ends(n, positive):
    """T11: sigma to 0; above 0 exactly where the training points do not span the 6 pixels."""
    low = make_subset(n=n, sigmas=(1e-5,))
    found = gaussian.measure(wrapped(low, lambda y, sigma: y), draws=4)
    distance = found["denoiser_rmse"].sel(inputs="heldout", reference="gaussian").item()
    floor = gaussian.reference(low, draws=4)
    assert floor["rank_floor"].item() == pytest.approx(distance, abs=1e-4)
    assert (floor["rank_floor"].item() > 0.01) == positive
    assert (floor["rank_floor_se"].item() > 0) == positive or floor["rank_floor_se"].item() < 1e-9
