"""Options of a training that change how it computes: what each may change, and what not."""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from tests.backbones import OPTIONS
from tests.trainables import elsewhere
from trainables.architectures import CHECKPOINTED
from trainables.config import TrainConfig
from trainables.train import build_denoiser, train

SHAPE = (1, 4, 4)
CONFIG = TrainConfig(batch=4, lr=1e-3, warmup_kimg=0.0)


def run(name="ddpmpp", kimg=(0.012,), state=None, on_step=None, config=CONFIG, **options):
    images = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))
    options = {**OPTIONS.get(name, {}), **options}
    denoiser = build_denoiser(name, 8, SHAPE, options, config, 0.5)
    return list(
        train(denoiser, images, config, kimg, seed=0, draw=0, state=state, on_step=on_step)
    )[-1]


def distance(one, two):
    """Largest difference of the weights, in units of what the training has moved them."""
    most = max((one.raw[key] - two.raw[key]).abs().max() for key in one.raw)
    return (most / (3 * CONFIG.lr)).item()


@pytest.mark.parametrize("name", sorted(CHECKPOINTED))
def test_computing_blocks_again_changes_no_bit(name):
    options = {} if name == "dit" else {"dropout": 0.3}
    plain = run(name, **options)
    again = run(name, config=replace(CONFIG, checkpointing=True), **options)
    assert all(torch.equal(plain.raw[key], again.raw[key]) for key in plain.raw)


def test_a_backbone_without_blocks_cannot_compute_them_again():
    with pytest.raises(ValueError, match="kind Skip has no blocks"):
        run("skip", config=replace(CONFIG, checkpointing=True))


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [("channels_last", True, 0.05), ("autocast", "bfloat16", 1.0)],
)
def test_faster_ways_to_compute_end_near_the_same_weights(option, value, bound):
    plain, fast = run(), run(config=replace(CONFIG, **{option: value}))
    assert distance(plain, fast) < bound
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in fast.raw.values())


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
    assert distance(whole, run(config=config)) > 0.1


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
