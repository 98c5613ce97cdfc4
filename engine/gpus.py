"""What a named GPU sustains, for plans: no GPU is needed to make one.

A denoiser's training reaches a share of what the vendor gives for dense half precision. The share
is that of the training times in Karras et al. 2022 (EDM, arXiv 2206.00364): 200 million images on
8 V100 in 4 days (FFHQ, 84.9 GFLOP a forward pass, 3 passes a step) are 18.4 TFLOP/s of 125, in 2
days (CIFAR-10, 42.8 GFLOP) 18.6. Small networks reach less.

What a training keeps for its backward pass is counted by making the forward pass on the meta
device, which computes nothing, in single precision. Under autocast a sixth less is kept: the norms
stay in single, and what the convolutions are given is kept beside it in half.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from trainables.denoiser import Denoiser

HALF_PRECISION = {
    "v100": 125e12,
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
    "l40s": 362e12,
    "rtx4090": 165e12,
}
"""Peak of dense matrix products, FLOP/s, by the vendors' data sheets."""
MEMORY = {
    "v100": (16, 32),
    "a100": (40, 80),
    "h100": (80,),
    "h200": (141,),
    "l40s": (48,),
    "rtx4090": (24,),
}
"""GB of each kind that is sold."""
COPIES = 5
"""Numbers that a training holds per weight: it, its gradient, two moments, the average."""
SHARE = 0.15
IN_SINGLE = 0.25
"""Speed in single precision (TF32 where there is one) in units of that in half."""


def sustained(gpu: str, *, half: bool) -> float:
    """FLOP/s that a training or an evaluation is expected to reach.

    >>> 200e6 * 3 * 84.9e9 / sustained("v100", half=True) / 86400 / 8  # days on 8 of them
    3.93...
    """
    return HALF_PRECISION[gpu] * SHARE * (1 if half else IN_SINGLE)


class _Fused(torch.autograd.Function):
    """Keeps of an attention what fused kernels do: what goes in and out, a number per row."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1]))
        return out


class _FusedAttention(TorchFunctionMode):
    """Attention as on a GPU; on the meta device it would keep the weights of all pairs."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is scaled_dot_product_attention:
            return _Fused.apply(*args)
        return function(*args, **(kwargs or {}))


def kept_bytes(denoiser: Denoiser, *given: torch.Tensor, checkpointing: bool) -> float:
    """Bytes that a training keeps of what the denoiser is given, until the backward pass.

    With `checkpointing` each block's input, what lies between blocks, and the largest block's own.

    Args:
        denoiser: on the meta device, as what it is given: images, noise levels, labels if any.
    """
    own = {p.untyped_storage()._cdata for p in denoiser.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}
    inputs, inside = [], []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held: another one would get its address
        return tensor

    def size() -> int:
        return sum(storage.nbytes() for storage in kept.values())

    def through(block: torch.nn.Module, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        before = size()
        out = block(h, embedding)
        inputs.append(h.untyped_storage().nbytes())
        inside.append(size() - before)
        return out

    if checkpointing:
        denoiser.backbone.through = through
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, _FusedAttention():
        denoiser(*given)
    if not checkpointing:
        return size()
    return size() - sum(inside) + sum(inputs) + max(inside)
