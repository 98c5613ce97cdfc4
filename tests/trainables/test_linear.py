"""The linear backbone against the theory of linear denoisers."""

import pytest
import torch

from trainables.architectures import build, n_params
from trainables.train import TrainConfig, Training, build_denoiser

N, D, SIGMA = 40, 4, 0.6
CONFIG = TrainConfig(
    batch=N,
    lr=0.05,
    warmup_kimg=0.0,
    preconditioning="none",
    noise="fixed",
    sigma=SIGMA,
    optimizer="sgd",
    momentum=0.0,
    sampling="full",
    noise_draws=1,
    ema_halflife_kimg=0.0,
)


def images():
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(D, D, dtype=torch.float64, generator=generator) / 2
    points = torch.randn(N, D, dtype=torch.float64, generator=generator) @ mixing + 0.3
    return points.view(N, 1, 2, 2)


def training(width, config=CONFIG):
    denoiser = build_denoiser("linear", width, (1, 2, 2), {}, config, 0.5, dtype=torch.float64)
    return Training(denoiser, images(), config, seed=0, draw=0)


def second_moments(t):
    """The points and their noisy versions, the latter with a 1 that stands for the bias."""
    x, sigma, eps = t.batches(0)
    y = (x + sigma.view(-1, 1, 1, 1) * eps).flatten(1)
    z = torch.cat([y, torch.ones(N, 1, dtype=torch.float64)], dim=1)
    return x.flatten(1), z, z.T @ z / N


def affine(t):
    weight, bias = (t.raw[f"backbone.output.{name}"].detach() for name in ("weight", "bias"))
    return torch.cat([weight, bias[:, None]], dim=1)


def test_gradient_descent_follows_its_closed_form():
    t = training(D)
    x, z, moments = second_moments(t)
    best = (x.T @ z / N) @ torch.linalg.inv(moments)
    contraction = torch.eye(D + 1, dtype=torch.float64) - 2 * 0.05 * moments
    for step in range(1, 201):
        t.advance()
        if step in (1, 10, 200):
            expected = best - best @ torch.linalg.matrix_power(contraction, step)
            torch.testing.assert_close(affine(t), expected, rtol=1e-10, atol=1e-12)


def test_in_the_end_it_is_the_wiener_filter_of_what_it_saw():
    t = training(D)
    for _ in range(4000):
        t.advance()
    x, z, moments = second_moments(t)
    torch.testing.assert_close(affine(t), (x.T @ z / N) @ torch.linalg.inv(moments))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_below_d_the_width_is_the_rank_and_training_reaches_it(width):
    t = training(width)
    for _ in range(300):
        t.advance()
    u, v = (t.raw[f"backbone.{name}.weight"].detach() for name in ("output", "inner"))
    assert u.shape == (D, width)
    assert torch.linalg.matrix_rank(u @ v) == width
    assert affine(t).abs().max() > 0.1


@pytest.mark.parametrize("width", [D, 3 * D])
def test_from_d_on_it_is_one_matrix(width):
    assert n_params(build("linear", width, (1, 2, 2))) == D * D + D
