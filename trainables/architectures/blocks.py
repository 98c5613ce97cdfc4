r"""Parts of the U-Nets of the literature: resampling, attention, residual blocks, noise features.

A residual block maps x to :math:`\rho\,(skip(x) + conv(silu(n)))`, n being a norm of
conv(resample(silu(norm(x)))) that takes in the noise embedding: as a shift before the norm
(Song et al. 2021, arXiv 2011.13456, appendix H, with :math:`\rho = \sqrt{1/2}`), or as scale and
shift after it (Dhariwal & Nichol 2021, arXiv 2105.05233, :math:`\rho = 1`). What else tells the
two apart is a `Style`; Karras et al. 2022 (arXiv 2206.00364, table 7) lists the settings.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Maps = Float[Tensor, "n _channels _rows _columns"]
Embedding = Float[Tensor, "n _embedding"]
Layer = TypeVar("Layer", bound=nn.Module)

LOWEST = 1e-4
"""Radians per unit of the noise code, of the slowest position feature."""


@dataclass(frozen=True)
class Style:
    """How all blocks of a network are made."""

    embedding: int
    """Size of the noise embedding."""
    taps: tuple[int, ...] = (1, 1)
    """Filter along each side before halving and after doubling, up to a factor; even length."""
    dropout: float = 0.0
    """Probability with which a block drops a feature in training."""
    scale: float = 1.0
    """Factor of each residual sum."""
    adaptive: bool = False
    """Whether the embedding scales and shifts after the norm, or shifts before it."""
    project: bool = False
    """Whether the skip of a resampling block has a 1x1 convolution even at equal channels."""
    head: int | None = None
    """Channels per head of attention; None = one head."""
    eps: float = 1e-5
    """Added to the variance in a norm."""
    xavier: bool = False
    """Xavier-uniform weights and zero biases; else torch's own, uniform up to 1/sqrt(fan_in)."""
    last_scale: float = 0.0
    """Factor on the initial weights of each layer that ends a residual branch, or the network."""

    def norm(self, channels: int) -> nn.GroupNorm:
        """GroupNorm with min(32, channels/4) groups, or the next smaller number that divides."""
        most = max(1, min(32, channels // 4))
        groups = next(g for g in range(most, 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels, eps=self.eps)

    def conv(self, inputs: int, outputs: int, size: int, scale: float = 1.0) -> nn.Conv2d:
        """A convolution that keeps the resolution, its initial weights times `scale`."""
        return self._start(nn.Conv2d(inputs, outputs, size, padding=size // 2), scale)

    def linear(self, inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
        """A linear layer."""
        return self._start(nn.Linear(inputs, outputs, bias=bias), 1.0)

    def _start(self, layer: Layer, scale: float) -> Layer:
        for p in layer.parameters():
            if self.xavier:
                nn.init.xavier_uniform_(p) if p.dim() > 1 else nn.init.zeros_(p)
            with torch.no_grad():
                p.mul_(scale)
        return layer


class Checkpointed(nn.Module):
    """A network of blocks, each of which a training may compute again instead of keeping it."""

    checkpointing = False
    """Whether a training keeps each block's input alone and computes the rest again."""

    def through(self, block: nn.Module, h: Tensor, embedding: Embedding) -> Tensor:
        """The output of one of its blocks."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, h, embedding, use_reentrant=False)
        return block(h, embedding)


class Resample(nn.Module):
    """Half ("down"), double ("up") or the same ("") resolution, through a separable filter.

    The filter has gain 1: (1, 1) is the mean of 2 x 2 pixels and the nearest neighbour,
    (1, 3, 3, 1) the filter of StyleGAN2 (arXiv 1912.04958). Beyond the border the image is zero.
    """

    def __init__(self, mode: str, taps: tuple[int, ...]) -> None:
        """`taps`: the filter along each side up to a factor, of even length."""
        super().__init__()
        self.mode, self.pad = mode, (len(taps) - 1) // 2
        kernel = torch.outer(torch.tensor(taps), torch.tensor(taps)) / sum(taps) ** 2
        # No part of the weights: it is known from the options.
        self.register_buffer("kernel", kernel.view(1, 1, len(taps), len(taps)), persistent=False)

    def forward(self, x: Maps) -> Maps:
        """`x` at the new resolution."""
        if not self.mode:
            return x
        c = x.shape[1]
        kernel = self.kernel.expand(c, -1, -1, -1)
        if self.mode == "down":
            return F.conv2d(x, kernel, stride=2, padding=self.pad, groups=c)
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=self.pad, groups=c)


class FilteredConv(nn.Module):
    """A 3 x 3 convolution, then the filter and every other pixel, all with one border of zeros.

    The same function as StyleGAN2's, which filters first: both are linear and know no position.
    """

    def __init__(self, inputs: int, outputs: int, style: Style) -> None:
        """Channels in and out; the filter is the style's."""
        super().__init__()
        self.filter = Resample("down", style.taps)
        self.conv = style.conv(inputs, outputs, 3)

    def forward(self, x: Maps) -> Maps:
        """`x` at half the resolution."""
        h = F.conv2d(x, self.conv.weight, self.conv.bias, padding=self.filter.pad + 1)
        kernel = self.filter.kernel.expand(h.shape[1], -1, -1, -1)
        return F.conv2d(h, kernel, stride=2, groups=h.shape[1])


class Attention(nn.Module):
    """Self-attention over positions, as a residual step.

    Query, key and value are the first, second and last third of the inner channels; each head has
    a contiguous share of every third.
    """

    def __init__(self, channels: int, style: Style) -> None:
        """`channels` in and out."""
        super().__init__()
        self.heads, self.scale = max(1, channels // (style.head or channels)), style.scale
        self.norm = style.norm(channels)
        # Song et al. start the attention a fifth as strong (its variance).
        self.qkv = style.conv(channels, 3 * channels, 1, math.sqrt(0.2) if style.xavier else 1.0)
        self.out = style.conv(channels, channels, 1, style.last_scale)

    def forward(self, x: Maps) -> Maps:
        """scale (x + out(softmax(q k / sqrt(channels per head)) v))."""
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(n, 3, self.heads, c // self.heads, h * w)
        # Only of channels that lie together do the fused kernels take products: twice as fast,
        # and without the (h w)^2 weights in memory.
        q, k, v = qkv.mT.contiguous().unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).mT.reshape(n, c, h, w)
        return (x + self.out(mixed)) * self.scale


class Block(nn.Module):
    """Residual block (see the module), resampled as `mode` says, then attention if asked for."""

    def __init__(
        self, inputs: int, outputs: int, style: Style, mode: str = "", attention: bool = False
    ) -> None:
        """Channels in and out, "down", "up" or "" resampling."""
        super().__init__()
        self.mode, self.scale, self.adaptive = mode, style.scale, style.adaptive
        self.resample = Resample(mode, style.taps)
        self.norm0 = style.norm(inputs)
        self.conv0 = style.conv(inputs, outputs, 3)
        self.embed = style.linear(style.embedding, outputs * (2 if style.adaptive else 1))
        self.norm1 = style.norm(outputs)
        self.dropout = nn.Dropout(style.dropout)
        self.conv1 = style.conv(outputs, outputs, 3, style.last_scale)
        plain = inputs == outputs and not (mode and style.project)
        self.skip = nn.Identity() if plain else style.conv(inputs, outputs, 1)
        self.attention = Attention(outputs, style) if attention else nn.Identity()

    def forward(self, x: Maps, embedding: Embedding) -> Maps:
        """The block's output."""
        h = self.conv0(self.resample(F.silu(self.norm0(x))))
        e = self.embed(embedding)[:, :, None, None]
        if self.adaptive:
            factor, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), factor + 1)
        else:
            h = self.norm1(h + e)
        h = self.conv1(self.dropout(F.silu(h)))
        return self.attention((self.skip(self.resample(x)) + h) * self.scale)


class Positional(nn.Module):
    r"""Sines, then cosines, of :math:`f_k c` with f_k geometric from 1 down to `lowest` radians.

    The position code of Vaswani et al. 2017 (arXiv 1706.03762), as Ho et al. 2020 (DDPM) use it.
    """

    def __init__(self, size: int, lowest: float) -> None:
        """`size` features, an even number; the last f_k is `lowest`."""
        super().__init__()
        exponents = torch.linspace(0, 1, size // 2) if size > 2 else torch.zeros(1)
        self.register_buffer("frequencies", lowest**exponents, persistent=False)

    def forward(self, c_noise: Float[Tensor, " n"]) -> Embedding:
        """The features of the noise codes."""
        angles = torch.outer(c_noise, self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Fourier(nn.Module):
    r"""Sines, then cosines, of :math:`2\pi f_k c` with f_k drawn once from N(0, 16^2).

    The random Fourier features of Song et al. 2021. The frequencies are stored with the weights
    and never trained.
    """

    def __init__(self, size: int) -> None:
        """`size` features, an even number."""
        super().__init__()
        self.frequencies = nn.Parameter(16 * torch.randn(size // 2), requires_grad=False)

    def forward(self, c_noise: Float[Tensor, " n"]) -> Embedding:
        """The features of the noise codes."""
        angles = torch.outer(c_noise, 2 * math.pi * self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1)
