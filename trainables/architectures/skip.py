r"""A plain convolutional autoencoder with skip connections: no residuals, no attention.

Each level halves the resolution by a convolution of stride 2 and doubles it by nearest
neighbours; a 1 x 1 convolution hands a few channels of every level across: the "skip" network of
Ulyanov et al. 2018 (deep image prior, arXiv 1711.10925), with GroupNorm for batch norm, as images
of a batch must not see each other, and SiLU. Every layer is shifted by a linear map of the noise
features; at one noise level that is a bias.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.architectures.blocks import Maps, Style
from trainables.architectures.embedding import features
from trainables.architectures.labelled import Labelled
from trainables.registry import is_int, require

FREQUENCIES = 16


class Layer(nn.Module):
    """silu(norm(conv(x) + linear(embedding)))."""

    def __init__(
        self, inputs: int, outputs: int, size: int, style: Style, stride: int = 1
    ) -> None:
        """Channels in and out, side of the filter."""
        super().__init__()
        self.conv = style.conv(inputs, outputs, size)
        self.conv.stride = (stride, stride)
        self.embed = style.linear(style.embedding, outputs, bias=False)
        self.norm = style.norm(outputs)

    def forward(self, x: Maps, embedding: Float[Tensor, "n embedding"]) -> Maps:
        """The layer's output."""
        return F.silu(self.norm(self.conv(x) + self.embed(embedding)[:, :, None, None]))


class Skip(Labelled):
    """Down through the levels, and up again with what each has handed across."""

    def __init__(self, width: int, channels: int, levels: int, across: int) -> None:
        """`width` channels at each of `levels`, `across` handed over, `channels` of the image."""
        style = Style(embedding=2 * FREQUENCIES)
        super().__init__(style.embedding)
        inputs = [channels] + [width] * (levels - 1)
        self.across = nn.ModuleList(Layer(c, across, 1, style) for c in inputs)
        self.down = nn.ModuleList(Layer(c, width, 3, style, stride=2) for c in inputs)
        self.deep = nn.ModuleList(Layer(width, width, 3, style) for _ in inputs)
        self.up = nn.ModuleList(Layer(width + across, width, 3, style) for _ in inputs)
        self.output = style.conv(width, channels, 1, scale=0.0)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x` at noise codes `c_noise`."""
        e = self.told(features(c_noise, FREQUENCIES), label)
        h, handed = x, []
        for across, down, deep in zip(self.across, self.down, self.deep, strict=True):
            handed.append(across(h, e))
            h = deep(down(h, e), e)
        for up in reversed(self.up):
            wide = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = up(torch.cat([wide, handed.pop()], dim=1), e)
        return self.output(h)


def build(
    width: int, shape: tuple[int, int, int], *, levels: int | None = None, across: int = 4
) -> nn.Module:
    """A skip autoencoder (Ulyanov et al. 2018) for images of `shape` (c, h, w).

    `width` channels at each of `levels` resolutions below the image's; None = 5, or as often as
    its sides can be halved. `across`: channels that each level hands from the way down to the way
    up. Raises ValueError naming the option, its value and what is allowed.
    """
    owner, (channels, h, w) = "skip", shape
    require(is_int(width, 1), owner, "width", width, "a whole number of at least 1")
    require(is_int(across, 1), owner, "across", across, "a whole number of at least 1")
    most = next(n for n in range(h * w) if h % 2 ** (n + 1) or w % 2 ** (n + 1))
    allowed = f"from 1 to {most}, as often as {h} x {w} pixels can be halved"
    levels = min(5, most) if levels is None else levels
    require(is_int(levels, 1) and levels <= most, owner, "levels", levels, allowed)
    return Skip(width, channels, levels, across)
