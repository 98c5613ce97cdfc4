import numpy as np
import pytest
import torch

from analyses import outputs
from analyses.evaluations import Size
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped

SD = 0.75


def test_outputs_are_those_of_the_denoiser_at_the_common_inputs():
    specimen = make_specimen("gaussian")
    result = outputs.measure(specimen, stored=5)
    assert result.outputs.dtype == result.outputs_noise.dtype == np.float32
    for name, law in (("outputs", "heldout"), ("outputs_noise", "noise")):
        for sigma in specimen.sigmas:
            _, y = specimen.inputs(law, sigma)
            expected = specimen.gaussian(y[0, :5], sigma)
            shown = result[name].sel(sigma=sigma).values
            assert shown == pytest.approx(expected.numpy(), abs=1e-6)


def test_an_untrained_network_only_shrinks_its_inputs():
    """T25: D = c_skip y with a zero last layer."""
    specimen = wrapped(make_subset(), lambda y, sigma: SD**2 / (sigma**2 + SD**2) * y)
    result = outputs.measure(specimen)
    for sigma in specimen.sigmas:
        shrink = SD**2 / (sigma**2 + SD**2)
        noise = specimen.inputs("noise", sigma)[1][0] * shrink
        assert result.outputs_noise.sel(sigma=sigma).values == pytest.approx(noise, abs=1e-6)


def test_a_memorizing_denoiser_retrieves_training_images_from_both_kinds_of_input():
    specimen = make_specimen("empirical", sigmas=(0.002, 0.5))
    result = outputs.measure(specimen).sel(sigma=0.002)
    for name in ("outputs", "outputs_noise"):
        found = torch.tensor(result[name].values, dtype=torch.float64)
        assert torch.cdist(found, specimen.train).min(1).values == pytest.approx(0, abs=1e-5)


def test_the_piece_holds_what_is_stored_and_the_cube_what_is_shown():
    result = outputs.measure(make_specimen("gaussian", m=80), stored=70)
    assert result.outputs.sizes["input"] == 70
    assert result.outputs.attrs["shown"] == result.outputs_noise.attrs["shown"] == "8"
    assert outputs.measure(make_specimen("gaussian")).outputs.sizes["input"] == 24


def test_nothing_is_evaluated_that_was_evaluated_before():
    rows = []
    specimen = wrapped(make_subset(), lambda y, sigma: rows.append(len(y)) or y)
    for sigma in specimen.sigmas:
        specimen.evaluate("heldout", sigma), specimen.evaluate("noise", sigma)
    before = sum(rows)
    outputs.measure(specimen)
    assert sum(rows) == before == sum(outputs.rows(Size(6, 24, 3, specimen.sampler)).values())


def test_outputs_do_not_depend_on_how_many_are_stored():
    subset = make_subset(m=40)
    shift = draw_points(6, seed=3)
    few, many = (
        outputs.measure(wrapped(subset, lambda y, sigma: y @ shift), stored=stored)
        for stored in (3, 30)
    )
    assert few.outputs.equals(many.outputs.isel(input=slice(3)))


def test_no_stored_output_is_refused():
    with pytest.raises(ValueError, match="`stored` must be at least 1, got 0"):
        outputs.measure(make_specimen("gaussian"), stored=0)


def test_the_gaussian_oracles_outputs_are_those_of_d_g_at_the_shown_inputs():
    specimen = make_specimen("empirical")
    found, own = outputs.reference(specimen, stored=20), outputs.measure(specimen, stored=20)
    assert set(found) == {"outputs_gaussian", "outputs_noise_gaussian"}
    for name, law in (("outputs", "heldout"), ("outputs_noise", "noise")):
        assert found[f"{name}_gaussian"].sizes["input"] == outputs.SHOWN
        for sigma in specimen.sigmas:
            _, y = specimen.inputs(law, sigma)
            expected = specimen.gaussian(y[0, : outputs.SHOWN], sigma)
            shown = found[f"{name}_gaussian"].sel(sigma=sigma).values
            assert shown == pytest.approx(expected.numpy(), abs=1e-6)
        assert not np.allclose(found[f"{name}_gaussian"], own[name][:, : outputs.SHOWN])
