"""What is known of a denoiser that was trained elsewhere."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["Pretrained", "digest"]


@dataclass(frozen=True)
class Pretrained:
    """A denoiser of images, ready to be evaluated."""

    denoise: Callable[[Tensor, float], Tensor]
    """D(y "n c h w", sigma > 0) -> "n c h w", pixels in [-1, 1]; dtype and device are `y`'s."""
    content: str
    """Fingerprint of the weights and of all that the numbers depend on."""
    shape: tuple[int, int, int] | None = None
    """(c, h, w) of its images; None if it takes any."""
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    """Noise levels that it knows, in pixels; outside it answers as at the nearer end."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What it is, for the record: numbers and text."""


def digest(files: Iterable[Path]) -> str:
    """blake2b of the content of files, one after the other."""
    state = blake2b(digest_size=16)
    for file in files:
        with open(file, "rb") as opened:
            while block := opened.read(2**22):
                state.update(block)
    return state.hexdigest()
