r"""Exponential moving average of weights whose half-life is counted in images.

A half-life in images makes the average independent of the batch size, and a ramp that is a share
of the images seen so far lets early snapshots forget the initial weights. Source: the training
loop that goes with Karras et al. 2022 (EDM, arXiv 2206.00364), appendix F.2.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def beta(
    batch: int, images_seen: int, halflife_kimg: int | float = 500.0, rampup: int | float = 0.05
) -> float:
    r"""The weight of the old average in one step: :math:`\beta = 2^{-B/h}`, in [0, 1).

    :math:`h = \min(1000\,h_{kimg}, r\,n)` with n the images seen *before* the step, so that the
    first step copies the weights (:math:`\beta = 0` while h = 0).

    >>> beta(batch=512, images_seen=0)
    0.0
    >>> beta(batch=500, images_seen=10_000)
    0.5
    """
    halflife = min(1000 * halflife_kimg, rampup * images_seen)
    return 0.5 ** (batch / halflife) if halflife > 0 else 0.0


def update(average: Iterable[Tensor], weights: Iterable[Tensor], beta: int | float) -> None:
    """In place: average <- beta average + (1 - beta) weights, tensor by tensor."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average), list(weights), 1 - beta)
