"""What a named GPU sustains, for plans: no GPU is needed to make one.

A denoiser's training reaches a share of what the vendor gives for dense half precision. The share
is that of the training times in Karras et al. 2022 (EDM, arXiv 2206.00364): 200 million images on
8 V100 in 4 days (FFHQ, 84.9 GFLOP a forward pass, 3 passes a step) are 18.4 TFLOP/s of 125, in 2
days (CIFAR-10, 42.8 GFLOP) 18.6. Small networks reach less.
"""

HALF_PRECISION = {
    "v100": 125e12,
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
    "l40s": 362e12,
    "rtx4090": 165e12,
}
"""Peak of dense matrix products, FLOP/s, by the vendors' data sheets."""
SHARE = 0.15
IN_SINGLE = 0.25
"""Speed in single precision (TF32 where there is one) in units of that in half."""


def sustained(gpu: str, *, half: bool) -> float:
    """FLOP/s that a training or an evaluation is expected to reach.

    >>> 200e6 * 3 * 84.9e9 / sustained("v100", half=True) / 86400 / 8  # days on 8 of them
    3.93...
    """
    return HALF_PRECISION[gpu] * SHARE * (1 if half else IN_SINGLE)
