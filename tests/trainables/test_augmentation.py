"""What is done to training images, and that the denoiser is told of it."""

import math
from dataclasses import replace

import pytest
import torch

from tests.backbones import OPTIONS
from trainables.augmentation import LABEL, augmented, drawn, label_of
from trainables.batches import Batches
from trainables.config import TrainConfig
from trainables.train import build_denoiser, train

CONFIG = TrainConfig(batch=64)
SHAPE = (1, 4, 4)
NOTHING = torch.zeros(1, 8)


def with_(**values):
    """Parameters of one image, a0 ... a7 by name."""
    parameters = NOTHING.clone()
    for name, value in values.items():
        parameters[0, int(name[1])] = value
    return parameters


def picture(h=16, w=16, seed=0):
    return torch.randn(1, 2, h, w, generator=torch.Generator().manual_seed(seed)).double()


def ramp(h, w):
    """Column and row of each pixel's centre, from the image's centre."""
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    centred = [columns - (w - 1) / 2, rows - (h - 1) / 2]
    return torch.stack(centred)[None].double()


def inner(x, margin):
    return x[..., margin:-margin, margin:-margin]


def test_nothing_changes_nothing_and_is_told_as_zeros():
    x = picture()
    assert torch.equal(augmented(x, NOTHING), x)
    assert torch.equal(label_of(NOTHING), torch.zeros(1, LABEL))


def test_mirror_images_are_exact():
    x = picture()
    assert torch.equal(augmented(x, with_(a0=1)), x.flip(3))
    assert torch.equal(augmented(x, with_(a1=1)), x.flip(2))
    assert torch.equal(augmented(x, with_(a0=1, a1=1)), x.flip(2, 3))


def test_a_quarter_turn_is_exact():
    x = picture()
    turned = augmented(x, with_(a3=math.pi / 2))
    torch.testing.assert_close(turned, torch.rot90(x, -1, (2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("h", "w"), [(16, 16), (16, 8)])
def test_a_shift_is_in_eighths_of_width_and_height(h, w):
    x = picture(h, w)
    moved = augmented(x, with_(a6=8 * 2 / w, a7=-8 * 1 / h))
    torch.testing.assert_close(
        inner(moved, 3), inner(x.roll((-1, 2), (2, 3)), 3), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("h", "w"), [(32, 32), (32, 24)])
@pytest.mark.parametrize(
    ("given", "matrix"),
    [
        ({"a2": 1.0}, [[2**0.2, 0.0], [0.0, 2**0.2]]),
        ({"a3": 0.3}, [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]),
        ({"a5": 1.0}, [[2**0.2, 0.0], [0.0, 2**-0.2]]),
        ({"a4": math.pi / 2, "a5": 1.0}, [[2**-0.2, 0.0], [0.0, 2**0.2]]),
    ],
)
def test_linear_maps_take_a_ramp_to_its_image(h, w, given, matrix):
    x = ramp(h, w)
    back = torch.tensor(matrix, dtype=torch.float64).inverse()
    expected = torch.einsum("ij,njhw->nihw", back, x)
    found = augmented(x, with_(**given))
    # A tenth of a pixel: torch's bicubic kernel (a = -3/4) bends a ramp a little.
    torch.testing.assert_close(inner(found, 8), inner(expected, 8), rtol=0, atol=0.1)


def test_images_are_changed_one_by_one():
    x = torch.cat([picture(seed=i) for i in range(3)])
    parameters = torch.cat([with_(a3=0.4, a6=1.0), NOTHING, with_(a2=-1.0, a1=1)])
    whole = augmented(x, parameters)
    for i in range(3):
        alone = augmented(x[i : i + 1], parameters[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(whole[1], x[1])


def test_what_is_told_is_the_table():
    told = label_of(torch.tensor([[1.0, 1.0, 0.5, 0.3, 0.7, -2.0, 0.1, 0.2]]))[0]
    expected = [
        1, 1, 0.5, math.cos(0.3) - 1, math.sin(0.3),
        -2 * math.cos(0.7), -2 * math.sin(0.7), 0.1, 0.2,
    ]  # fmt: skip
    torch.testing.assert_close(told, torch.tensor(expected))


@pytest.mark.parametrize("p", [0.0, 0.15, 1.0])
def test_operations_happen_as_often_as_asked_and_mirroring_always(p):
    n = 20_000
    happened = (drawn(n, p, torch.Generator().manual_seed(0)) != 0).double().mean(0)
    expected = torch.tensor([0.5, p / 2, p, p, p, p, p, p], dtype=torch.float64)
    error = 5 * (expected * (1 - expected) / n).sqrt()
    assert ((happened - expected).abs() <= error).all()


X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def batches(config, **options):
    return Batches(X, config, seed=3, draw=1, **options)


@pytest.mark.parametrize("change", [{"xflip": True}, {"augment": 0.3}])
def test_noise_and_choice_of_images_stay_and_workers_share_a_batch(change):
    plain, changed = batches(CONFIG), batches(replace(CONFIG, **change))
    assert all(torch.equal(a, b) for a, b in zip(plain(4)[1:], changed(4)[1:], strict=True))
    parts = [batches(replace(CONFIG, **change), share=slice(32 * r, 32 * (r + 1))) for r in (0, 1)]
    whole = changed(4)[0]
    assert torch.equal(whole, torch.cat([part(4)[0] for part in parts]))
    assert not torch.equal(whole, plain(4)[0])
    assert not torch.equal(whole, changed(5)[0])
    if "augment" in change:
        shares = [part.augment(4) for part in parts]
        assert torch.equal(changed.augment(4), torch.cat(shares))


def test_half_of_the_images_are_mirrored_and_nothing_else_is_done():
    x, flipped = batches(CONFIG)(0)[0], batches(replace(CONFIG, xflip=True))(0)[0]
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(3))
    assert 20 <= int(same.sum()) <= 44
    assert batches(replace(CONFIG, xflip=True)).augment(0) is None


def trained(name, config, kimg=(0.048,), **options):
    options = {**OPTIONS.get(name, {}), **options}
    denoiser = build_denoiser(name, 16, SHAPE, options, config, 0.5)
    list(train(denoiser, X, config, kimg, seed=0, draw=0))
    return denoiser.eval()


def test_a_denoiser_is_told_and_asked_with_zeros_afterwards():
    config = TrainConfig(batch=8, lr=1e-2, warmup_kimg=0.0, augment=0.5)
    denoiser, y = trained("ddpmpp", config, augment_dim=LABEL), X[:2]
    told = label_of(torch.cat([with_(a0=1), with_(a6=1.0)]))
    with torch.no_grad():
        unsaid, zeros = denoiser(y, 0.5), denoiser(y, 0.5, augment=torch.zeros(2, LABEL))
        assert torch.equal(unsaid, zeros)
        assert not torch.allclose(unsaid, denoiser(y, 0.5, augment=told), atol=1e-4)


def test_a_backbone_that_is_not_told_is_refused():
    config = TrainConfig(batch=8, augment=0.5)
    with pytest.raises(ValueError, match="not told of it and would learn to draw augmented"):
        trained("mlp", config)
    with pytest.raises(ValueError, match="wanted one with `augment_dim` 9"):
        trained("ddpmpp", config, augment_dim=3)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("augment", -0.1, "in [0, 1]"),
        ("augment", 2, "in [0, 1]"),
        ("weight_decay", -1.0, "at least 0"),
    ],
)
def test_settings_out_of_range_are_errors(field, value, allowed):
    with pytest.raises(
        ValueError, match=rf"`{field}`.*{allowed.replace('[', '.').replace(']', '.')}"
    ):
        TrainConfig(**{field: value})


def test_weights_decay_as_written_out_by_hand():
    config = TrainConfig(batch=8, lr=1e-2, warmup_kimg=0.0, weight_decay=0.5)
    before = build_denoiser("mlp", 16, SHAPE, OPTIONS.get("mlp", {}), config, 0.5)
    start = {n: p.detach().clone() for n, p in before.named_parameters()}
    with_decay = dict(trained("mlp", config, kimg=(0.008,)).named_parameters())
    without = dict(
        trained("mlp", replace(config, weight_decay=0.0), kimg=(0.008,)).named_parameters()
    )
    for name, weight in start.items():
        torch.testing.assert_close(with_decay[name], without[name] - 1e-2 * 0.5 * weight)
