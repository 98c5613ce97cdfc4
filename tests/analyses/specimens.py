"""Small specimens whose answers are known: skewed, heavy-tailed points with a mean off zero."""

from hashlib import blake2b

import torch

from analyses.moments import Moments
from analyses.sampler import Sampler
from analyses.specimen import Specimen, Subset

SHAPE = (1, 2, 3)
SIGMAS = (0.1, 0.5, 2.0)


def stream(*key):
    """An independent generator for each key."""
    seed = blake2b(repr(key).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(seed, "big"))


def draw_points(n, d=6, seed=0):
    """Points of a law that is far from Gaussian: a cubed normal on top of unequal scales."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    scales = torch.linspace(1.5, 0.3, d, dtype=torch.float64)
    return (z + 0.3 * z**3) * scales @ torch.linalg.qr(mix)[0] / 2 + 0.4


def make_subset(n=10, m=24, sigmas=SIGMAS, d=6, samples=20, steps=18):
    pool = draw_points(400, d, seed=1)
    shape = SHAPE if d == 6 else (1, 1, d)
    heldout = draw_points(m, d, seed=2)
    sampler = Sampler(samples, steps)
    return Subset(pool[:n], heldout, Moments.of_points(pool), sigmas, shape, stream, sampler)


def make_specimen(oracle, eval_batch=512, **options):
    subset = make_subset(**options)
    return Specimen.of(subset, subset.oracle(oracle), eval_batch)


def wrapped(subset, denoiser, eval_batch=512):
    return Specimen.of(subset, denoiser, eval_batch)
