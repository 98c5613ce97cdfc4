"""Handwritten digits, 1797 images of 8 x 8 with 17 grey levels, shipped with scikit-learn.

The test part of Alpaydin & Kaynak (1998), UCI "Optical Recognition of Handwritten Digits".
"""

import importlib.util
from pathlib import Path

import numpy as np

from trainables.datasets.images import Images


def load() -> Images:
    """All digits as n 1 8 8 in [-1, 1]: v/8 - 1, exact in float32. No official test part."""
    # The file is read beside the package: importing scikit-learn takes every process a second.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise FileNotFoundError("digits: scikit-learn, which ships them, is not installed.")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    levels, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
    return Images(levels / np.float32(8) - np.float32(1), labels=labels)
