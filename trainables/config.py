"""The settings of a training, checked when they are written down."""

import math
from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor

from trainables import noise as densities
from trainables.denoiser import PRECONDITIONINGS
from trainables.registry import is_int, lookup, require

Number = int | float
OPTIMIZERS = ("adam", "sgd")
SAMPLINGS = ("replacement", "full")
LABELS = ("none", "class", "random", "unique")
AUTOCASTS = ("none", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """How one training runs; nothing in it depends on when the training ends."""

    batch: int = 512
    """Images per step. A whole number of at least 2."""
    lr: Number = 4e-3
    """Learning rate of the optimiser after the warm-up (see `rate`). Above 0."""
    warmup_kimg: Number = 10.0
    """Training time over which the learning rate rises linearly from 0, in thousands of images."""
    preconditioning: str = "edm"
    """How the backbone becomes a denoiser: a name in `PRECONDITIONINGS`."""
    p_mean: Number = -1.2
    """Mean of ln(sigma) in training, of the density "lognormal"."""
    p_std: Number = 1.2
    """Standard deviation of ln(sigma) in training, of the density "lognormal". Above 0."""
    ema_halflife_kimg: Number = 500.0
    """Largest half-life of the weights' moving average, in thousands of images; 0 = no average."""
    ema_rampup: Number = 0.05
    """The half-life is at most this share of the images seen so far. In (0, 1]."""
    sigma_data: Number | None = None
    """Standard deviation of the pixels that the preconditioning assumes; None = as measured."""
    noise: str = "lognormal"
    """Density of the noise level in training: a name in `trainables.noise.DENSITIES`."""
    sigma_min: Number = 0.02
    """Lowest noise level of the density "loguniform". Above 0, below `sigma_max`."""
    sigma_max: Number = 100.0
    """Highest noise level of the density "loguniform"."""
    sigma: Number | None = None
    """The one noise level of the density "fixed". Above 0."""
    noise_draws: int | None = None
    """Draws of level and noise that exist per training image, at least 1; None = always new."""
    optimizer: str = "adam"
    """"adam" (betas .9, .999) or "sgd" (heavy ball)."""
    momentum: Number = 0.95
    """Share of the last step that "sgd" repeats. In [0, 1)."""
    weight_decay: Number = 0.0
    """Weight decay, decoupled under "adam", as a penalty under "sgd" (see `optimizers`). At
    least 0."""
    xflip: bool = False
    """Whether each image is mirrored left-right with probability 1/2 whenever it is seen."""
    augment: Number = 0.0
    """Probability p of each operation of `trainables.augmentation`, of which the denoiser is
    told; 0 = off. With p > 0 every image is mirrored with probability 1/2, as in EDM."""
    sampling: str = "replacement"
    """"replacement" = a batch is drawn with replacement, "full" = every step sees every image."""
    labels: str = "none"
    """What the denoiser is told of the image beside the noise: "none" = nothing, "class" = its
    class, "random" = a class drawn at random, "unique" = its own number."""
    lr_width: int | None = None
    """Width at which the rate is `lr`, going as 1/width elsewhere; None = one rate for all."""
    autocast: str = "none"
    """Type in which the backbone computes while it trains: "none" = that of its weights,
    "bfloat16", or "float16" with a loss scaled dynamically. Changes the numbers."""
    channels_last: bool = False
    """Whether channels vary fastest in memory, which GPUs like. Changes roundings."""
    compile: bool = False
    """Whether the denoiser is compiled for training (torch.compile). Changes roundings."""
    checkpointing: bool = False
    """Whether a training keeps the input of each block alone and computes the rest again in the
    backward pass: less memory, a third more time, and the same numbers."""
    deterministic: bool = False
    """Whether only algorithms are used that give the same bits again on the same GPU; slower,
    and an error where there is none. A CPU gives the same bits either way."""

    def __post_init__(self) -> None:
        """ValueError names the field, its value and what is allowed."""
        lookup("preconditioning", self.preconditioning, PRECONDITIONINGS)
        lookup("noise", self.noise, densities.DENSITIES)
        lookup("optimizer", self.optimizer, dict.fromkeys(OPTIMIZERS))
        lookup("sampling", self.sampling, dict.fromkeys(SAMPLINGS))
        lookup("labels", self.labels, dict.fromkeys(LABELS))
        lookup("autocast", self.autocast, dict.fromkeys(AUTOCASTS))
        for name in ("channels_last", "compile", "checkpointing", "xflip", "deterministic"):
            self._require(isinstance(getattr(self, name), bool), name, "true or false")
        self._require(is_int(self.batch, 2), "batch", "a whole number of at least 2")
        for name in ("noise_draws", "lr_width"):
            value = getattr(self, name)
            self._require(value is None or is_int(value, 1), name, "a whole number of at least 1")
        self._check_numbers()
        self._check_owners()

    def _require(self, condition: bool, name: str, allowed: str) -> None:
        require(condition, "TrainConfig", name, getattr(self, name), allowed)

    def _check_numbers(self) -> None:
        optional = ("sigma_data", "sigma")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) or field.name in ("lr", *optional):
                number = isinstance(value, int | float) and not isinstance(value, bool)
                missing = value is None and field.name in optional
                finite = missing or (number and math.isfinite(value))
                self._require(finite, field.name, "a finite number")
        for name in ("lr", "p_std", "ema_rampup", "sigma_min", *optional):
            value = getattr(self, name)
            self._require(value is None or value > 0, name, "above 0")
        for name in ("warmup_kimg", "ema_halflife_kimg", "weight_decay"):
            self._require(getattr(self, name) >= 0, name, "at least 0")
        self._require(0 <= self.augment <= 1, "augment", "in [0, 1]")
        self._require(self.ema_rampup <= 1, "ema_rampup", "in (0, 1]")
        self._require(0 <= self.momentum < 1, "momentum", "in [0, 1)")
        below = f"below `sigma_max` {self.sigma_max!r}"
        self._require(self.sigma_min < self.sigma_max, "sigma_min", below)

    def _check_owners(self) -> None:
        """A field that would not be read is an error: its value would be a label for nothing."""
        owners = {
            option: ("noise", density)
            for density in densities.DENSITIES
            for option in densities.options(density)
        }
        defaults = {field.name: field.default for field in fields(self)}
        for name, (choice, owner) in {**owners, "momentum": ("optimizer", "sgd")}.items():
            idle = getattr(self, choice) != owner
            allowed = f"{defaults[name]!r} unless `{choice}` is {owner!r}"
            self._require(not idle or getattr(self, name) == defaults[name], name, allowed)
        given = self.noise != "fixed" or self.sigma is not None
        self._require(given, "sigma", "a number above 0 where `noise` is 'fixed'")

    @property
    def mirrors(self) -> bool:
        """Whether mirror images of the training points are trained on as well."""
        return self.xflip or self.augment > 0

    def rate(self, width: int | None = None) -> float:
        """The learning rate after the warm-up: `lr`, or lr x lr_width / width.

        Adam moves every weight by about the rate, so that what a layer computes moves by about
        rate x width: a rate that goes as 1/width makes widths comparable. Raises ValueError if
        `lr_width` is set and `width` is not given.

        >>> TrainConfig(lr=4e-3, lr_width=256).rate(512)
        0.002
        """
        if self.lr_width is None:
            return float(self.lr)
        if width is None:
            raise ValueError(
                f"TrainConfig: with `lr_width` {self.lr_width} the rate depends on the width: "
                "give it, as in train(..., width=256)."
            )
        return self.lr * self.lr_width / width

    def noise_levels(self, normals: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The noise levels of the training's density from standard normals, in pixel units."""
        given = {name: getattr(self, name) for name in densities.options(self.noise)}
        return densities.DENSITIES[self.noise](normals, **given)
