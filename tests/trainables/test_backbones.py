"""The published U-Nets: their sizes, and their parts against the equations."""

import math
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from trainables.architectures import build
from trainables.architectures.__main__ import main
from trainables.architectures.blocks import Attention, Block, FilteredConv, Resample, Style
from trainables.architectures.dit import Block as DiTBlock
from trainables.architectures.sizes import PUBLISHED
from trainables.denoiser import PRECONDITIONINGS

SONG = Style(
    embedding=6, scale=math.sqrt(0.5), project=True, eps=1e-6, xavier=True, last_scale=1.0
)
ADM = Style(embedding=6, adaptive=True, head=4, last_scale=1.0)
SMALL = {"mult": (1, 2), "blocks": 1, "attention": (4,)}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stir(module):
    module.double()
    for i, p in enumerate(module.parameters()):
        with torch.no_grad():
            p.copy_(0.3 * drawn(*p.shape, seed=100 + i))
    return module


def rows(text):
    """Cells of the rows of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def table():
    """The rows that the command prints, by architecture, pixels and width."""
    with redirect_stdout(StringIO()) as printed:
        main()
    return {tuple(row[:3]): row[3:] for row in rows(printed.getvalue())}


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda e: f"{e.name}-{e.resolution}-{e.width}")
def test_a_published_network_has_its_published_size_and_cost_in_the_table(table, entry):
    parameters, published, gflop, known = table[
        entry.name, str(entry.resolution), str(entry.width)
    ]
    size = int(parameters.replace(",", ""))
    assert round(size / entry.rounding) * entry.rounding == entry.parameters
    assert published.removeprefix("about ") == f"{entry.parameters:,}"
    assert known == ("" if entry.gflop is None else f"{entry.gflop:g}")
    if known:
        assert float(gflop) == pytest.approx(entry.gflop, rel=0.01)


def test_the_table_of_the_manual_is_the_one_that_is_printed(table):
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    shown = rows(text[text.index("| architecture | pixels |") :].split("\n\n")[0])
    assert len(shown) > 10
    for *name, parameters, gflop, known in shown:
        here, published, cost, source = table[tuple(name)]
        assert parameters == here == published
        assert float(gflop) == float(cost) and known.strip("0") == source.strip("0")


@pytest.mark.parametrize("name", ["ncsnpp", "ddpmpp"])
def test_the_default_untrained_network_is_almost_zero(name):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    out = build(name, 8, (1, 8, 8), **SMALL)(x, torch.zeros(2))
    assert 0 < out.abs().max() < 1e-3


def group_norm(x, layer):
    """(x - mean) / sqrt(variance + eps) over each group of channels and all positions."""
    n, c, h, w = x.shape
    g = x.reshape(n, layer.num_groups, -1)
    g = (g - g.mean(2, keepdim=True)) / (g.var(2, correction=0, keepdim=True) + layer.eps).sqrt()
    return g.view(n, c, h, w) * layer.weight.view(1, c, 1, 1) + layer.bias.view(1, c, 1, 1)


def correlate(x, layer):
    """sum_{c, i, j} w[o, c, i, j] x[c, p + i, q + j], one position at a time, zero outside."""
    size = layer.kernel_size[0]
    padded = F.pad(x, [size // 2] * 4)
    out = torch.empty(len(x), layer.out_channels, *x.shape[2:], dtype=x.dtype)
    for p in range(x.shape[2]):
        for q in range(x.shape[3]):
            patch = padded[:, :, p : p + size, q : q + size]
            out[:, :, p, q] = torch.einsum("ncij,ocij->no", patch, layer.weight) + layer.bias
    return out


@pytest.mark.parametrize("mode", ["", "down", "up"])
def test_a_block_of_ddpmpp_is_its_equations(mode):
    block, x, e = stir(Block(8, 16, SONG, mode)), drawn(2, 8, 4, 4), drawn(2, 6, seed=1)

    def silu(z):
        return z / (1 + torch.exp(-z))

    def resample(z):
        if mode == "down":
            return sum(z[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
        return z.repeat_interleave(2, 2).repeat_interleave(2, 3) if mode == "up" else z

    h = correlate(resample(silu(group_norm(x, block.norm0))), block.conv0)
    h = h + (e @ block.embed.weight.T + block.embed.bias)[:, :, None, None]
    h = correlate(silu(group_norm(h, block.norm1)), block.conv1)
    expected = (correlate(resample(x), block.skip) + h) / math.sqrt(2)
    torch.testing.assert_close(block(x, e), expected)


def test_a_block_of_adm_scales_and_shifts_after_the_norm():
    block, x, e = stir(Block(8, 8, ADM)), drawn(2, 8, 4, 4), drawn(2, 6, seed=1)
    scale, shift = (e @ block.embed.weight.T + block.embed.bias)[:, :, None, None].split(8, dim=1)
    h = correlate(F.silu(group_norm(x, block.norm0)), block.conv0)
    h = correlate(F.silu((1 + scale) * group_norm(h, block.norm1) + shift), block.conv1)
    torch.testing.assert_close(block(x, e), x + h)


@pytest.mark.parametrize("style", [SONG, ADM], ids=["one head", "heads of 4"])
def test_attention_is_a_softmax_over_positions_head_by_head(style):
    layer, x = stir(Attention(8, style)), drawn(2, 8, 3, 2)
    qkv = layer.qkv(group_norm(x, layer.norm)).flatten(2)
    size, mixed = style.head or 8, []
    for start in range(0, 8, size):
        q, k, v = (qkv[:, third + start : third + start + size] for third in (0, 8, 16))
        weights = torch.softmax(q.mT @ k / math.sqrt(size), dim=2)
        mixed.append(v @ weights.mT)
    expected = (x + layer.out(torch.cat(mixed, 1).view_as(x))) * style.scale
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_is_the_convolution_with_the_filter(taps):
    x = drawn(2, 3, 6, 4)
    f = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    pad = len(taps) // 2
    down = torch.zeros(2, 3, 3, 2, dtype=torch.float64)
    padded = F.pad(x, [pad] * 4)
    shift = pad - (len(taps) - 1) // 2
    for i, a in enumerate(f):
        for j, b in enumerate(f):
            down += a * b * padded[..., i + shift :, j + shift :][..., 0:6:2, 0:4:2]
    torch.testing.assert_close(Resample("down", taps).double()(x), down)
    # Doubling is 4 times the transpose of halving: <down(x), z> = <x, up(z)> / 4.
    z = drawn(2, 3, 3, 2, seed=1)
    up = Resample("up", taps).double()(z)
    torch.testing.assert_close((down * z).sum(), (x * up).sum() / 4)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_keeps_a_constant_image_away_from_the_border(taps):
    x = torch.ones(1, 2, 8, 8)
    assert torch.equal(Resample("down", taps)(x)[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    assert torch.equal(Resample("up", taps)(x)[..., 1:-1, 1:-1], torch.ones(1, 2, 14, 14))


def test_filtering_commutes_with_the_convolution_of_the_residual_path():
    style = Style(embedding=1, taps=(1, 3, 3, 1))
    layer, x = FilteredConv(2, 3, style).double(), drawn(2, 2, 8, 6)
    kernel = layer.filter.kernel.expand(2, 1, 4, 4)
    smooth = F.conv2d(x, kernel, padding=2, groups=2)
    expected = F.conv2d(smooth, layer.conv.weight, layer.conv.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("encoder", ["standard", "residual", "skip"])
@pytest.mark.parametrize("decoder", ["standard", "skip"])
def test_every_layout_of_song_uses_all_its_weights(encoder, decoder):
    options = {"encoder": encoder, "decoder": decoder, "last_scale": 1.0, "mult": (1, 1, 2)}
    net = build("ncsnpp", 4, (1, 8, 8), **{**SMALL, **options, "augment_dim": 3})
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    out = net(x, torch.zeros(2), None, torch.ones(2, 3))
    out.square().sum().backward()
    assert out.shape == x.shape
    assert all(p.grad.any() for p in net.parameters() if p.requires_grad)


def test_no_augmentation_is_the_augmentation_label_zero():
    net = build("ddpmpp", 4, (1, 8, 8), **SMALL, last_scale=1.0)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = net(x, torch.zeros(2))
    assert torch.equal(plain, net(x, torch.zeros(2), None, torch.zeros(2, 9)))
    assert not torch.allclose(plain, net(x, torch.zeros(2), None, torch.ones(2, 9)))


def test_an_augmentation_label_that_the_network_does_not_know_is_refused():
    net = build("ddpmpp", 4, (1, 8, 8), **SMALL, augment_dim=0)
    with pytest.raises(ValueError, match="its `augment_dim` is 0"):
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1), None, torch.zeros(1, 9))


@pytest.mark.parametrize(("preconditioning", "code"), [("ve", math.log(1.5)), ("vp", None)])
def test_published_networks_are_told_the_noise_code_of_the_literature(preconditioning, code):
    net = build("ncsnpp", 4, (1, 8, 8), **SMALL)
    denoiser = PRECONDITIONINGS[preconditioning](net, 0.5)
    s = torch.tensor([3.0], dtype=torch.float64)
    code = 999 * denoiser.time(s).item() if code is None else code
    assert denoiser.coefficients(s).c_noise.item() == pytest.approx(code)


def test_a_block_of_dit_is_its_equations():
    block, h, e = stir(DiTBlock(8, 2, 12)), drawn(2, 5, 8), drawn(2, 8, seed=1)

    def norm(z):
        return (z - z.mean(2, keepdim=True)) / (z.var(2, correction=0, keepdim=True) + 1e-6).sqrt()

    def linear(z, layer):
        return z @ layer.weight.T + layer.bias

    b0, g0, a0, b1, g1, a1 = linear(e, block.modulation)[:, None].split(8, dim=2)
    qkv, mixed = linear((1 + g0) * norm(h) + b0, block.qkv), []
    for start in (0, 4):
        q, k, v = (qkv[..., third + start : third + start + 4] for third in (0, 8, 16))
        mixed.append(torch.softmax(q @ k.mT / 2, dim=2) @ v)
    h1 = h + a0 * linear(torch.cat(mixed, dim=2), block.out)
    z = linear((1 + g1) * norm(h1) + b1, block.up)
    gelu = z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    torch.testing.assert_close(block(h, e), h1 + a1 * linear(gelu, block.down))


def test_a_token_of_dit_is_a_patch_and_knows_where_it_is():
    net = build("dit", 8, (2, 4, 6), depth=1, heads=2)
    assert net.position.shape == (6, 8) and len(net.position.unique(dim=0)) == 6
    with torch.no_grad():  # the output layer alone: each pixel of a patch is its own feature
        net.input.weight.copy_(torch.eye(8))
        net.output.weight.copy_(torch.eye(8))
    net.norm, net.position = torch.nn.Identity(), torch.zeros(6, 8)
    x = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x, torch.zeros(1)), x)


def test_a_skip_net_halves_as_often_as_it_can_and_hands_across():
    net = build("skip", 8, (3, 12, 20))
    assert [tuple(layer.conv.weight.shape) for layer in net.down] == [(8, 3, 3, 3), (8, 8, 3, 3)]
    assert [tuple(layer.conv.weight.shape) for layer in net.up] == [(8, 12, 3, 3)] * 2
    assert net(torch.zeros(2, 3, 12, 20), torch.zeros(2)).shape == (2, 3, 12, 20)


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("adm", "head", 3, "divisor of the 4 channels"),
        ("adm", "mult_emb", 0, "at least 1"),
        ("adm", "mult", (1, 0), "list of whole numbers"),
        ("dit", "patch", 3, "divisor of the sides"),
        ("dit", "heads", 3, "divisor of the width 4"),
        ("dit", "depth", 0, "at least 1"),
        ("skip", "levels", 4, "from 1 to 3"),
        ("skip", "across", 0, "at least 1"),
    ],
)
def test_a_bad_option_of_the_others_is_named_too(name, option, value, allowed):
    with pytest.raises(ValueError, match=rf"{name}: `{option}` must be .*{allowed}.*, got "):
        build(name, 4, (1, 8, 8), **{option: value})


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("width", 5, "even whole number"),
        ("mult", (1, 2, 2, 2, 2), "halved 4 times"),
        ("mult", [0], "list of whole numbers"),
        ("blocks", 0, "at least 1"),
        ("attention", (5,), r"heights \[8, 4\]"),
        ("features", "sines", "fourier, positional"),
        ("encoder", "aux", "standard, residual, skip"),
        ("decoder", "residual", "standard, skip"),
        ("taps", (1, 2, 1), "even number of taps"),
        ("mult_emb", 0, "at least 1"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("augment_dim", -1, "from 0"),
        ("last_scale", -1.0, "at least 0"),
    ],
)
def test_a_bad_option_is_an_error_naming_it_and_what_is_allowed(option, value, allowed):
    options = {"width": 4, **SMALL, option: value}
    with pytest.raises(ValueError, match=rf"ddpmpp: `{option}` must be .*{allowed}.*, got "):
        build("ddpmpp", options.pop("width"), (1, 8, 8), **options)
