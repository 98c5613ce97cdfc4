"""The optimisers by name, and what of each a resumed training needs back.

Sources: Adam, Kingma & Ba 2015 (arXiv 1412.6980) with betas .9, .999 and epsilon 1e-8; heavy-ball
SGD as in arXiv 2505.17638: v <- momentum v + g, theta <- theta - rate v. Weight decay: with Adam
decoupled, theta <- theta (1 - rate decay) beside the step (AdamW, Loshchilov & Hutter 2019, arXiv
1711.05101); with SGD as a penalty, g <- g + decay theta.
"""

from collections.abc import Iterable

import torch
from torch import nn

from trainables.config import TrainConfig


def build(
    config: TrainConfig, weights: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of `config` over `weights` on `device`; the training sets its rate."""
    fused = device.type in ("cpu", "cuda")
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=config.lr, momentum=config.momentum, weight_decay=decay, fused=fused
        )
    if decay:
        return torch.optim.AdamW(weights, lr=config.lr, weight_decay=decay, fused=fused)
    return torch.optim.Adam(weights, lr=config.lr, fused=fused)


def moments(config: TrainConfig) -> tuple[str, ...]:
    """The names of the tensors that the optimiser keeps for each weight, of the weight's shape."""
    if config.optimizer == "sgd":
        return ("momentum_buffer",) if config.momentum else ()
    return ("exp_avg", "exp_avg_sq")
