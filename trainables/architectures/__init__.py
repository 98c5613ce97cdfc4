"""The backbones by name, each a function build(width, shape, **options) -> nn.Module.

A backbone maps a scaled noisy image "n c h w" and the noise code c_noise "n" to "n c h w", has no
state beside its parameters, and starts as the zero function (its last layer is zero), so that an
untrained denoiser is c_skip y; `DENOISERS` are the exception, and those with an option
`last_scale` start as near to zero as it says. `width` is the one dial of capacity.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trainables.architectures import adm, dit, gmm, linear, mlp, skip, song, unet
from trainables.registry import check_options, lookup

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp.build,
    "unet": unet.build,
    "linear": linear.build,
    "gmm": gmm.build,
    "ddpmpp": song.ddpmpp,
    "ncsnpp": song.ncsnpp,
    "adm": adm.build,
    "dit": dit.build,
    "skip": skip.build,
}

DENOISERS = frozenset({"gmm"})
"""Backbones that are denoisers themselves, of images in pixels at c_noise = ln(sigma)/4.

They go with the preconditioning "none" alone, and do not start as the zero function.
"""

CHECKPOINTED = frozenset({"ddpmpp", "ncsnpp", "adm", "dit"})
"""Backbones made of blocks that a training can compute again in the backward pass."""

REAL_PASS = 4_000_000_000
"""Parameters times pixels up to which a forward pass is counted by making it."""


def build(name: str, width: int, shape: tuple[int, int, int], **options: object) -> nn.Module:
    """The backbone `name`; ValueError names an unknown name or option and what is allowed."""
    architecture = lookup("architecture", name, ARCHITECTURES)
    check_options(f"Architecture {name!r}", architecture, options, given=("width", "shape"))
    return architecture(width, tuple(shape), **options)


def n_params(module: nn.Module) -> int:
    """The number of trainable numbers.

    >>> n_params(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def forward_flops(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating point operations of one forward pass per image, 2 per multiply-add.

    Counts matrix products, convolutions and attention, also of a module on the meta device. A
    training step costs about 3 of these.
    """
    # The meta device computes nothing but takes 2.5 s to import: small modules run for real.
    device = "cpu" if n_params(module) * shape[1] * shape[2] < REAL_PASS else "meta"
    named = [*module.named_parameters(), *module.named_buffers()]
    ghosts = {name: torch.zeros_like(tensor, device=device) for name, tensor in named}
    dtype = next(module.parameters()).dtype
    x = torch.zeros(1, *shape, dtype=dtype, device=device)
    c_noise = torch.zeros(1, dtype=dtype, device=device)
    # Of fused attention on a CPU the counter knows nothing.
    counter, plain = FlopCounterMode(display=False), sdpa_kernel(SDPBackend.MATH)
    with counter, plain, torch.no_grad():
        functional_call(module, ghosts, (x, c_noise))
    return counter.get_total_flops()
