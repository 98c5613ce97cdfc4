r"""A convolutional U-Net in the style of DDPM++: the backbone for images with structure.

Written from the equations: residual blocks :math:`(x + g(x, c))/\sqrt2` with GroupNorm and SiLU
(Ho et al. 2020, arXiv 2006.11239, appendix B), the skip scale of Song et al. 2021 (arXiv
2011.13456, appendix H), zero last layers, and the layout of Karras et al. 2022 (arXiv 2206.00364,
table 7, "DDPM++"). `width` is the number of channels at full resolution.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.architectures.embedding import features
from trainables.architectures.labelled import Labelled
from trainables.architectures.levels import attended
from trainables.registry import is_int, require

Maps = Float[Tensor, "n _channels _rows _columns"]


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with min(32, channels/4) groups, or the next smaller number that divides."""
    most = max(1, min(32, channels // 4))
    groups = next(g for g in range(most, 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv(inputs: int, outputs: int, size: int, *, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the resolution; Xavier-uniform or zero weights, zero bias."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    for p in layer.parameters():
        nn.init.zeros_(p) if zero or p.dim() == 1 else nn.init.xavier_uniform_(p)
    return layer


def resample(x: Maps, mode: str) -> Maps:
    """`x` at half ("down": mean of 2 x 2), double ("up": nearest) or the same ("") resolution."""
    if mode == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if mode == "up" else x


class Attention(nn.Module):
    """Self-attention over positions with one head, as a residual step."""

    def __init__(self, channels: int) -> None:
        """`channels` in and out; the last layer starts at zero."""
        super().__init__()
        self.norm = norm(channels)
        self.qkv = conv(channels, 3 * channels, 1)
        self.out = conv(channels, channels, 1, zero=True)

    def forward(self, x: Maps) -> Maps:
        """(x + out(softmax(q k / sqrt(channels)) v)) / sqrt(2)."""
        qkv = self.qkv(self.norm(x)).flatten(2).mT.contiguous()  # as the fused kernels want it
        q, k, v = qkv.unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).mT
        return (x + self.out(mixed.reshape(x.shape))) * math.sqrt(0.5)


class Block(nn.Module):
    """Residual block: norm, SiLU, (resample), conv, + embedding, norm, SiLU, conv, + skip."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, mode: str = "", attention: bool = False
    ) -> None:
        """Channels in and out, size of the noise embedding, "down", "up" or "" resampling."""
        super().__init__()
        self.mode = mode
        self.norm0 = norm(inputs)
        self.conv0 = conv(inputs, outputs, 3)
        self.embed = nn.Linear(embedding, outputs)
        self.norm1 = norm(outputs)
        self.conv1 = conv(outputs, outputs, 3, zero=True)
        self.skip = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Maps, embedding: Float[Tensor, "n embedding"]) -> Maps:
        """The block's output, at the resolution that `mode` says."""
        h = self.conv0(resample(F.silu(self.norm0(x)), self.mode))
        h = h + self.embed(embedding)[:, :, None, None]
        h = self.conv1(F.silu(self.norm1(h)))
        return self.attention((self.skip(resample(x, self.mode)) + h) * math.sqrt(0.5))


class UNet(Labelled):
    """Encoder, bottom and decoder; every encoder output is concatenated to a decoder input."""

    def __init__(
        self, width: int, channels: int, mult: tuple[int, ...], blocks: int, attend: list[bool]
    ) -> None:
        """`channels` of the image; `mult` and `attend` (self-attention) level by level."""
        e = 4 * width
        super().__init__(e)
        self.width = width
        self.embed = nn.Sequential(nn.Linear(width, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.input = conv(channels, width, 3)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        c, skips = width, [width]
        for level, m in enumerate(mult):
            if level:
                self.encoder.append(Block(c, c, e, "down"))
                skips.append(c)
            for _ in range(blocks):
                self.encoder.append(Block(c, m * width, e, attention=attend[level]))
                c = m * width
                skips.append(c)
        self.bottom = nn.ModuleList([Block(c, c, e, attention=attend[-1]), Block(c, c, e)])
        for level, m in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                attention = attend[level] and i == blocks
                self.decoder.append(Block(c + skips.pop(), m * width, e, attention=attention))
                c = m * width
            if level:
                self.decoder.append(Block(c, c, e, "up"))
        self.norm = norm(c)
        self.output = conv(c, channels, 3, zero=True)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x` at noise codes `c_noise`."""
        embedding = self.told(self.embed(features(c_noise, self.width // 2)), label)
        h = self.input(x)
        skips = [h]
        for block in self.encoder:
            h = block(h, embedding)
            skips.append(h)
        for block in self.bottom:
            h = block(h, embedding)
        for block in self.decoder:
            h = block(h if block.mode == "up" else torch.cat([h, skips.pop()], dim=1), embedding)
        return self.output(F.silu(self.norm(h)))


def build(
    width: int,
    shape: tuple[int, int, int],
    *,
    mult: Sequence[int] = (1, 2),
    blocks: int = 1,
    attention: Sequence[int] = (),
) -> nn.Module:
    """A U-Net for images of `shape` (c, h, w).

    `mult`: channels of each level in units of `width`, each level at half the resolution of the
    one before; `blocks`: residual blocks per level; `attention`: the heights (in pixels) of the
    levels with self-attention. Raises ValueError naming the option, its value and what is allowed.
    """
    even = is_int(width, 2) and width % 2 == 0
    require(even, "unet", "width", width, "an even whole number of at least 2")
    attends = attended("unet", shape, mult, blocks, attention)
    return UNet(width, shape[0], tuple(mult), blocks, list(attends))
