"""The levels of a U-Net, each at half the resolution of the one before: its options, checked."""

from collections.abc import Sequence

from trainables.registry import is_int, require


def attended(
    owner: str,
    shape: tuple[int, int, int],
    mult: Sequence[int],
    blocks: int,
    attention: Sequence[int] | None,
    usual: Sequence[int] | None = None,
) -> tuple[bool, ...]:
    """Whether each level has self-attention; ValueError names the option that is wrong.

    Args:
        mult: channels of each level in units of the width.
        blocks: residual blocks of the encoder per level.
        attention: heights in pixels of the levels that have it.
        usual: those that it stands for where it is None, as far as there are such levels.
    """
    _, h, w = shape
    require(is_int(blocks, 1), owner, "blocks", blocks, "a whole number of at least 1")
    valid = isinstance(mult, list | tuple) and len(mult) > 0 and all(is_int(m, 1) for m in mult)
    require(valid, owner, "mult", mult, "a list of whole numbers of at least 1")
    factor = 2 ** (len(mult) - 1)
    allowed = f"short enough that {h} x {w} pixels can be halved {len(mult) - 1} times"
    require(h % factor == 0 and w % factor == 0, owner, "mult", mult, allowed)
    heights = [h // 2**level for level in range(len(mult))]
    if attention is None and usual is not None:
        attention = [height for height in usual if height in heights]
    valid = isinstance(attention, list | tuple) and set(attention) <= set(heights)
    require(valid, owner, "attention", attention, f"a list of some of the heights {heights}")
    return tuple(height in attention for height in heights)
