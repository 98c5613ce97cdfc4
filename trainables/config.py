"""The settings of a training, checked when they are written down."""

import math
from dataclasses import dataclass, fields

from trainables.denoiser import PRECONDITIONINGS
from trainables.registry import is_int, lookup, require


@dataclass(frozen=True)
class TrainConfig:
    """How one training runs; nothing in it depends on when the training ends."""

    batch: int = 512
    """Images per step, drawn with replacement. A whole number of at least 2."""
    lr: int | float = 4e-3
    """Learning rate of Adam after the warm-up. Above 0."""
    warmup_kimg: int | float = 10.0
    """Training time over which the learning rate rises linearly from 0, in thousands of images."""
    preconditioning: str = "edm"
    """How the backbone becomes a denoiser: a name in `PRECONDITIONINGS`."""
    p_mean: int | float = -1.2
    """Mean of ln(sigma) in training."""
    p_std: int | float = 1.2
    """Standard deviation of ln(sigma) in training. Above 0."""
    ema_halflife_kimg: int | float = 500.0
    """Largest half-life of the weights' moving average, in thousands of images; 0 = no average."""
    ema_rampup: int | float = 0.05
    """The half-life is at most this share of the images seen so far. In (0, 1]."""
    sigma_data: int | float | None = None
    """Standard deviation of the pixels that the preconditioning assumes; None = as measured."""

    def __post_init__(self) -> None:
        """ValueError names the field, its value and what is allowed."""
        owner = "TrainConfig"
        lookup("preconditioning", self.preconditioning, PRECONDITIONINGS)
        require(is_int(self.batch, 2), owner, "batch", self.batch, "a whole number of at least 2")
        numbers = [f.name for f in fields(self) if f.name not in ("batch", "preconditioning")]
        for name in numbers:
            value = getattr(self, name)
            if name == "sigma_data" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            require(number and math.isfinite(value), owner, name, value, "a finite number")
        for name in ("lr", "p_std", "ema_rampup", *(["sigma_data"] if self.sigma_data else [])):
            require(getattr(self, name) > 0, owner, name, getattr(self, name), "above 0")
        for name in ("warmup_kimg", "ema_halflife_kimg"):
            require(getattr(self, name) >= 0, owner, name, getattr(self, name), "at least 0")
        require(self.ema_rampup <= 1, owner, "ema_rampup", self.ema_rampup, "in (0, 1]")
        require(self.sigma_data != 0, owner, "sigma_data", self.sigma_data, "above 0")
