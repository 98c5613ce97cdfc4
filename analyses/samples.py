"""The first samples of a denoiser on the common latents, for pictures and pairs of cells."""

import xarray as xr

from analyses.labels import Label, dataset
from analyses.specimen import Specimen

__all__ = ["measure"]

LABELS = {
    "samples": Label("samples of the probability flow, CHW order", ("sample", "pixel"), "pixel")
}


def measure(
    specimen: Specimen,
    *,
    shown: int = 64,
    samples: int = 512,
    steps: int = 18,
    solver: str = "heun",
) -> xr.Dataset:
    """The first `shown` of `samples` samples.

    All are drawn, in the batches of `memorization`, with which they are shared: the samples shown
    are those counted there, to the last bit, whether or not both analyses run together.
    """
    if not 1 <= shown <= samples:
        raise ValueError(f"samples: `shown` must be in [1, samples={samples}], got {shown}.")
    x = specimen.samples(samples, steps, solver)
    return dataset(specimen.sigmas, {"samples": x[:shown].float()}, LABELS)
