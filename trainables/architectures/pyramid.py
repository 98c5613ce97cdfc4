"""The U-Net that DDPM++, NCSN++ and ADM share, made of the blocks of a `Style`.

Every output of the encoder is concatenated to an input of the decoder. Beside the encoder a
smaller copy of the image may be handed down the levels, beside the decoder an output handed up:
the "residual" and "skip" paths of Song et al. 2021 (arXiv 2011.13456, appendix H).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.architectures.blocks import (
    Block,
    Checkpointed,
    Embedding,
    FilteredConv,
    Maps,
    Resample,
    Style,
)
from trainables.architectures.labelled import Labelled
from trainables.architectures.levels import attended
from trainables.registry import is_int, require


@dataclass(frozen=True)
class Layout:
    """What a `Pyramid` is made of beside its blocks."""

    width: int
    """Channels at full resolution, in units of which `mult` counts."""
    shape: tuple[int, int, int]
    """Images (c, h, w)."""
    mult: tuple[int, ...]
    """Channels of each level in units of the width, each level at half the resolution."""
    blocks: int
    """Residual blocks of the encoder per level; the decoder has one more."""
    attention: tuple[bool, ...]
    """Which levels have self-attention; the lowest level has one at its bottom."""
    noise: int
    """Features of the noise code."""
    label_late: bool
    """Whether a label joins the embedding after its two layers (ADM), or the features before."""
    attend_all: bool
    """Whether every block of the decoder at those levels attends (ADM), or the last alone."""
    encoder: str = "standard"
    """How the image itself reaches lower levels: "standard" = not, "residual" or "skip"."""
    decoder: str = "standard"
    """Whether the output is made at the top ("standard") or summed over the levels ("skip")."""
    augment_dim: int = 0
    """Size of the augmentation label, 0 = none."""


class Embed(Labelled):
    """Noise code, labels and augmentation label to the embedding that every block is given."""

    def __init__(self, layout: Layout, style: Style, features: nn.Module) -> None:
        """`features` makes `layout.noise` numbers of the noise code."""
        super().__init__(style.embedding if layout.label_late else layout.noise)
        self.late, self.features = layout.label_late, features
        self.augment = None
        if layout.augment_dim:
            self.augment = style.linear(layout.augment_dim, layout.noise, bias=False)
        self.layer0 = style.linear(layout.noise, style.embedding)
        self.layer1 = style.linear(style.embedding, style.embedding)

    def forward(
        self,
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None,
        augment: Float[Tensor, "n _augment"] | None,
    ) -> Embedding:
        """The embedding, "n style.embedding"."""
        e = self.features(c_noise)
        if self.augment is not None:
            # Zeros rather than nothing: every weight has a gradient, as data parallelism wants.
            nothing = e.new_zeros(len(e), self.augment.in_features)
            e = e + self.augment(nothing if augment is None else augment)
        elif augment is not None:
            raise ValueError("This denoiser knows no augmentation label: its `augment_dim` is 0.")
        if not self.late:
            e = self.told(e, label)
        e = self.layer1(F.silu(self.layer0(e)))
        return F.silu(self.told(e, label) if self.late else e)


class Level(nn.Module):
    """The blocks of one resolution, and the way to it from its neighbour."""

    def __init__(self, enter: nn.Module | None, blocks: Sequence[nn.Module]) -> None:
        """`enter` resamples; the top of the encoder and the bottom of the decoder have none."""
        super().__init__()
        self.enter, self.blocks = enter, nn.ModuleList(blocks)
        self.image: nn.Module | None = None
        """Of an encoder: what makes features of the image handed down."""
        self.output: nn.Sequential | None = None
        """Of a decoder: norm, silu and convolution to an output."""


class Pyramid(Checkpointed):
    """The U-Net of a `Layout` and a `Style`."""

    published_noise_code = True

    def __init__(self, layout: Layout, style: Style, features: nn.Module) -> None:
        """`features` makes `layout.noise` numbers of the noise code."""
        super().__init__()
        self.layout, self.scale = layout, style.scale
        self.augment_dim = layout.augment_dim
        self.embed = Embed(layout, style, features)
        self.input = style.conv(layout.shape[0], layout.width, 3)
        self.shrink = Resample("down", style.taps)
        self.grow = Resample("up", style.taps)
        skips = [layout.width]
        self.encoder = nn.ModuleList(self._encoder(style, skips))
        self.bottom = nn.ModuleList(
            Block(skips[-1], skips[-1], style, attention=attention) for attention in (True, False)
        )
        self.decoder = nn.ModuleList(self._decoder(style, skips))

    def _encoder(self, style: Style, skips: list[int]) -> list[Level]:
        """The encoder; `skips` collects the channels of its outputs."""
        layout, levels = self.layout, []
        c, image = layout.width, layout.shape[0]
        for i, m in enumerate(layout.mult):
            attention = layout.attention[i]
            level = Level(Block(c, c, style, "down") if i else None, [])
            if i and layout.encoder == "residual":
                level.image, image = FilteredConv(image, c, style), c
            if i and layout.encoder == "skip":
                level.image = style.conv(image, c, 1)
            skips += [c] if i else []
            for _ in range(layout.blocks):
                level.blocks.append(Block(c, m * layout.width, style, attention=attention))
                c = m * layout.width
                skips.append(c)
            levels.append(level)
        return levels

    def _decoder(self, style: Style, skips: list[int]) -> list[Level]:
        """The decoder, which uses up `skips`."""
        layout, levels = self.layout, []
        c = skips[-1]
        for i, m in reversed(list(enumerate(layout.mult))):
            here = layout.attention[i]
            level = Level(Block(c, c, style, "up") if i < len(layout.mult) - 1 else None, [])
            for k in range(layout.blocks + 1):
                attention = here and (layout.attend_all or k == layout.blocks)
                both = c + skips.pop()
                level.blocks.append(Block(both, m * layout.width, style, attention=attention))
                c = m * layout.width
            if i == 0 or layout.decoder == "skip":
                last = style.conv(c, layout.shape[0], 3, style.last_scale)
                level.output = nn.Sequential(style.norm(c), nn.SiLU(), last)
            levels.append(level)
        return levels

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
        augment: Float[Tensor, "n _augment"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x` at noise codes `c_noise`.

        `augment`: label of the augmentation of each image; None = of none, which is all zeros.
        """
        e = self.embed(c_noise, label, augment)
        h, image = self.input(x), x
        skips = [h]
        for level in self.encoder:
            if level.enter is not None:
                h = self.through(level.enter, h, e)
                h, image = self._join(level, h, image)
                skips.append(h)
            for block in level.blocks:
                h = self.through(block, h, e)
                skips.append(h)
        for block in self.bottom:
            h = self.through(block, h, e)
        out = None
        for level in self.decoder:
            if level.enter is not None:
                h = self.through(level.enter, h, e)
                out = None if out is None else self.grow(out)
            for block in level.blocks:
                h = self.through(block, torch.cat([h, skips.pop()], dim=1), e)
            if level.output is not None:
                here = level.output(h)
                out = here if out is None else out + here
        return out

    def _join(self, level: Level, h: Maps, image: Maps) -> tuple[Maps, Maps]:
        """Features with what the image handed down adds, and the image to hand on."""
        if self.layout.encoder == "residual":
            h = (h + level.image(image)) * self.scale
            return h, h
        if self.layout.encoder == "skip":
            image = self.shrink(image)
            return h + level.image(image), image
        return h, image


def checked(
    owner: str,
    shape: tuple[int, int, int],
    mult: Sequence[int],
    blocks: int,
    attention: Sequence[int] | None,
    usual: Sequence[int],
    augment_dim: int,
) -> dict[str, Any]:
    """Those fields of a `Layout` for images of `shape`; ValueError names the option that is wrong.

    `attention` None means those of the `usual` heights that a level has.
    """
    attends = attended(owner, shape, mult, blocks, attention, usual)
    require(is_int(augment_dim, 0), owner, "augment_dim", augment_dim, "a whole number from 0")
    return {
        "mult": tuple(mult),
        "blocks": blocks,
        "attention": attends,
        "augment_dim": augment_dim,
    }
