"""The denoiser, the loss, the noise density and the average, against their equations."""

import math

import pytest
import torch
from torch import nn

from trainables import ema
from trainables.denoiser import EDM, PRECONDITIONINGS, VP, loss
from trainables.noise import fixed, lognormal, loguniform, options


class Probe(nn.Module):
    """A backbone that keeps what it was given and answers with a fixed image."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise):
        self.x, self.c_noise = x, c_noise
        return self.answer.expand_as(x)


SD = 0.5
Y = torch.tensor([[[[1.0, -2.0]]], [[[0.5, 4.0]]]], dtype=torch.float64)
F = torch.tensor([[[[0.3, 0.7]]]], dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_the_preconditioning_is_that_of_edm(sigma):
    probe = Probe(F)
    out = EDM(probe, SD)(Y, sigma)
    total = sigma**2 + SD**2
    torch.testing.assert_close(out, SD**2 / total * Y + sigma * SD / math.sqrt(total) * F)
    torch.testing.assert_close(probe.x, Y / math.sqrt(total))
    assert probe.c_noise.tolist() == pytest.approx([math.log(sigma) / 4] * 2)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 80.0])
def test_the_variance_exploding_backbone_gives_minus_the_noise(sigma):
    probe = Probe(F)
    out = PRECONDITIONINGS["ve"](probe, SD)(Y, sigma)
    torch.testing.assert_close(out, Y + sigma * F)
    torch.testing.assert_close(probe.x, Y)
    assert (4 * probe.c_noise).tolist() == pytest.approx([math.log(sigma / 2)] * 2)


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.1, 0.9, 1.0])
def test_the_variance_preserving_backbone_is_told_the_time_of_its_noise_level(t):
    sigma = math.sqrt(math.expm1(19.9 * t**2 / 2 + 0.1 * t))
    probe = Probe(F)
    out = PRECONDITIONINGS["vp"](probe, SD)(Y, sigma)
    torch.testing.assert_close(out, Y - sigma * F)
    torch.testing.assert_close(probe.x, Y / math.sqrt(sigma**2 + 1))
    assert (400 * probe.c_noise).tolist() == pytest.approx([999 * t] * 2, rel=1e-9)


def test_the_time_of_a_noise_level_is_as_exact_in_single_precision_at_both_ends():
    sigma = torch.tensor([0.002, 0.02, 1.0, 80.0, 150.0], dtype=torch.float64)
    vp = VP(Probe(F), SD)
    torch.testing.assert_close(vp.time(sigma.float()).double(), vp.time(sigma), rtol=3e-7, atol=0)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_the_noise_code_spans_what_the_noise_features_were_made_for(preconditioning):
    probe = Probe(F)
    denoiser = PRECONDITIONINGS[preconditioning](probe, SD)
    denoiser(Y, torch.tensor([0.002, 80.0], dtype=torch.float64))
    low, high = probe.c_noise.tolist()
    assert 2 < high - low < 3 and -2 < low and high < 2.5


def test_without_preconditioning_the_denoiser_is_its_backbone():
    probe = Probe(F)
    out = PRECONDITIONINGS["none"](probe, SD)(Y, 0.7)
    assert torch.equal(out, F.expand_as(Y)) and torch.equal(probe.x, Y)
    assert probe.c_noise.tolist() == pytest.approx([math.log(0.7) / 4] * 2)


@pytest.mark.parametrize(
    ("preconditioning", "weight"),
    [("edm", (0.09 + 0.25) / (0.3 * 0.5) ** 2), ("ve", 1 / 0.09), ("vp", 1 / 0.09), ("none", 1)],
)
def test_the_loss_weighs_the_error_of_the_backbone_not_of_the_denoiser(preconditioning, weight):
    denoiser = PRECONDITIONINGS[preconditioning](Probe(F), SD)
    sigma = torch.full((2,), 0.3, dtype=torch.float64)
    assert denoiser.weight(sigma).tolist() == pytest.approx([weight] * 2)
    c_out = denoiser.coefficients(sigma).c_out
    torch.testing.assert_close(denoiser.weight(sigma) * c_out**2, torch.ones_like(sigma))


def test_one_sigma_for_all_equals_that_sigma_for_each():
    denoiser = EDM(Probe(F), SD)
    each = torch.full((2,), 0.7, dtype=torch.float64)
    assert torch.equal(denoiser(Y, 0.7), denoiser(Y, each))


def test_sigma_belongs_to_its_image():
    denoiser = EDM(Probe(F), SD)
    both = denoiser(Y, torch.tensor([0.1, 3.0], dtype=torch.float64))
    torch.testing.assert_close(both[:1], denoiser(Y[:1], 0.1))
    torch.testing.assert_close(both[1:], denoiser(Y[1:], 3.0))


def test_the_loss_weights_the_squared_error_summed_over_pixels():
    sigma, eps = torch.tensor([0.1, 3.0], dtype=torch.float64), Y.flip(0)
    denoiser = EDM(Probe(F), SD)
    noisy = Y + sigma.view(-1, 1, 1, 1) * eps
    error = (denoiser(noisy, sigma) - Y).square().sum((1, 2, 3))
    expected = (sigma**2 + SD**2) / (sigma * SD) ** 2 * error
    torch.testing.assert_close(loss(denoiser, Y, sigma, eps), expected)


def test_a_zero_backbone_on_white_data_has_loss_one_per_pixel_at_every_sigma():
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4000, 1, 2, 2, generator=generator)
    for sigma in (0.01, 0.5, 20.0):
        value = loss(EDM(Probe(torch.zeros(())), 0.5), 0.5 * x, torch.full((4000,), sigma), eps)
        assert value.mean().item() / 4 == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_an_error(sigma_data):
    with pytest.raises(ValueError, match="`sigma_data` must be above 0"):
        EDM(Probe(F), sigma_data)


def test_noise_levels_are_lognormal():
    z = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    log = lognormal(z, p_mean=-1.2, p_std=1.2).log()
    assert log.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert log.std().item() == pytest.approx(1.2, abs=0.02)


def test_noise_levels_are_uniform_in_the_logarithm():
    z = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    log = loguniform(z, sigma_min=0.1, sigma_max=10.0).log10()
    shares = torch.histc(log, bins=10, min=-1, max=1) / len(z)
    assert log.min() >= -1 and log.max() <= 1 + 1e-6
    torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.006, rtol=0)


def test_the_densities_rank_the_same_normals_alike():
    z = torch.linspace(-3, 3, 20)
    for levels in (lognormal(z), loguniform(z)):
        assert (levels.diff() > 0).all()
    assert fixed(z, 0.3).tolist() == pytest.approx([0.3] * 20)


def test_the_options_of_a_density_are_those_it_is_called_with():
    assert options("lognormal") == ("p_mean", "p_std")
    assert options("loguniform") == ("sigma_min", "sigma_max")


def test_after_one_halflife_of_images_half_of_the_old_average_is_left():
    steps = 1000
    late = ema.beta(batch=500, images_seen=10**9, halflife_kimg=500, rampup=0.05)
    assert late**steps == pytest.approx(0.5)


def test_the_halflife_ramps_up_with_the_images_seen():
    assert ema.beta(512, 0) == 0
    assert ema.beta(512, 102_400, rampup=0.05) == pytest.approx(0.5 ** (512 / 5120))
    assert ema.beta(512, 102_400, halflife_kimg=0) == 0


def test_the_average_is_updated_in_place():
    average, weights = [torch.zeros(3)], [torch.ones(3)]
    ema.update(average, weights, 0.75)
    assert average[0].tolist() == [0.25] * 3
