"""Training images for the figures that show them: a cube holds none, the data set may be here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.opened import stored
from engine.resolve import load
from engine.spec import SpecError

Images = Callable[[Mapping[str, Any]], np.ndarray]


def training_images(path: str) -> tuple[Images | None, str]:
    """Images "n d" of the training set at given coordinates of the sweep in folder `path`.

    Returns:
        None with the reason where the data set is not on this machine or is another one.
    """
    sweep, record, _ = stored(path)
    try:
        data = load(sweep, f"{path}/sweep.json")
    except SpecError as error:
        return None, str(error)
    wanted = record["facts"]["data"]["content_hash"]
    if data.content_hash != wanted:
        return None, f"{path}: the data set {data.name} here is not the one that was trained on"

    def images(where: Mapping[str, Any]) -> np.ndarray:
        n, draw, split = int(where["n_train"]), int(where["draw"]), str(where["split"])
        return data.subset(n, draw=draw, split=split).reshape(n, -1)

    return images, ""
