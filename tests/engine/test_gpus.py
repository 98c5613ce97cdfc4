"""What a training keeps on a GPU, counted without one."""

import pytest
import torch
from torch import nn

from engine import cost
from engine.cost import estimate
from engine.gpus import HALF_PRECISION, MEMORY, kept_bytes
from engine.makespan import Machine
from tests.engine.helpers import job_of, prepared
from trainables.architectures import build
from trainables.denoiser import EDM


class Dimmer(nn.Module):
    """One weight times the image: its gradient needs the image, and nothing else does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, c_noise):
        return self.weight * x


def kept(backbone, side, images=2, checkpointing=False):
    """GB that a denoiser of this backbone keeps of images of one channel."""
    denoiser = EDM(backbone, 0.5).to("meta").train()
    given = torch.zeros(images, 1, side, side, device="meta"), torch.ones(images, device="meta")
    return kept_bytes(denoiser, *given, checkpointing=checkpointing)


def unet(side, width=8):
    """A small DDPM++."""
    return build("ddpmpp", width, (1, side, side), dropout=0.1)


def test_what_a_gradient_needs_is_kept_and_weights_are_not():
    pixels = 2 * 1 * 16 * 16
    assert 4 * pixels <= kept(Dimmer(), 16) <= 4 * (pixels + 4)


def test_what_is_kept_grows_with_images_and_pixels():
    one, two = (kept(unet(16), 16, images) for images in (2, 4))
    assert two == pytest.approx(2 * one, rel=0.05)
    assert kept(unet(32), 32) > 2 * one


def test_the_count_on_no_device_is_that_of_a_real_pass():
    backbone, sizes = unet(16), {}
    denoiser = EDM(backbone, 0.5).train()
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        denoiser(torch.zeros(2, 1, 16, 16), torch.ones(2))
    real = sum(storage.nbytes() for storage in sizes.values())
    assert kept(unet(16), 16) == pytest.approx(real, rel=0.05)


def test_checkpointing_keeps_each_blocks_input_and_one_block():
    all_of_it, less = kept(unet(32), 32), kept(unet(32), 32, checkpointing=True)
    inputs = 2 * 4 * 8 * 32 * 32  # of one block at full resolution, width 8
    assert 5 * inputs < less < all_of_it / 2


def test_every_gpu_that_a_plan_knows_has_a_memory():
    assert MEMORY.keys() == HALF_PRECISION.keys()


def test_a_training_that_may_not_fit_its_gpu_is_warned_of(tiny, tmp_path, monkeypatch):
    unet = {"backbone": {"name": "unet"}, "axes": {"width": [8, 16], "n_train": [8]}}
    mapping = {**tiny, **unet, "resources": {"gpus_per_trial": 1}}
    job = job_of(prepared(mapping, tmp_path))
    needed, image = cost._gpu_memory(job)
    assert 0 < image < needed < 1
    found = estimate(job, prepared(mapping, tmp_path).survey(), Machine(8, 1, "a100"))
    assert not cost.warnings(job, found)
    monkeypatch.setitem(MEMORY, "a100", (0.9 * needed, 80))
    (said,) = cost.warnings(job, found)
    assert said.startswith("a training keeps up to") and "training.checkpointing" in said
    shared = {**mapping, "resources": {"gpus_per_trial": 1, "workers": 2}}
    half, _ = cost._gpu_memory(job_of(prepared(shared, tmp_path)))
    assert needed / 2 < half < needed


def test_checkpointing_is_planned_as_a_fourth_pass(tiny, tmp_path):
    small = {"backbone": {"name": "ddpmpp"}, "axes": {"width": [4], "n_train": [8]}}
    mapping = {**tiny, **small, "resources": {"gpus_per_trial": 1}, "analyses": ["samples"]}
    seconds = []
    for checkpointing in (False, True):
        training = {**tiny["training"], "checkpointing": checkpointing}
        ready = prepared({**mapping, "training": training}, tmp_path)
        found = estimate(job_of(ready), ready.survey(), Machine(8, 1, "a100"))
        seconds.append(found.train_seconds)
    assert seconds[1] == pytest.approx(4 / 3 * seconds[0])
