"""The data sets by name, each a function load(**options) -> Images.

What a loader returns becomes training pool and held-out points in `trainables.datasets.data`.
"""

from collections.abc import Callable

from trainables.datasets import (
    digits,
    emoji,
    fashion_mnist,
    files,
    gaussian,
    idx,
    image_folder,
    mixture,
    npz,
    patches,
    subspaces,
)
from trainables.datasets.images import Images

DATASETS: dict[str, Callable[..., Images]] = {
    "digits": digits.load,
    "fashion_mnist": fashion_mnist.load,
    "files": files.load,
    "idx": idx.load,
    "npz": npz.load,
    "image_folder": image_folder.load,
    "patches": patches.load,
    "emoji": emoji.load,
    "gaussian": gaussian.load,
    "mixture": mixture.load,
    "subspaces": subspaces.load,
}
