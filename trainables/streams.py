"""Every random number of the project, by name: a purpose and a key give one generator.

No generator state is ever saved: what happens at step t of a training comes from a stream that
is keyed by t, so a resumed training draws what the uninterrupted one would have drawn.
"""

import hashlib
import json
from numbers import Integral

import torch

PURPOSES = (
    "init",  # weights of a backbone
    "batch",  # which images a training step sees
    "noise",  # noise levels and noise of a training step
    "augment",
    "dropout",
    "heldout",  # which points are held out
    "permutation",  # order from which nested subsets are taken
    "probe",  # noise on the inputs of an analysis
    "latents",  # starting points of the sampler
    "bootstrap",
    "data",  # points of a synthetic data set
)


def _canonical(value: object) -> object:
    """The JSON form of one part of a key; floats by value, never by their decimal text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple | list):
        return [_canonical(part) for part in value]
    raise ValueError(f"A stream's key holds text, numbers and lists of them, got {value!r}.")


def seed_of(purpose: str, *key: object) -> int:
    """The seed in [0, 2^63) of the stream `purpose` at `key`, equal in every process.

    It is the blake2b digest of the canonical JSON of ``[purpose, *key]``; floats enter as
    ``float.hex()``, so 0.1 and ``(0.1).hex()`` name one stream while 1 and 1.0 name two.
    Raises ValueError for an unknown purpose or a key that is not text, numbers or lists.

    >>> seed_of("batch", 0, 0, 1) == seed_of("batch", 0, 0, 1) != seed_of("batch", 0, 0, 2)
    True
    """
    if purpose not in PURPOSES:
        raise ValueError(f"Unknown purpose {purpose!r}: choose from {', '.join(PURPOSES)}.")
    text = json.dumps(_canonical([purpose, *key]), separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(purpose: str, *key: object) -> torch.Generator:
    """A fresh CPU generator at the start of the stream `purpose` at `key` (see `seed_of`).

    Torch's CPU generator uses 32 bits of a seed, so two of 10^4 streams coincide with
    probability .01: harmless for batches and noise.
    """
    return torch.Generator().manual_seed(seed_of(purpose, *key))
