"""How much a data file may unpack to: what its header promises is looked at before it is read."""

import math
import os
from collections.abc import Sequence

VARIABLE = "DIFFPHASE_MAX_DATA_GB"
DEFAULT = 16.0
"""Gigabytes of the images as float32, four times those of their bytes."""


def check_size(origin: object, shape: Sequence[int]) -> None:
    """Refuse images that would not fit, before any memory is reserved for them.

    Raises:
        ValueError: names the origin, the size and how to allow more.
    """
    allowed = float(os.environ.get(VARIABLE, DEFAULT))
    gigabytes = 4 * math.prod(shape) / 1e9
    if gigabytes > allowed:
        raise ValueError(
            f"{origin}: {' x '.join(map(str, shape))} pixels are {gigabytes:.3g} GB as float32,"
            f" more than the {allowed:g} allowed; if that is meant, set {VARIABLE} to more."
        )
