"""Options of a training that change how it computes: what each may change, and what not."""

import itertools
import os
import shutil
from dataclasses import replace

import pytest
import torch

from tests.backbones import OPTIONS
from tests.trainables import elsewhere
from trainables.architectures import CHECKPOINTED
from trainables.config import TrainConfig
from trainables.train import Training, build_denoiser, train

SHAPE = (1, 4, 4)
CONFIG = TrainConfig(batch=4, lr=1e-3, warmup_kimg=0.0)


def run(name="ddpmpp", kimg=(0.012,), state=None, on_step=None, config=CONFIG, **options):
    images = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))
    options = {**OPTIONS.get(name, {}), **options}
    denoiser = build_denoiser(name, 8, SHAPE, options, config, 0.5)
    return list(
        train(denoiser, images, config, kimg, seed=0, draw=0, state=state, on_step=on_step)
    )[-1]


def apart(one, two):
    """Distance of the weights."""
    return torch.stack([(one.raw[key] - two.raw[key]).norm() for key in one.raw]).norm().item()


@pytest.mark.parametrize("name", sorted(CHECKPOINTED))
def test_computing_blocks_again_changes_no_bit(name):
    options = {} if name == "dit" else {"dropout": 0.3}
    plain = run(name, **options)
    again = run(name, config=replace(CONFIG, checkpointing=True), **options)
    assert all(torch.equal(plain.raw[key], again.raw[key]) for key in plain.raw)


def test_a_backbone_without_blocks_cannot_compute_them_again():
    with pytest.raises(ValueError, match="kind Skip has no blocks"):
        run("skip", config=replace(CONFIG, checkpointing=True))


def scaled_by(factor, name, config):
    """The state before the first step, its loss scaled by `factor`."""
    denoiser = build_denoiser(name, 8, SHAPE, OPTIONS.get(name, {}), config, 0.5)
    state = Training(denoiser, torch.zeros(6, *SHAPE), config, seed=0, draw=0).state()
    return state | {"scaler.scale": torch.tensor(factor)}


@pytest.mark.parametrize("name", ["ddpmpp", "unet"])
@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [("channels_last", True, 1e-3), ("autocast", "bfloat16", 0.1), ("autocast", "float16", 0.1)],
)
def test_faster_ways_to_compute_end_near_the_same_weights(name, option, value, bound):
    config, state = replace(CONFIG, **{option: value}), None
    if value == "float16":
        state = scaled_by(1024.0, name, config)
    start, plain = run(name, kimg=(0,)), run(name, kimg=(0.048,))
    fast = run(name, kimg=(0.048,), config=config, state=state)
    assert 0 < apart(plain, fast) < bound * apart(plain, start)
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in fast.raw.values())


@pytest.mark.parametrize("name", ["ddpmpp", "unet"])
def test_a_scaled_loss_costs_the_steps_that_overflow_and_no_other(name):
    config, states = replace(CONFIG, autocast="float16"), []
    whole = run(name, kimg=(0.048,), config=config, on_step=lambda t: states.append(t.state()))
    scales = [float(state["scaler.scale"]) for state in states]
    lost = [b < a for a, b in itertools.pairwise([2.0**16, *scales])]
    assert 0 < sum(lost) == len(lost) - states[-1]["scaler.steps"] < len(lost)
    still = [
        all(torch.equal(before[key], after[key]) for key in before if key.startswith("raw."))
        for before, after in itertools.pairwise(states)
    ]
    assert still == lost[1:]
    resumed = run(name, kimg=(0.048,), config=config, state=states[2])
    assert all(torch.equal(whole.raw[key], resumed.raw[key]) for key in whole.raw)


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler"
)
def test_a_compiled_training_ends_near_the_same_weights_and_can_be_cut(tmp_path):
    """Some 20 processor seconds; a second run finds what torch has compiled."""
    plain = elsewhere.perceptron()
    assert elsewhere.started("compiled", tmp_path).wait() == 0
    whole, cut = torch.load(tmp_path / "weights.pt")
    assert 0 < max((plain.raw[key] - whole[key]).abs().max() for key in whole) < 1e-3 * CONFIG.lr
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_only_deterministic_algorithms_give_the_same_bits_here_and_last_one_training():
    plain = run()
    strict = run(config=replace(CONFIG, deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(plain.raw[key], strict.raw[key]) for key in plain.raw)
    run()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_training_with_dropout_and_channels_last_can_be_cut():
    config, states = replace(CONFIG, channels_last=True), []
    options = {"config": config, "dropout": 0.5}
    whole = run(on_step=lambda t: states.append(t.state()), **options)
    resumed = run(state=states[0], **options)
    assert all(torch.equal(whole.raw[key], resumed.raw[key]) for key in whole.raw)
    assert apart(whole, run(config=config)) > 0.1 * apart(whole, run(kimg=(0,)))


def test_a_denoiser_that_is_not_trained_drops_nothing():
    options = {**OPTIONS["ddpmpp"], "dropout": 0.5, "last_scale": 1.0}
    denoiser = build_denoiser("ddpmpp", 8, SHAPE, options, CONFIG, 0.5)
    y = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoiser(y, 0.5), denoiser(y, 0.5))
    assert not torch.equal(denoiser.train()(y, 0.5), denoiser(y, 0.5))


def test_the_output_is_in_single_precision_whatever_the_backbone_computes_in():
    denoiser = build_denoiser("mlp", 16, SHAPE, {}, CONFIG, 0.5)
    denoiser.autocast = torch.bfloat16
    assert denoiser(torch.zeros(2, *SHAPE), 0.5).dtype == torch.float32


@pytest.mark.parametrize(
    ("option", "value"),
    [("autocast", "float8"), ("compile", 1), ("channels_last", "yes"), ("checkpointing", None)],
)
def test_an_impossible_way_to_compute_is_an_error_naming_it(option, value):
    with pytest.raises((ValueError, TypeError), match=option):
        replace(CONFIG, **{option: value})
