"""Colour patches of the photographs that scikit-image ships in its wheel: real data, no download.

Eight photographs: astronaut, chelsea, coffee, hubble_deep_field, ihc, motorcycle_left, retina and
rocket. The left three quarters of each give training patches, the right quarter test patches, so
no pixel is on both sides whatever the stride. A patch's class is its photograph.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.datasets import cache
from trainables.datasets.formats.item import Item
from trainables.datasets.images import Images
from trainables.datasets.preprocess import Preprocessing
from trainables.registry import is_int, require

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
FLAT = 16
"""A patch whose levels lie closer together than this (sky, margins) is left out."""


def load(resolution: int = 32, stride: int | None = None, channels: int = 3) -> Images:
    """Patches of `resolution` x `resolution` pixels, one every `stride` (default: side by side).

    `channels` 1 makes them grey. Raises FileNotFoundError naming the package if it is absent.
    """
    require(is_int(resolution, 2), "patches", "resolution", resolution, "a whole number from 2")
    stride = resolution if stride is None else stride
    require(is_int(stride, 1), "patches", "stride", stride, "a whole number from 1")
    prepare = Preprocessing(channels)
    prepare.check("patches")
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "patches: scikit-image, which ships the photographs, is not installed: "
            "`pip install 'diffphase[data]'`."
        )
    files = tuple(Path(package.origin).parent / "data" / name for name in PHOTOGRAPHS)
    how = {"patches": resolution, "stride": stride}
    try:
        return cache.images(files, how, lambda: _patches(files, resolution, stride), prepare)
    except ValueError as error:
        raise ValueError(f"patches: {error}") from error


def _patches(files: tuple[Path, ...], side: int, stride: int) -> Iterator[Item]:
    for label, file in enumerate(files):
        with Image.open(file) as image:
            photograph = np.asarray(image.convert("RGB"))
        edge = 3 * photograph.shape[1] // 4
        number = 0
        for test, region in ((False, photograph[:, :edge]), (True, photograph[:, edge:])):
            h, w, _ = region.shape
            for top in range(0, h - side + 1, stride):
                for left in range(0, w - side + 1, stride):
                    patch = region[top : top + side, left : left + side]
                    if int(patch.max()) - int(patch.min()) >= FLAT:
                        yield Item((file.name, number), patch, label, test)
                        number += 1
