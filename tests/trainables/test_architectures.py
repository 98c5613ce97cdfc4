"""What is special to one backbone: the sizes it must have and the options it takes."""

import math

import pytest
import torch
from torch import nn

from trainables.architectures import build, forward_flops, n_params
from trainables.architectures.embedding import features
from trainables.architectures.unet import Attention, norm, resample


def test_the_default_mlp_on_digits_has_its_published_size():
    d, w = 64, 256
    expected = (d * w + w) + (32 * w + w) + 3 * 2 * (w * w + w) + (w * d + d)
    assert n_params(build("mlp", w, (1, 8, 8))) == expected == 436_288


def test_the_cost_of_an_mlp_is_two_operations_per_weight():
    d, w = 16, 32
    weights = d * w + 32 * w + 2 * 2 * w * w + w * d
    assert forward_flops(build("mlp", w, (1, 4, 4), depth=2), (1, 4, 4)) == 2 * weights


def test_an_mlp_narrower_than_its_images_is_refused():
    with pytest.raises(ValueError, match=r"mlp: `width` must be .* d = 64 .* got 63"):
        build("mlp", 63, (1, 8, 8))


@pytest.mark.parametrize("depth", [0, -1, True])
def test_a_depth_that_is_no_whole_number_is_refused(depth):
    with pytest.raises(ValueError, match="mlp: `depth` must be a whole number of at least 1"):
        build("mlp", 64, (1, 8, 8), depth=depth)


def test_noise_features_are_sines_and_cosines_at_frequencies_from_1_to_32():
    c = torch.tensor([0.3, -1.0], dtype=torch.float64)
    out = features(c, 16)
    assert out.shape == (2, 32)
    torch.testing.assert_close(out[:, 0], c.sin())
    torch.testing.assert_close(out[:, 31], (32 * c).cos())


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("mult", (1, 2, 2), "halved 2 times"),
        ("mult", (), "list of whole numbers"),
        ("mult", (1, 0), "list of whole numbers"),
        ("blocks", 0, "at least 1"),
        ("attention", (14, 3), r"heights \[14, 7\]"),
    ],
)
def test_a_bad_unet_option_is_an_error_naming_it_and_what_is_allowed(option, value, allowed):
    with pytest.raises(ValueError, match=rf"unet: `{option}` must be .*{allowed}.*, got "):
        build("unet", 8, (1, 14, 14), **{option: value})


@pytest.mark.parametrize("width", [3, 7])
def test_an_odd_unet_is_refused(width):
    with pytest.raises(ValueError, match="unet: `width` must be an even whole number"):
        build("unet", width, (1, 4, 4))


@pytest.mark.parametrize(
    "options",
    [
        {"mult": (1,)},
        {"mult": [1, 2, 3], "blocks": 2},
        {"attention": (14, 7)},
        {"attention": (14,), "blocks": 2},
    ],
)
def test_every_layout_of_a_unet_keeps_the_shape_and_uses_all_its_weights(options):
    shape = (3, 14, 14) if len(options.get("mult", (1, 2))) < 3 else (3, 12, 12)
    net = build("unet", 6, shape, **options)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    out = net(x, torch.zeros(2))
    out.square().sum().backward()
    assert out.shape == x.shape
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


def test_a_unet_sees_the_whole_image_through_its_lower_level():
    net = build("unet", 8, (1, 8, 8), attention=(4,))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    net(x, torch.zeros(1))[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("channels", [2, 6, 16, 48, 128, 132, 256])
def test_group_norm_has_at_most_32_groups_that_divide_the_channels(channels):
    layer = norm(channels)
    assert isinstance(layer, nn.GroupNorm) and channels % layer.num_groups == 0
    assert layer.num_groups <= max(1, min(32, channels // 4))


def test_attention_is_a_softmax_over_positions():
    layer = Attention(4).double()
    nn.init.normal_(layer.out.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q, k, v = layer.qkv(layer.norm(x)).reshape(3, 4, 6)
    mixed = v @ torch.softmax(q.T @ k / math.sqrt(4), dim=1).T
    expected = (x + layer.out(mixed.view(1, 4, 2, 3))) * math.sqrt(0.5)
    torch.testing.assert_close(layer(x), expected)


def test_going_up_and_then_down_changes_nothing():
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample(resample(x, "up"), "down"), x)
