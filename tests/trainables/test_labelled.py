"""Denoisers that are told a label of the image beside the noise level."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.backbones import OPTIONS
from trainables.architectures import ARCHITECTURES, build
from trainables.batches import Batches
from trainables.config import TrainConfig
from trainables.datasets.data import load
from trainables.train import Training, build_denoiser

CONFIG = TrainConfig(batch=64, lr=1e-2, warmup_kimg=0.0, ema_halflife_kimg=0.0, labels="unique")
SHAPE = (1, 2, 2)
Y = torch.linspace(-1, 1, 8).view(2, *SHAPE)
UNTOLD = ("linear", "gmm")


def denoiser(labels=2):
    return build_denoiser("mlp", 16, SHAPE, {"depth": 1}, CONFIG, 0.5, labels=labels)


def test_an_untrained_denoiser_says_the_same_under_every_label():
    told, plain = denoiser(), denoiser(labels=0)
    for label in (0, 1):
        labels = torch.tensor([label, label])
        assert torch.equal(told(Y, 0.5, labels), plain(Y, 0.5))


def test_the_weights_beside_the_labels_are_those_of_the_backbone_without():
    told, plain = (dict(denoiser(n).named_parameters()) for n in (3, 0))
    assert told.pop("backbone.table.weight").shape == (3, 16)
    assert told.keys() == plain.keys()
    assert all(torch.equal(told[name], value) for name, value in plain.items())


def test_labels_go_with_denoisers_that_are_told_them_alone():
    with pytest.raises(ValueError, match="it needs one per image"):
        denoiser()(Y, 0.5)
    with pytest.raises(ValueError, match="trained with no labels"):
        denoiser(labels=0)(Y, 0.5, torch.tensor([0, 1]))


@pytest.mark.parametrize("name", UNTOLD)
def test_a_backbone_that_knows_no_labels_says_so(name):
    config = replace(CONFIG, preconditioning="none")
    with pytest.raises(ValueError, match="cannot be told any"):
        build_denoiser(name, 16, SHAPE, {}, config, 0.5, labels=2)


@pytest.fixture(params=[name for name in ARCHITECTURES if name not in UNTOLD])
def stirred(request):
    """A denoiser on 4 x 4 pixels that is told one of three labels, its weights off zero."""
    options = OPTIONS.get(request.param, {})
    made = build_denoiser(request.param, 16, (1, 4, 4), options, CONFIG, 0.5, labels=3)
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return made


def test_every_backbone_is_told_the_label_of_its_own_image_and_learns_from_it_alone(stirred):
    y = torch.linspace(-1, 1, 48).view(3, 1, 4, 4)
    same, one = stirred(y, 0.5, torch.zeros(3).long()), stirred(y, 0.5, torch.tensor([0, 2, 0]))
    moved = (one - same).abs().amax((1, 2, 3))
    assert (moved > 1e-3).tolist() == [False, True, False]
    one.square().sum().backward()
    (table,) = (p for name, p in stirred.named_parameters() if name.endswith("table.weight"))
    assert table.grad.any(1).tolist() == [True, False, True]


def test_a_label_joins_the_embedding_before_its_layers_or_after_them_as_in_adm():
    late = {}
    for name in ("ddpmpp", "ncsnpp", "adm"):
        embed = build(name, 4, (1, 4, 4), **OPTIONS[name]).embed
        embed.tell(2)
        with torch.no_grad():
            embed.table.weight[1] = 1.0
            embed.layer1.weight.zero_()  # nothing passes but what comes after
        zero, one = (embed(torch.zeros(1), torch.tensor([k]), None) for k in (0, 1))
        late[name] = not torch.equal(zero, one)
    assert late == {"ddpmpp": False, "ncsnpp": False, "adm": True}


def test_a_label_of_its_own_brings_an_image_back_from_noise_that_hides_it():
    """At sigma 20 the posterior mean without labels is the mean of the two images, which is 0."""
    images = torch.stack([torch.full(SHAPE, 0.5), torch.full(SHAPE, -0.5)])
    found = {}
    for kind, labels in (("unique", torch.arange(2)), ("none", None)):
        config = replace(CONFIG, labels=kind, noise="fixed", sigma=20.0)
        told = denoiser(0 if labels is None else 2)
        training = Training(told, images, config, seed=0, draw=0, labels=labels)
        for _ in range(200):
            training.advance()
        noise = 20 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            out = told(images + noise, 20.0, *(() if labels is None else (labels,)))
        found[kind] = (out - images).square().mean().sqrt().item()
    assert found["unique"] < 0.15 < 0.35 < found["none"]


def test_the_labels_of_a_step_are_those_of_its_images():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, *SHAPE)
    config = replace(CONFIG, batch=64)
    batches = Batches(images, config, seed=3, draw=1, labels=torch.arange(5))
    for step in range(3):
        assert torch.equal(batches.labels(step).float(), batches(step)[0][:, 0, 0, 0])
    assert Batches(images, config, seed=3, draw=1).labels(0) is None


@pytest.fixture(scope="module")
def digits():
    return load("digits", n_heldout=100)


def test_the_class_of_a_digit_is_that_of_the_file(digits):
    from sklearn.datasets import load_digits

    known = load_digits()
    classes = {tuple(x): y for x, y in zip(known.data / 8 - 1, known.target, strict=True)}
    points = digits.subset(50, draw=1, split="b").reshape(50, -1)
    found = digits.subset_labels("class", 50, draw=1, split="b")
    assert found.tolist() == [classes[tuple(x)] for x in points]
    assert digits.n_classes == 10


def test_random_labels_belong_to_the_point_and_have_as_many_values(digits):
    small, large = (digits.subset_labels("random", n) for n in (40, 400))
    assert np.array_equal(small, large[:40])
    assert set(large) == set(range(10))
    assert np.mean(large == digits.subset_labels("class", 400)) == pytest.approx(0.1, abs=0.05)


def test_unique_labels_number_the_distinct_points():
    data = load("digits", n_heldout=100, copies=4)
    labels = data.subset_labels("unique", 12)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    points = data.subset(12).reshape(12, -1)
    assert all((points[labels == k] == points[labels == k][0]).all() for k in range(3))


def test_a_data_set_without_classes_has_unique_labels_alone():
    data = load("gaussian", n_heldout=10, n=50, dim=4)
    assert data.n_classes == 0 and data.labels_hash == ""
    assert data.subset_labels("unique", 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="the data set has no classes"):
        data.subset_labels("random", 3)


def test_points_of_a_subspace_carry_its_number():
    data = load("subspaces", n_heldout=10, n=60, dim=12, dims=[2, 3])
    points, labels = data.subset(40).reshape(40, -1), data.subset_labels("class", 40)
    for k, basis in enumerate(data.bases):
        inside = points[labels == k]
        assert np.abs(inside - inside @ basis @ basis.T).max() < 1e-6 < np.abs(inside).max()
    small = load("subspaces", n_heldout=10, n=60, dim=16, dims=[2, 3], resolution=2)
    assert small.bases == ()
