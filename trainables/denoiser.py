r"""A denoiser :math:`D(y; \sigma)` around a backbone F, and the loss that trains it.

One equation makes all of them, :math:`D = c_{skip}\,y + c_{out}\,F(c_{in}\,y, c_{noise})`; they
differ in the four coefficients and in the weight of the loss. Source: Karras et al. 2022 (EDM,
arXiv 2206.00364), equation 7 and table 1, which restates those of Song et al. 2021 (2011.13456).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Images = Float[Tensor, "n c h w"]
Levels = Float[Tensor, " n"]
Labels = Int64[Tensor, " n"]


class Coefficients(NamedTuple):
    """What a preconditioning says at each of n noise levels."""

    c_skip: Levels
    """Share of the noisy image in the output."""
    c_out: Levels
    """Factor of the backbone's output, in pixels."""
    c_in: Levels
    """Factor of the backbone's input, in 1/pixel."""
    c_noise: Levels
    """The noise code: what the backbone is told of the level (`architectures.embedding`)."""


class Denoiser(nn.Module, ABC):
    r"""A backbone made a denoiser: :math:`D = c_{skip}\,y + c_{out}\,F(c_{in}\,y, c_{noise})`.

    A preconditioning gives `coefficients` and `weight`. A backbone that gives zero makes
    D = c_skip y.
    """

    UNIT = 1.0
    """Unit of the noise code. The literature's own is 1; a backbone whose features of the code
    were made for it says so by `published_noise_code`, the others get a code of EDM's span."""

    def __init__(self, backbone: nn.Module, sigma_data: int | float) -> None:
        """`backbone` maps (x "n c h w", c_noise "n") to "n c h w"; `sigma_data` > 0 in pixels."""
        super().__init__()
        if not sigma_data > 0:
            owner = type(self).__name__
            raise ValueError(f"{owner}: `sigma_data` must be above 0, got {sigma_data!r}.")
        self.backbone = backbone
        self.sigma_data = float(sigma_data)
        self.autocast: torch.dtype | None = None
        """Type in which the backbone computes; None = that of its weights."""
        self.unit = 1.0 if getattr(backbone, "published_noise_code", False) else self.UNIT

    @abstractmethod
    def coefficients(self, s: Levels) -> Coefficients:
        """The four coefficients at noise levels `s` > 0."""

    @abstractmethod
    def weight(self, sigma: Levels) -> Levels:
        """The weight of the squared error at noise levels `sigma` > 0."""

    def forward(
        self,
        y: Images,
        sigma: int | float | Levels,
        label: Labels | None = None,
        augment: Float[Tensor, "n _augment"] | None = None,
    ) -> Images:
        """The clean image expected behind `y`; `sigma` > 0, one for all or one per image.

        `label`: one per image, of a backbone that is told labels (`architectures.labelled`);
        `augment`: one per image, of a backbone that is told of augmentation.
        """
        s = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
        c_skip, c_out, c_in, c_noise = self.coefficients(s)
        told = _given(label=label, augment=augment)
        x = c_in.view(-1, 1, 1, 1) * y
        if self.autocast is None:
            f = self.backbone(x, c_noise, **told)
        else:
            with torch.autocast(y.device.type, self.autocast):
                f = self.backbone(x, c_noise, **told).to(y.dtype)
        return torch.addcmul(c_skip.view(-1, 1, 1, 1) * y, c_out.view(-1, 1, 1, 1), f)


class EDM(Denoiser):
    r"""Input and target of the backbone have unit variance at every noise level.

    With s the noise level and sd = `sigma_data`, the standard deviation of the data's pixels:
    c_skip = sd^2/(s^2+sd^2), c_out = s sd/sqrt(s^2+sd^2), c_in = 1/sqrt(s^2+sd^2) and
    c_noise = ln(s)/4. A backbone that gives zero makes the Wiener filter of white data.
    """

    def coefficients(self, s: Levels) -> Coefficients:
        """Table 1, column "EDM"."""
        total = s.square() + self.sigma_data**2
        c_in = total.rsqrt()
        c_out = s * self.sigma_data * c_in
        return Coefficients(self.sigma_data**2 / total, c_out, c_in, s.log() / 4)

    def weight(self, sigma: Levels) -> Levels:
        r"""The loss weight :math:`(s^2+sd^2)/(s\,sd)^2 = 1/c_{out}^2`, in 1/pixel^2."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


class VE(Denoiser):
    r"""The "variance exploding" baseline: the backbone estimates minus the noise.

    c_skip = 1, c_out = s, c_in = 1 and c_noise = ln(s/2) in units of 4; `sigma_data` is not used.
    A backbone that gives zero makes the identity. The unit is that of EDM's ln(s)/4: the features
    of the noise code turn up to 32 radians per unit (`architectures.embedding`).
    """

    UNIT = 4.0

    def coefficients(self, s: Levels) -> Coefficients:
        """Table 1, column "VE", c_noise in units of 4 (see UNIT)."""
        one = torch.ones_like(s)
        return Coefficients(one, s, one, (s / 2).log() / self.unit)

    def weight(self, sigma: Levels) -> Levels:
        r"""The loss weight :math:`1/s^2 = 1/c_{out}^2`, in 1/pixel^2."""
        return sigma.square().reciprocal()


class VP(Denoiser):
    r"""The "variance preserving" baseline: the backbone estimates the noise from a unit input.

    c_skip = 1, c_out = -s, c_in = 1/sqrt(s^2+1) and c_noise = 999 t(s) in units of 400, where
    t in (0, 1] is the time at which :math:`s = \sqrt{e^{\beta_d t^2/2 + \beta_{min} t} - 1}`,
    beta_d = 19.9 and beta_min = .1; `sigma_data` is not used. A backbone that gives zero makes
    the identity. Why units of 400: the features of the noise code turn up to 32 radians per unit
    (`architectures.embedding`), so 999 t itself would take the fastest through 5,000 periods and
    no two levels would share what they learn. Now t in (0, 1] spans 2.5 units, and EDM's code
    spans 2.65 over the levels of a sampler.
    """

    UNIT = 400.0
    BETA_D, BETA_MIN = 19.9, 0.1

    def time(self, s: Levels) -> Levels:
        r"""The time t(s) > 0 of noise level s: the positive root of sigma(t) = s.

        With :math:`L = \ln(1+s^2)`, :math:`t = 2L/(\beta_{min} + \sqrt{\beta_{min}^2 +
        2\beta_d L})`, which unlike the textbook root cancels nothing at small s.
        """
        log = s.square().log1p()
        return 2 * log / (self.BETA_MIN + (self.BETA_MIN**2 + 2 * self.BETA_D * log).sqrt())

    def coefficients(self, s: Levels) -> Coefficients:
        """Table 1, column "VP" with M = 1000, c_noise in units of 400 (see UNIT)."""
        c_noise = 999 / self.unit * self.time(s)
        return Coefficients(torch.ones_like(s), -s, (s.square() + 1).rsqrt(), c_noise)

    def weight(self, sigma: Levels) -> Levels:
        r"""The loss weight :math:`1/s^2 = 1/c_{out}^2`, in 1/pixel^2."""
        return sigma.square().reciprocal()


class Plain(Denoiser):
    r"""No preconditioning: D = F(y, ln(s)/4), the denoising autoencoder at one noise level.

    c_skip = 0, c_out = 1, c_in = 1 and c_noise = ln(s)/4; `sigma_data` is not used. A backbone
    that gives zero makes the black image 0. Source: arXiv 2410.24060, appendix (DAE).
    """

    def coefficients(self, s: Levels) -> Coefficients:
        """D = F."""
        one = torch.ones_like(s)
        return Coefficients(torch.zeros_like(s), one, one, s.log() / 4)

    def weight(self, sigma: Levels) -> Levels:
        """The loss weight 1: plain denoising score matching."""
        return torch.ones_like(sigma)


def _given(**told: Tensor | None) -> dict[str, Tensor]:
    """What a backbone is told: those that know nothing of a label are not asked about it."""
    return {name: value for name, value in told.items() if value is not None}


PRECONDITIONINGS: dict[str, Callable[[nn.Module, int | float], Denoiser]] = {
    "edm": EDM,
    "ve": VE,
    "vp": VP,
    "none": Plain,
}


def loss(
    denoiser: nn.Module,
    x: Images,
    sigma: Float[Tensor, " n"],
    eps: Images,
    label: Labels | None = None,
    augment: Float[Tensor, "n _augment"] | None = None,
) -> Float[Tensor, " n"]:
    r"""The weighted loss of each image, :math:`w(\sigma)\,|D(x+\sigma\epsilon;\sigma)-x|^2`.

    Summed over pixels; the optimiser averages it over images. `eps` is standard normal noise.
    Under EDM a zero backbone on white data of standard deviation sigma_data expects a loss of d.
    """
    y = torch.addcmul(x, sigma.view(-1, 1, 1, 1), eps)
    error = (denoiser(y, sigma, **_given(label=label, augment=augment)) - x).flatten(1)
    # A data-parallel wrapper hides the denoiser one level down.
    unwrapped: Any = getattr(denoiser, "module", denoiser)
    return unwrapped.weight(sigma) * error.square().sum(1)
