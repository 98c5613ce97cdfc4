"""The mixture backbone against Bayes' rule."""

import math

import pytest
import torch

from trainables.architectures import build
from trainables.denoiser import PRECONDITIONINGS, loss
from trainables.train import TrainConfig, Training, build_denoiser

SHAPE = (1, 2, 3)


def mixture(width=5, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return PRECONDITIONINGS["none"](build("gmm", width, SHAPE, **options), 0.5).to(dtype)


def inputs(n=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *SHAPE, dtype=torch.float64, generator=generator)


def by_hand(y, means, variance, sigma):
    total = variance + sigma**2
    logits = -(y.flatten(1)[:, None] - means).square().sum(-1) / (2 * total)
    w = torch.softmax(logits, dim=1)
    each = means + variance / total * (y.flatten(1)[:, None] - means)
    return torch.einsum("nk,nkd->nd", w, each).view_as(y)


@pytest.mark.parametrize("variance", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("sigma", [0.02, 0.5, 80.0])
def test_it_is_the_posterior_mean_written_out_by_hand(variance, sigma):
    denoiser, y = mixture(variance=variance), inputs()
    with torch.no_grad():
        expected = by_hand(y, denoiser.backbone.means, variance, sigma)
        torch.testing.assert_close(denoiser(y, sigma), expected)


@pytest.mark.parametrize("sigma", [0.002, 0.05, 80.0])
def test_single_precision_loses_nothing_that_matters(sigma):
    y = inputs() * max(1.0, sigma)
    with torch.no_grad():
        exact, single = mixture()(y, sigma), mixture(dtype=torch.float32)(y.float(), sigma)
    torch.testing.assert_close(single.double(), exact, atol=2e-4, rtol=1e-4)


def test_one_cluster_is_the_wiener_filter_of_white_data():
    denoiser, y = mixture(1, variance=0.25), inputs()
    mean = denoiser.backbone.means.detach().view(SHAPE)
    torch.testing.assert_close(denoiser(y, 0.5).detach(), mean + (y - mean) / 2)


def test_on_its_own_data_no_other_means_have_a_lower_loss():
    truth, other = mixture(3, variance=0.04), mixture(3, variance=0.04)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        other.backbone.means.add_(0.1)
        labels = torch.randint(3, (20_000,), generator=generator)
        z = 0.2 * torch.randn(20_000, 6, dtype=torch.float64, generator=generator)
        x = (truth.backbone.means[labels] + z).view(-1, *SHAPE)
        eps = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        sigma = torch.full((len(x),), 0.5, dtype=torch.float64)
        excess = loss(other, x, sigma, eps) - loss(truth, x, sigma, eps)
    assert excess.mean() > 3 * excess.std() / math.sqrt(len(x))


def test_with_as_many_means_as_images_training_puts_one_on_each():
    x = torch.tensor([[-1.0], [1.0]]).repeat(1, 6).view(2, *SHAPE)
    config = TrainConfig(batch=64, lr=0.02, warmup_kimg=0.0, preconditioning="none", p_mean=-0.5)
    options = {"variance": 0.01}
    denoiser = build_denoiser("gmm", 2, SHAPE, options, config, 0.5, seed=1)
    t = Training(denoiser, x, config, seed=0, draw=0)
    for _ in range(400):
        t.advance()
    means = t.raw["backbone.means"].detach()
    distances = torch.cdist(x.flatten(1), means) / math.sqrt(6)
    assert sorted(distances.argmin(1).tolist()) == [0, 1]
    assert distances.min(1).values.max() < 0.1


@pytest.mark.parametrize(("option", "value"), [("variance", -0.1), ("spread", 0.0)])
def test_an_impossible_option_is_an_error_naming_it(option, value):
    with pytest.raises(ValueError, match=f"gmm: `{option}` must be .*, got {value}"):
        build("gmm", 3, SHAPE, **{option: value})
