"""Handwritten digits, 1797 images of 8 x 8 with 17 grey levels, shipped with scikit-learn.

The test part of Alpaydin & Kaynak (1998), UCI "Optical Recognition of Handwritten Digits".
"""

import numpy as np

from trainables.datasets.images import Images


def load() -> Images:
    """All digits as n 1 8 8 in [-1, 1]: v/8 - 1, exact in float32. No official test part."""
    # Imported here: to list the data sets must not take the second that scikit-learn takes.
    from sklearn.datasets import load_digits

    levels = load_digits().images.astype(np.float32)
    return Images(levels[:, None] / np.float32(8) - np.float32(1))
