import numpy as np
import pytest
import torch

from analyses import flows
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser
from analyses.specimen import Specimen
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def test_an_oracle_is_at_no_distance_from_its_own_flow():
    for name in ("gaussian", "gaussian_pool", "kappa", "empirical"):
        own = flows.measure(make_specimen(name)).sel(flow_reference=name)
        assert float(own.flow_distance) == pytest.approx(0, abs=1e-12)
        assert float(own.flow_cosine) == pytest.approx(1, abs=1e-12)
        assert float(own.flow_r2) == pytest.approx(1, abs=1e-12)


def test_a_shift_of_all_pixels_moves_the_distance_but_not_the_cosine():
    x = draw_points(30)
    found = flows.agreement(x, x + 0.5)
    assert float(found["flow_distance"]) == pytest.approx(0.5 * 6**0.5)
    assert float(found["flow_distance_se"]) == pytest.approx(0, abs=1e-12)
    assert float(found["flow_cosine"]) == pytest.approx(1)


def test_the_numbers_are_those_of_a_worked_example():
    x = torch.tensor([[1.0, -1, 0], [2.0, 0, 1]], dtype=torch.float64)
    r = torch.tensor([[1.0, 0, -1], [0.0, 2, 1]], dtype=torch.float64)
    found = flows.agreement(x, r)
    assert float(found["flow_distance"]) == pytest.approx(((2 + 8) / 2) ** 0.5)
    assert float(found["flow_cosine"]) == pytest.approx((0.5 - 1) / 2)
    assert float(found["flow_r2"]) == pytest.approx(((1 - 2 / 2) + (1 - 8 / 2)) / 2)


def test_images_without_contrast_are_left_out():
    x = torch.tensor([[1.0, -1], [3.0, 3], [0.0, 2]], dtype=torch.float64)
    found = flows.agreement(x, 2 * x)
    assert float(found["flow_cosine"]) == pytest.approx(1)
    assert float(found["flow_r2"]) == pytest.approx(((1 - 2 / 2) + (1 - 4 / 2)) / 2)


def test_the_distance_is_the_root_of_the_mean_square_of_the_raw_distances():
    result = flows.measure(make_specimen("gaussian"))
    raw = result.flow_distance_sample.astype(float)
    again = np.sqrt((raw**2).mean("sample"))
    assert again.values == pytest.approx(result.flow_distance.values, rel=1e-6)


def test_the_standard_error_of_the_distance_is_its_spread_over_repetitions():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 50, 6, generator=generator, dtype=torch.float64)
    found = [flows.agreement(x, torch.zeros_like(x)) for x in noise]
    spread = torch.stack([one["flow_distance"] for one in found]).std()
    error = torch.stack([one["flow_distance_se"] for one in found]).mean()
    assert float(error) == pytest.approx(float(spread), rel=0.15)


def test_the_reference_is_the_measure_of_an_oracle_in_the_denoisers_place():
    subset = make_subset()
    reference = flows.reference(subset)
    for name in ("gaussian", "empirical"):
        own = flows.measure(Specimen.of_oracle(subset, name))
        for of in ("flow_distance", "flow_cosine", "flow_r2"):
            assert (reference[f"{of}_{name}"] == own[of]).all()
    apart = reference.flow_distance_empirical.sel(flow_reference="gaussian")
    assert float(apart) == float(reference.flow_distance_gaussian.sel(flow_reference="empirical"))
    assert float(apart) > 0.1


@pytest.mark.parametrize(("steps", "largest"), [(40, 0.016), (80, 0.0035), (160, 0.0007)])
def test_the_sampler_converges_to_the_exact_flow(steps, largest):
    """T7: the residual of the worst mode at lam in .01..100."""
    lam = torch.logspace(2, -2, 6, dtype=torch.float64)
    gaussian = GaussianDenoiser(
        Moments(torch.zeros(6, dtype=torch.float64), lam, torch.eye(6, dtype=torch.float64))
    )
    subset = make_subset(samples=8, steps=steps)
    subset.gaussian = gaussian
    x = wrapped(subset, gaussian).samples()
    exact = gaussian.flow(80 * subset.latents(8), 80.0, 0.0)
    residual = (x / exact - 1).abs().amax()
    assert float(residual) == pytest.approx(largest, rel=0.1)


def test_the_solver_error_falls_with_the_square_of_the_number_of_steps():
    error = {n: float(flows.reference(make_subset(steps=n)).flow_solver_error) for n in (40, 80)}
    assert error[40] / error[80] == pytest.approx(4, rel=0.2)


def test_the_distance_to_an_oracle_does_not_count_the_error_of_the_sampler():
    specimen = make_specimen("gaussian", steps=4)
    own = flows.measure(specimen).flow_distance.sel(flow_reference="gaussian")
    assert float(flows.reference(specimen).flow_solver_error) > 0.05
    assert float(own) == pytest.approx(0, abs=1e-12)
