"""How many evaluations of the denoiser an analysis asks for: what `plan` predicts and shows.

Counts are by what is evaluated, so that analyses which look at the same inputs share them: the
evaluations of several are, for each key, the most that any of them asks for.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from analyses.sampler import Sampler

__all__ = ["Rows", "Size", "of_laws", "of_samples", "total"]

Rows = dict[str, int]
"""Evaluated rows of one snapshot by what is evaluated, e.g. `train`: 5120."""


@dataclass(frozen=True)
class Size:
    """What the number of evaluations depends on, beside an analysis' own options."""

    dim: int
    """d, the number of pixels."""
    inputs: int
    """m, the number of inputs of a law."""
    levels: int
    """Noise levels analysed."""
    sampler: Sampler


def of_laws(size: Size, laws: Collection[str], draws: int = 1) -> Rows:
    """Rows of `draws` noisy versions of every input, at every noise level."""
    rows = {law: size.levels * draws * size.inputs for law in laws if law != "path"}
    if "path" in laws:
        paths = min(size.inputs, size.sampler.samples)
        each = min(draws, size.sampler.samples // paths)
        rows |= {"path": size.levels * each * paths} | of_samples(size)
    return rows


def of_samples(size: Size) -> Rows:
    """Rows of the samples."""
    return {"samples": size.sampler.samples * size.sampler.evaluations}


def total(parts: Iterable[Mapping[str, int]]) -> Rows:
    """What several analyses evaluate together."""
    together: Rows = {}
    for part in parts:
        for key, rows in part.items():
            together[key] = max(rows, together.get(key, 0))
    return together
