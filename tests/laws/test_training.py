"""Laws of training, for every backbone: what the numbers may depend on, and what not."""

import itertools
from dataclasses import replace

import pytest
import torch

from tests.backbones import OPTIONS
from trainables.architectures import ARCHITECTURES
from trainables.train import TrainConfig, build_denoiser, steps_at, train

SHAPE = (1, 4, 4)
CONFIG = TrainConfig(batch=8, lr=1e-3, warmup_kimg=0.05)
# What a backbone is for, where it is not any denoiser over all noise levels.
PURPOSE = {
    "gmm": {"preconditioning": "none"},
    "linear": {"preconditioning": "none", "noise": "fixed", "sigma": 0.5},
}
VARIANTS = {
    "ve": {"preconditioning": "ve", "noise": "loguniform"},
    "vp": {"preconditioning": "vp"},
    "autoencoder": {"preconditioning": "none", "noise": "fixed", "sigma": 0.5},
    "sgd": {"optimizer": "sgd", "lr": 1e-4},
    "plain-sgd": {"optimizer": "sgd", "lr": 1e-4, "momentum": 0.0},
    "full": {"sampling": "full", "batch": 6},
    "noise-draws": {"noise_draws": 2},
    "xflip": {"xflip": True},
    "decay": {"weight_decay": 0.1},
    "sgd-decay": {"optimizer": "sgd", "lr": 1e-4, "weight_decay": 0.1},
    "bfloat16": {"autocast": "bfloat16"},
    "float16": {"autocast": "float16"},
}
KIMG = (0.016, 0.04, 0.1)
# From d = 16 on the linear map is one matrix that starts at zero whatever the seed.
WIDTH = {"linear": 4, "ddpmpp": 4, "ncsnpp": 4, "adm": 4, "skip": 8}


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def images(n=6):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(3))


def suited(name, config=CONFIG):
    """`config` with the settings that the backbone is for."""
    return replace(config, **PURPOSE.get(name, {}))


def fresh(name, seed=0, config=CONFIG, dtype=torch.float32):
    width, options = WIDTH.get(name, 16), OPTIONS.get(name, {})
    config = suited(name, config)
    return build_denoiser(name, width, SHAPE, options, config, 0.5, seed, dtype=dtype)


def run(name, kimg=KIMG, *, seed=0, draw=0, config=CONFIG, dtype=torch.float32, **options):
    denoiser = fresh(name, seed, config, dtype)
    config = suited(name, config)
    return list(train(denoiser, images(), config, kimg, seed=seed, draw=draw, **options))


def assert_equal(one, two):
    assert (one.kimg, one.step, one.images_seen) == (two.kimg, two.step, two.images_seen)
    assert one.stream_loss == two.stream_loss
    for left, right in ((one.ema, two.ema), (one.raw, two.raw)):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


def differs(one, two):
    return any(not torch.equal(one.raw[key], two.raw[key]) for key in one.raw)


def test_each_snapshot_comes_after_the_first_step_that_reaches_its_time(name):
    for kimg, snapshot in zip(KIMG, run(name), strict=True):
        assert snapshot.kimg == kimg and snapshot.step == steps_at(kimg, 8)
        assert 0 <= snapshot.images_seen - 1000 * kimg < 8


def test_a_snapshot_does_not_depend_on_which_others_are_listed(name):
    (alone,) = run(name, KIMG[-1:])
    assert_equal(alone, run(name)[-1])


def test_a_resumed_training_gives_the_same_bits_wherever_it_was_cut(name):
    expected = run(name)
    states = []
    run(name, on_step=lambda training: states.append(training.state()))
    assert len(states) == expected[-1].step
    for state in states[:: max(1, len(states) // 6)]:
        resumed = run(name, state=state)
        step = int(state["step"])
        assert [s.kimg for s in resumed] == [s.kimg for s in expected if s.step >= step]
        for one, two in zip(reversed(resumed), reversed(expected), strict=False):
            assert_equal(one, two)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_of_any_settings_can_be_cut_and_its_batch_shared(variant):
    config = replace(CONFIG, **VARIANTS[variant])
    expected, states = run("mlp", config=config), []
    shared = run("mlp", config=config, on_step=lambda t: states.append(t.state()))
    assert_equal(shared[-1], expected[-1])
    for state in (states[0], states[len(states) // 2]):
        assert_equal(run("mlp", config=config, state=state)[-1], expected[-1])
    assert differs(expected[-1], run("mlp")[-1])


def test_a_finished_training_yields_its_last_snapshot_at_once(name):
    states = []
    *_, last = run(name, on_step=lambda training: states.append(training.state()))

    def forbidden(training):
        raise AssertionError("a step was taken")

    (again,) = run(name, state=states[-1], on_step=forbidden)
    assert_equal(again, last)


def test_a_snapshot_does_not_change_while_training_goes_on(name):
    snapshots = train(fresh(name), images(), suited(name), KIMG, seed=0, draw=0)
    first = next(snapshots)
    kept = {key: value.clone() for key, value in first.raw.items()}
    list(snapshots)
    assert all(torch.equal(kept[key], first.raw[key]) for key in kept)


def test_a_seed_changes_weights_and_a_draw_changes_batches(name):
    base = run(name, (0, 0.1))
    seed, draw = run(name, (0, 0.1), seed=1), run(name, (0, 0.1), draw=1)
    assert differs(base[0], seed[0]) and differs(base[1], seed[1])
    assert not differs(base[0], draw[0]) and differs(base[1], draw[1])


def test_training_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    run(name, KIMG[:1])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_falls(name):
    early, late = run(name, (0.2, 4), config=TrainConfig(batch=16, lr=3e-3, warmup_kimg=0.1))
    assert late.stream_loss < 0.8 * early.stream_loss


def test_training_works_in_float64_from_the_same_weights(name):
    start, end = run(name, (0, 0.04), dtype=torch.float64)
    (single,) = run(name, (0,))
    for key, value in start.raw.items():
        assert value.dtype == torch.float64 and torch.equal(value.float(), single.raw[key])
    assert all(value.dtype == torch.float64 for value in end.ema.values())


def test_a_share_of_the_batch_per_worker_averages_to_the_whole_batch(name):
    def gradient(rank, world):
        denoiser = fresh(name, dtype=torch.float64)
        found = []

        def keep(training):
            found.append([p.grad.clone() for p in denoiser.parameters() if p.requires_grad])

        list(train(denoiser, images(), suited(name), (0.008,), seed=0, draw=0, on_step=keep,
                   rank=rank, world=world))  # fmt: skip
        return found[0]

    whole = gradient(0, 1)
    for world in (2, 4, 8):
        shares = zip(*(gradient(rank, world) for rank in range(world)), strict=True)
        mean = [torch.stack(parts).mean(0) for parts in shares]
        torch.testing.assert_close(mean, whole)


def test_the_average_lags_behind_the_weights_and_starts_as_them(name):
    first, *_, last = run(name, (0, 0.008, 2))
    assert all(torch.equal(first.ema[key], first.raw[key]) for key in first.raw)
    assert any(not torch.equal(last.ema[key], last.raw[key]) for key in last.raw)


def test_snapshots_load_into_a_fresh_denoiser(name):
    (snapshot,) = run(name, KIMG[:1])
    denoiser = fresh(name, seed=9)
    denoiser.load_state_dict(snapshot.ema)
    assert all(torch.equal(p, snapshot.ema[key]) for key, p in denoiser.named_parameters())


def test_the_state_of_another_width_is_an_error(name):
    states = []
    run(name, KIMG[:1], on_step=lambda training: states.append(training.state()))
    wide = build_denoiser(name, 32, SHAPE, OPTIONS.get(name, {}), suited(name), 0.5)
    with pytest.raises(ValueError, match="state is of another denoiser"):
        train(wide, images(), suited(name), KIMG, seed=0, draw=0, state=states[-1])


def test_weights_are_the_same_whatever_was_drawn_before(name):
    one = fresh(name)
    torch.manual_seed(5)
    two = fresh(name)
    pairs = itertools.zip_longest(one.parameters(), two.parameters())
    assert all(torch.equal(p, q) for p, q in pairs)
