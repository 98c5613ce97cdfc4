import math

import pytest
import torch
import xarray as xr

from analyses import lid
from analyses.moments import Moments
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import (
    SIGMAS,
    draw_points,
    make_specimen,
    make_subset,
    stream,
    wrapped,
)

CLEAN = ["train", "heldout"]


def flat_gaussian(rank=7, d=12, variance=0.63, sigmas=(0.3, 0.1, 0.01)):
    """D_G at 2 `rank` points whose covariance is exactly `variance` in `rank` directions."""
    axes = torch.linalg.qr(draw_points(d, d, seed=3))[0][:, :rank].T
    arms = math.sqrt(rank * variance) * torch.cat([axes, -axes])
    points = arms + draw_points(1, d, seed=4)
    moments = Moments.of_points(points)
    subset = Subset(points, points, moments, sigmas, (1, 3, d // 3), stream)
    return wrapped(subset, subset.gaussian)


def test_a_gaussian_of_rank_7_has_local_dimension_7():
    """T19."""
    result = lid.measure(flat_gaussian())
    for law in CLEAN:
        found = result.lid.sel(inputs=law).values
        assert found == pytest.approx([6.89, 6.99, 7.00], abs=0.01)
        share = result.sigma.values**2 / (0.63 + result.sigma.values**2)
        assert found == pytest.approx(7 * (1 - share**2), abs=1e-9)


@pytest.mark.parametrize("rank", [2, 4, 9])
def test_the_local_dimension_at_small_noise_is_the_rank(rank):
    result = lid.measure(flat_gaussian(rank, sigmas=(1e-3,)))
    assert result.lid.sel(inputs=CLEAN).values == pytest.approx(rank, abs=1e-5)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_it_is_the_logarithmic_derivative_of_the_density_by_the_noise(sigma):
    """d + d ln p / d ln sigma of the mixture of Gaussians at the training points."""
    specimen = make_specimen("empirical", sigmas=(sigma,))

    def log_density(x, sigma):
        logits = -torch.cdist(x, specimen.train).square() / (2 * sigma**2)
        return logits.logsumexp(1) - 6 * math.log(sigma)

    result = lid.measure(specimen)
    step = 1e-5
    for law, points in (("train", specimen.train), ("heldout", specimen.heldout[:16])):
        ahead, behind = (log_density(points, sigma * math.exp(s)) for s in (step, -step))
        expected = 6 + float(((ahead - behind) / (2 * step)).mean())
        assert result.lid.sel(inputs=law).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_remembered_point_has_no_dimension_and_an_unknown_one_a_large_one():
    result = lid.measure(make_specimen("empirical", sigmas=(0.01,)))
    assert result.lid.sel(inputs="train").item() == pytest.approx(0, abs=1e-9)
    assert result.lid.sel(inputs="heldout").item() > 100


def test_a_denoiser_that_keeps_its_input_sees_every_direction():
    result = lid.measure(wrapped(make_subset(), lambda y, sigma: 1 * y))
    assert result.lid.sel(inputs=CLEAN).values == pytest.approx(6)
    assert result.lid_se.sel(inputs=CLEAN).values == pytest.approx(0)


@pytest.mark.parametrize("oracle", ["gaussian", "empirical"])
@pytest.mark.parametrize("n", [4, 10, 30])
def test_the_reference_is_the_dimension_by_the_oracle(oracle, n):
    specimen = make_specimen(oracle, n=n)
    result, reference = lid.measure(specimen), lid.reference(specimen)
    for tail in ("", "_se"):
        found, expected = result[f"lid{tail}"], reference[f"lid_{oracle}{tail}"]
        assert found.sel(inputs=["noise", "path"]).isnull().all()
        assert expected.sel(inputs=["noise", "path"]).isnull().all()
        assert found.sel(inputs=CLEAN).values == pytest.approx(
            expected.sel(inputs=CLEAN).values, rel=1e-6, abs=1e-9
        )


def test_both_routes_to_the_trace_agree_within_their_errors():
    specimen = make_specimen("empirical", sigmas=(0.5, 2.0))
    exact = lid.measure(specimen).sel(inputs=CLEAN)
    probed = lid.measure(specimen, full=5, probes=400).sel(inputs=CLEAN)
    assert (abs(probed.lid - exact.lid) < 0.2 * exact.lid_se).all()
    assert (probed.lid != exact.lid).all()
    # The error is that of few points, however many probes fall on each.
    assert probed.lid_se.values == pytest.approx(exact.lid_se.values, rel=0.1)


def test_noise_levels_one_by_one_give_what_they_give_together():
    specimen = make_specimen("empirical")
    for options in ({}, {"full": 5}):
        alone = [lid.measure(specimen.only(sigma), **options) for sigma in SIGMAS]
        xr.testing.assert_identical(xr.concat(alone, "sigma"), lid.measure(specimen, **options))


@pytest.mark.parametrize("options", [{"points": 1}, {"probes": 0, "full": 5}])
def test_too_few_points_or_probes_are_an_error(options):
    with pytest.raises(ValueError, match="must be at least"):
        lid.measure(make_specimen("gaussian"), **options)


def test_a_specimen_of_few_training_points_uses_them_all():
    seen = []

    def denoiser(y, sigma):
        seen.append({tuple(row) for row in y.tolist()})
        return 1 * y

    specimen = Specimen.of(make_subset(n=3, sigmas=(0.5,)), denoiser)
    lid.measure(specimen)
    assert [len(rows) for rows in seen] == [3, 16]
