r"""A denoiser :math:`D(y; \sigma)` around a backbone F, and the loss that trains it.

Source: Karras et al. 2022 (EDM, arXiv 2206.00364), equation 7 and table 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "n c h w"]


class EDM(nn.Module):
    r"""The preconditioned denoiser :math:`D = c_{skip}\,y + c_{out}\,F(c_{in}\,y, c_{noise})`.

    With s the noise level and sd = `sigma_data`, the standard deviation of the data's pixels:
    c_skip = sd^2/(s^2+sd^2), c_out = s sd/sqrt(s^2+sd^2), c_in = 1/sqrt(s^2+sd^2) and
    c_noise = ln(s)/4. Input and target of F then have unit variance at every s. A backbone that
    gives zero makes D = c_skip y, the Wiener filter of white data.
    """

    def __init__(self, backbone: nn.Module, sigma_data: int | float) -> None:
        """`backbone` maps (x "n c h w", c_noise "n") to "n c h w"; `sigma_data` > 0 in pixels."""
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"EDM: `sigma_data` must be above 0, got {sigma_data!r}.")
        self.backbone = backbone
        self.sigma_data = float(sigma_data)

    def forward(self, y: Images, sigma: int | float | Float[Tensor, " n"]) -> Images:
        """The clean image expected behind `y`; `sigma` > 0, one for all or one per image."""
        s = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
        total = s.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_in = total.rsqrt()
        c_out = s * self.sigma_data * c_in
        f = self.backbone(c_in.view(-1, 1, 1, 1) * y, s.log() / 4)
        return torch.addcmul(c_skip.view(-1, 1, 1, 1) * y, c_out.view(-1, 1, 1, 1), f)

    def weight(self, sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""The loss weight :math:`(s^2+sd^2)/(s\,sd)^2 = 1/c_{out}^2`, in 1/pixel^2."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


PRECONDITIONINGS: dict[str, Callable[[nn.Module, int | float], EDM]] = {"edm": EDM}


def loss(
    denoiser: nn.Module, x: Images, sigma: Float[Tensor, " n"], eps: Images
) -> Float[Tensor, " n"]:
    r"""The weighted loss of each image, :math:`w(\sigma)\,|D(x+\sigma\epsilon;\sigma)-x|^2`.

    Summed over pixels; the optimiser averages it over images. `eps` is standard normal noise.
    A zero backbone on white data of standard deviation sigma_data has an expected loss of d.
    """
    y = torch.addcmul(x, sigma.view(-1, 1, 1, 1), eps)
    error = (denoiser(y, sigma) - x).flatten(1)
    # A data-parallel wrapper hides the denoiser one level down.
    unwrapped: Any = getattr(denoiser, "module", denoiser)
    return unwrapped.weight(sigma) * error.square().sum(1)
