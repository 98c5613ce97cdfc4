"""DDPM++ and NCSN++: the U-Nets of Song et al. 2021 (arXiv 2011.13456, appendix H).

Layout and settings are those of Karras et al. 2022 (EDM, arXiv 2206.00364, table 7), written from
the two papers. The defaults are the configurations of EDM for 32 x 32 and 64 x 64 pixels at any
width, 128 being the published one; sizes are in docs/backbones.md.
"""

import math
from collections.abc import Sequence

from torch import nn

from trainables.architectures.blocks import LOWEST, Fourier, Positional, Style
from trainables.architectures.pyramid import Layout, Pyramid, checked
from trainables.registry import is_int, require


def ncsnpp(
    width: int,
    shape: tuple[int, int, int],
    *,
    mult: Sequence[int] | None = None,
    blocks: int = 4,
    attention: Sequence[int] | None = None,
    features: str = "fourier",
    encoder: str = "residual",
    decoder: str = "standard",
    taps: Sequence[int] = (1, 3, 3, 1),
    mult_emb: int = 4,
    mult_noise: int = 2,
    dropout: int | float = 0.0,
    augment_dim: int = 9,
    last_scale: int | float = 1e-5,
) -> nn.Module:
    """NCSN++ (Song et al. 2021; EDM's "VE" network) for images of `shape` (c, h, w).

    `mult`: channels of each level in units of `width`, each level at half the resolution of the
    one before; None = (1, 2, 2, 2) from 64 pixels on, else (2, 2, 2). `blocks` per level.
    `attention`: heights of the levels with self-attention; None = 16 where there is such a level.
    `features` of the noise code: "fourier" or "positional". `encoder`: "standard", "residual" or
    "skip", `decoder`: "standard" or "skip". `taps`: the filter of every resampling. The noise
    embedding has mult_emb x width numbers, made of mult_noise x width features. `dropout`:
    probability in [0, 1). `augment_dim`: size of the augmentation label, 0 = none. `last_scale`:
    factor on the initial weights of the layers that end a branch; 0 = the zero function exactly.
    Raises ValueError naming the option, its value and what is allowed.
    """
    return _build("ncsnpp", **locals())


def ddpmpp(
    width: int,
    shape: tuple[int, int, int],
    *,
    mult: Sequence[int] | None = None,
    blocks: int = 4,
    attention: Sequence[int] | None = None,
    features: str = "positional",
    encoder: str = "standard",
    decoder: str = "standard",
    taps: Sequence[int] = (1, 1),
    mult_emb: int = 4,
    mult_noise: int = 1,
    dropout: int | float = 0.0,
    augment_dim: int = 9,
    last_scale: int | float = 1e-5,
) -> nn.Module:
    """DDPM++ (Song et al. 2021; EDM's "VP" network) for images of `shape` (c, h, w).

    The options are those of `ncsnpp`.
    """
    return _build("ddpmpp", **locals())


def _build(
    owner: str,
    width: int,
    shape: tuple[int, int, int],
    mult: Sequence[int] | None,
    blocks: int,
    attention: Sequence[int] | None,
    features: str,
    encoder: str,
    decoder: str,
    taps: Sequence[int],
    mult_emb: int,
    mult_noise: int,
    dropout: int | float,
    augment_dim: int,
    last_scale: int | float,
) -> nn.Module:
    """Either of the two."""
    even = is_int(width, 2) and width % 2 == 0
    require(even, owner, "width", width, "an even whole number of at least 2")
    for option, value, allowed in (
        ("features", features, ("fourier", "positional")),
        ("encoder", encoder, ("standard", "residual", "skip")),
        ("decoder", decoder, ("standard", "skip")),
    ):
        require(value in allowed, owner, option, value, f"one of {', '.join(allowed)}")
    for option, value in (("mult_emb", mult_emb), ("mult_noise", mult_noise)):
        require(is_int(value, 1), owner, option, value, "a whole number of at least 1")
    even = isinstance(taps, list | tuple) and len(taps) % 2 == 0 and sum(taps) > 0
    require(even, owner, "taps", taps, "an even number of taps with a sum above 0")
    require(last_scale >= 0, owner, "last_scale", last_scale, "at least 0")
    if mult is None:
        mult = (1, 2, 2, 2) if shape[1] >= 64 else (2, 2, 2)
    layout = Layout(
        width=width,
        shape=shape,
        noise=mult_noise * width,
        label_late=False,
        attend_all=False,
        encoder=encoder,
        decoder=decoder,
        **checked(owner, shape, mult, blocks, attention, (16,), augment_dim),
    )
    require(0 <= dropout < 1, owner, "dropout", dropout, "in [0, 1)")
    style = Style(
        embedding=mult_emb * width,
        taps=tuple(taps),
        dropout=float(dropout),
        scale=math.sqrt(0.5),
        project=True,
        eps=1e-6,
        xavier=True,
        last_scale=float(last_scale),
    )
    made = Fourier(layout.noise) if features == "fourier" else Positional(layout.noise, LOWEST)
    return Pyramid(layout, style, made)
