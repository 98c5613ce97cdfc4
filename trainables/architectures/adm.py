"""ADM, the U-Net of Dhariwal & Nichol 2021 (arXiv 2105.05233, section 3 and appendix).

Written from the paper, with the layout and settings of Karras et al. 2022 (EDM, arXiv 2206.00364,
table 7): the embedding scales and shifts after the norm, resampling blocks are residual, attention
has 64 channels a head. The defaults are the configuration for ImageNet at 64 x 64, at any width;
192 is the published one.
"""

from collections.abc import Sequence

from torch import nn

from trainables.architectures.blocks import LOWEST, Positional, Style
from trainables.architectures.pyramid import Layout, Pyramid, checked
from trainables.registry import is_int, require


def build(
    width: int,
    shape: tuple[int, int, int],
    *,
    mult: Sequence[int] | None = None,
    blocks: int = 3,
    attention: Sequence[int] | None = None,
    head: int = 64,
    mult_emb: int = 4,
    dropout: int | float = 0.0,
    augment_dim: int = 0,
) -> nn.Module:
    """ADM (Dhariwal & Nichol 2021) for images of `shape` (c, h, w).

    `mult`: channels of each level in units of `width`, each level at half the resolution of the
    one before; None = (1, 2, 3, 4) from 64 pixels on, else (1, 2, 2). `blocks` per level.
    `attention`: heights of the levels with self-attention; None = 32, 16 and 8 where there are
    such levels. `head`: channels per head of attention, or all where they are fewer. The noise
    embedding has mult_emb x width numbers. `dropout`: probability in [0, 1). `augment_dim`: size
    of the augmentation label, 0 = none. Raises ValueError naming the option, its value and what
    is allowed.
    """
    owner = "adm"
    even = is_int(width, 2) and width % 2 == 0
    require(even, owner, "width", width, "an even whole number of at least 2")
    require(is_int(head, 1), owner, "head", head, "a whole number of at least 1")
    require(is_int(mult_emb, 1), owner, "mult_emb", mult_emb, "a whole number of at least 1")
    require(0 <= dropout < 1, owner, "dropout", dropout, "in [0, 1)")
    if mult is None:
        mult = (1, 2, 3, 4) if shape[1] >= 64 else (1, 2, 2)
    fields = checked(owner, shape, mult, blocks, attention, (32, 16, 8), augment_dim)
    layout = Layout(
        width=width, shape=shape, noise=width, label_late=True, attend_all=True, **fields
    )
    for m in mult:
        divides = m * width <= head or m * width % head == 0
        require(divides, owner, "head", head, f"a divisor of the {m * width} channels of a level")
    style = Style(
        embedding=mult_emb * width,
        dropout=float(dropout),
        adaptive=True,
        head=head,
    )
    # Their frequencies are 1e-4^(k/n) for k < n, so the slowest does not reach 1e-4.
    n = width // 2
    return Pyramid(layout, style, Positional(width, LOWEST ** ((n - 1) / n)))
