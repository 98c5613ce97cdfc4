"""One training: its settings, its schedule, and what it does when numbers go wrong."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.trainables import elsewhere
from trainables.denoiser import EDM
from trainables.streams import stream
from trainables.train import TrainConfig, Training, build_denoiser, steps_at, train

CONFIG = TrainConfig(batch=4, lr=0.1, warmup_kimg=0.04)
X = torch.linspace(-1, 1, 12).view(3, 1, 2, 2)


class Scale(nn.Module):
    """The smallest backbone: one number times the input."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self, x, c_noise):
        return self.value * x


def training(config=CONFIG, value=0.0, **options):
    return Training(EDM(Scale(value), 0.5), X, config, seed=0, draw=0, **options)


@pytest.mark.parametrize(
    ("kimg", "batch", "step"),
    [(0, 512, 0), (1, 512, 2), (0.512, 512, 1), (64, 512, 125), (0.001, 2, 1), (1.024, 512, 2)],
)
def test_steps_reach_the_time_and_no_more(kimg, batch, step):
    assert steps_at(kimg, batch) == step


def test_the_rate_rises_linearly_and_then_stays():
    t, rates = training(), []
    for _ in range(14):
        t.advance()
        rates.append(t.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * min(1, i / 10) for i in range(1, 15)])


def test_without_a_warm_up_the_first_step_has_the_full_rate():
    t = training(replace(CONFIG, warmup_kimg=0.0))
    t.advance()
    # Adam's first step is the rate times the gradient's sign.
    assert abs(t.raw["backbone.value"].item()) == pytest.approx(0.1, rel=1e-4)


def test_the_first_steps_are_those_written_out_by_hand():
    t = training()
    theta = torch.zeros(1, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=0.1, fused=False)
    mean = theta.detach().clone()
    for step in range(6):
        index = torch.randint(3, (4,), generator=stream("batch", 0, 0, step))
        g = stream("noise", 0, step)
        sigma = torch.exp(-1.2 + 1.2 * torch.randn(4, generator=g)).view(-1, 1, 1, 1)
        x, total = X[index], sigma**2 + 0.25
        y = x + sigma * torch.randn(4, 1, 2, 2, generator=g)
        d = 0.25 / total * y + sigma * 0.5 / total.sqrt() * (theta * y / total.sqrt())
        adam.zero_grad()
        (total / (sigma * 0.5) ** 2 * (d - x) ** 2).sum((1, 2, 3)).mean().backward()
        adam.param_groups[0]["lr"] = 0.1 * min(1, (step + 1) / 10)
        adam.step()
        half = 0.05 * 4 * step
        beta = 0.5 ** (4 / half) if step else 0.0
        mean = beta * mean + (1 - beta) * theta.detach()
        t.advance()
    torch.testing.assert_close(t.raw["backbone.value"].detach(), theta.detach())
    torch.testing.assert_close(t.ema["backbone.value"], mean)


def test_stream_loss_is_the_loss_per_pixel_and_nan_before_the_first_step():
    t = training(replace(CONFIG, batch=4096))
    assert math.isnan(t.stream_loss)
    t.advance()
    sigma = torch.exp(-1.2 + 1.2 * torch.randn(200_000, generator=torch.Generator()))
    # D = c_skip y, so the error per pixel is (1-c_skip)^2 E x^2 + c_skip^2 sigma^2, times weight.
    c, weight = 0.25 / (sigma**2 + 0.25), (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight * ((1 - c) ** 2 * X.square().mean() + c**2 * sigma**2)
    assert t.stream_loss == pytest.approx(expected.mean().item(), rel=0.1)


@pytest.mark.parametrize(("bad", "finite"), [(math.nan, 0.0), (math.inf, 1e5), (-math.inf, -1e5)])
def test_gradients_that_are_not_finite_are_replaced(bad, finite):
    t = training()
    t.raw["backbone.value"].register_hook(lambda grad: torch.full_like(grad, bad))
    t.advance()
    assert t.raw["backbone.value"].grad.item() == pytest.approx(finite)
    assert torch.isfinite(t.raw["backbone.value"]).all()


def test_a_loss_that_is_not_finite_stops_the_training_at_the_next_snapshot():
    snapshots = train(EDM(Scale(math.nan), 0.5), X, CONFIG, (0.04, 9), seed=0, draw=0)
    with pytest.raises(FloatingPointError, match=r"not finite \(nan\) at step 10 \(0\.04 kimg\)"):
        next(snapshots)


def test_a_loss_that_is_not_finite_stops_the_training_within_50_steps():
    steps = []
    snapshots = train(
        EDM(Scale(math.nan), 0.5), X, CONFIG, (9,), seed=0, draw=0, on_step=steps.append
    )
    with pytest.raises(FloatingPointError, match="step 50 "):
        next(snapshots)
    assert len(steps) == 49


def test_a_wrapped_module_is_what_runs_forward():
    calls = []

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, y, sigma):
            calls.append(len(y))
            return self.module(y, sigma)

    wrapped, plain = training(wrap=Wrapper, rank=1, world=2), training(rank=1, world=2)
    wrapped.advance()
    plain.advance()
    assert calls == [2]
    assert torch.equal(wrapped.raw["backbone.value"], plain.raw["backbone.value"])


def test_the_state_is_a_copy_without_generators():
    t = training()
    t.advance()
    state = t.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    t.advance()
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())
    assert {name.split(".")[0] for name in state} == {"raw", "ema", "adam", "step", "stream_loss"}


def test_a_training_can_be_resumed_before_its_first_step():
    one, two = training(), training()
    two.load_state(one.state())
    one.advance()
    two.advance()
    assert torch.equal(one.raw["backbone.value"], two.raw["backbone.value"])


def test_a_backbone_with_buffers_is_refused():
    backbone = Scale()
    backbone.register_buffer("count", torch.zeros(1))
    with pytest.raises(ValueError, match=r"no state but parameters, got .*backbone\.count"):
        Training(EDM(backbone, 0.5), X, CONFIG, seed=0, draw=0)


@pytest.mark.parametrize(("rank", "world"), [(0, 3), (2, 2), (-1, 2)])
def test_a_batch_that_workers_cannot_share_is_an_error_at_the_call(rank, world):
    with pytest.raises(ValueError, match="multiple of the"):
        train(EDM(Scale(), 0.5), X, CONFIG, (1,), seed=0, draw=0, rank=rank, world=world)


@pytest.mark.parametrize("kimg", [(2, 1), (1, 1), (0.001, 0.002), (-1, 2)])
def test_times_that_do_not_increase_by_a_batch_are_an_error_at_the_call(kimg):
    with pytest.raises(ValueError, match="`kimg` must increase"):
        train(EDM(Scale(), 0.5), X, CONFIG, kimg, seed=0, draw=0)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("batch", 1, "at least 2"),
        ("batch", True, "whole number"),
        ("lr", 0.0, "above 0"),
        ("lr", math.nan, "finite"),
        ("warmup_kimg", -1.0, "at least 0"),
        ("p_mean", math.inf, "finite"),
        ("p_std", 0.0, "above 0"),
        ("ema_halflife_kimg", -1.0, "at least 0"),
        ("ema_rampup", 0.0, "above 0"),
        ("ema_rampup", 1.5, "in (0, 1]"),
        ("sigma_data", 0.0, "above 0"),
        ("sigma_data", -0.5, "above 0"),
        ("sigma_min", 0.0, "above 0"),
        ("sigma_min", 100.0, "below `sigma_max` 100.0"),
        ("sigma", -1.0, "above 0"),
        ("momentum", 1.0, "in [0, 1)"),
        ("momentum", math.nan, "finite"),
        ("noise_draws", 0, "whole number of at least 1"),
        ("noise_draws", True, "whole number of at least 1"),
        ("lr_width", 0, "whole number of at least 1"),
    ],
)
def test_a_setting_out_of_range_is_an_error_naming_field_value_and_range(field, value, allowed):
    # A plain dict, so that what is tested is the message and not a type checker.
    with pytest.raises(ValueError) as raised:
        TrainConfig(**{field: value})
    for part in (f"`{field}`", allowed, repr(value)):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "field", "allowed"),
    [
        ({"noise": "loguniform", "p_std": 1.0}, "p_std", "1.2 unless `noise` is 'lognormal'"),
        ({"sigma_max": 80.0}, "sigma_max", "100.0 unless `noise` is 'loguniform'"),
        ({"sigma": 0.5}, "sigma", "None unless `noise` is 'fixed'"),
        ({"noise": "fixed"}, "sigma", "a number above 0 where `noise` is 'fixed'"),
        ({"momentum": 0.9}, "momentum", "0.95 unless `optimizer` is 'sgd'"),
    ],
)
def test_a_setting_that_nothing_would_read_is_an_error(settings, field, allowed):
    with pytest.raises(ValueError) as raised:
        TrainConfig(**settings)
    assert f"`{field}` must be {allowed}, got {settings.get(field)!r}" in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value", "choices"),
    [
        ("noise", "lognormall", "lognormal, loguniform, fixed"),
        ("optimizer", "adan", "adam, sgd"),
        ("sampling", "ful", "replacement, full"),
    ],
)
def test_an_unknown_choice_is_an_error_naming_the_choices(field, value, choices):
    with pytest.raises(
        ValueError, match=f"Unknown {field} '{value}': choose from {choices}.* Did"
    ):
        TrainConfig(**{field: value})


def test_the_rate_goes_as_one_over_the_width_if_asked_to():
    config = TrainConfig(lr=0.4, lr_width=64)
    assert [config.rate(w) for w in (32, 64, 256)] == pytest.approx([0.8, 0.4, 0.1])
    assert TrainConfig(lr=0.4).rate() == TrainConfig(lr=0.4).rate(32) == 0.4


def test_a_rate_by_width_needs_the_width_and_is_that_of_the_steps():
    config = replace(CONFIG, lr_width=2, warmup_kimg=0.0)
    with pytest.raises(ValueError, match=r"with `lr_width` 2 .* width=256"):
        train(EDM(Scale(), 0.5), X, config, (1,), seed=0, draw=0)
    t = training(config, width=8)
    t.advance()
    assert t.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 2 / 8)


def test_heavy_ball_steps_are_those_written_out_by_hand():
    config = TrainConfig(
        batch=4, lr=0.01, warmup_kimg=0.0, optimizer="sgd", momentum=0.5, noise="fixed", sigma=0.7
    )
    t, theta, velocity = training(config), 0.0, 0.0
    for step in range(4):
        x, sigma, eps = t.batches(step)
        assert sigma.tolist() == pytest.approx([0.7] * 4)
        total = 0.7**2 + 0.25
        y = x + 0.7 * eps
        f = 0.7 * 0.5 / total * y
        slope = 2 * total / 0.35**2 * ((0.25 / total * y + f * theta - x) * f).sum() / 4
        velocity = 0.5 * velocity + slope.item()
        theta -= 0.01 * velocity
        t.advance()
        assert t.raw["backbone.value"].item() == pytest.approx(theta, rel=1e-4)


def test_the_state_of_another_optimiser_is_an_error():
    with pytest.raises(ValueError, match="state is of another"):
        training(replace(CONFIG, optimizer="sgd")).load_state(training().state())


@pytest.mark.parametrize("preconditioning", ["edm", "ve", "vp"])
def test_a_backbone_that_is_a_denoiser_takes_no_preconditioning(preconditioning):
    config = TrainConfig(preconditioning=preconditioning)
    with pytest.raises(
        ValueError, match=f"`preconditioning` must be 'none', got '{preconditioning}'"
    ):
        build_denoiser("gmm", 4, (1, 2, 2), {}, config, 0.7)


def test_an_unknown_preconditioning_is_an_error_naming_the_choices():
    with pytest.raises(ValueError, match="Unknown preconditioning 'edn': choose from edm"):
        TrainConfig(preconditioning="edn")


def test_the_configs_own_scale_takes_the_place_of_the_measured_one():
    for given, expected in ((None, 0.7), (0.5, 0.5)):
        config = TrainConfig(sigma_data=given)
        denoiser = build_denoiser("mlp", 4, (1, 2, 2), {"depth": 1}, config, 0.7)
        assert denoiser.sigma_data == expected


def test_two_data_parallel_processes_train_what_one_does(tmp_path):
    """NCSN++ with its frozen frequencies, with labels, and blocks that are computed again."""
    processes = [elsewhere.started("rank", tmp_path, number, 2) for number in (0, 1)]
    start, alone = elsewhere.told_network(kimg=0), elsewhere.told_network()
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"weights-{number}.pt") for number in (0, 1))
    for one, two, whole in zip(first, second, (alone.raw, alone.ema), strict=True):
        torch.testing.assert_close(one, whole, rtol=1e-7, atol=1e-12)
        assert all(torch.equal(one[key], two[key]) for key in whole)
    (still,) = (key for key in start.raw if torch.equal(start.raw[key], first[0][key]))
    assert still.endswith("features.frequencies")
