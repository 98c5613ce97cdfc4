"""The samples of a denoiser on the common latents, for pictures and for pairs of cells."""

import torch
import xarray as xr

from analyses.labels import Label, dataset
from analyses.specimen import Specimen

__all__ = ["SHOWN", "measure"]

SHOWN = 64
"""Samples that a cube holds; the stored piece holds them all, and pairs of cells use them all."""
LABELS = {
    "samples": Label(
        "samples of the probability flow, CHW order", ("sample", "pixel"), "pixel", SHOWN
    )
}


def measure(specimen: Specimen) -> xr.Dataset:
    """All samples, those that the other analyses count, in float32."""
    values = {"samples": specimen.samples().to(torch.float32)}
    return dataset(specimen.sigmas, values, LABELS)
