"""Images in a numpy archive. Nothing in it is ever unpickled."""

from pathlib import Path

import numpy as np

from trainables.datasets.images import Images, Stored, checked


def load(
    path: str | Path, key: str = "images", test_key: str | None = None, channels_last: bool = False
) -> Images:
    """The array `key` of an .npz file, and `test_key` as its official test part.

    n h w or n c h w (n h w c with `channels_last`); bytes stand for [-1, 1], floats are taken as
    they are. Raises ValueError naming the file, and the arrays it holds if one is missing.
    """
    path = Path(path)
    test = None if test_key is None else _array(path, test_key, channels_last)
    return Images(_array(path, key, channels_last), test, sources=(path,))


def _array(path: Path, key: str, channels_last: bool) -> Stored:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            if key not in archive.files:
                raise ValueError(f"it holds {', '.join(archive.files)}, not {key!r}")
            array = archive[key]
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: no images to read: {error}.") from error
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(f"{path}: `{key}` must be n h w or n c h w, got {array.shape}.")
    pixels = checked(array, f"{path}: `{key}`")
    if array.ndim == 3:
        return pixels[:, None]
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1)) if channels_last else pixels
