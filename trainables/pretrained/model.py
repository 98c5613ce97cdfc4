"""What is known of a denoiser that was trained elsewhere."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Pretrained"]


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
