"""Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 (Xiao et al. 2017, arXiv 1708.07747)."""

from pathlib import Path

from trainables.datasets import idx
from trainables.datasets.images import Images

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")


def load(path: str | Path | None = None) -> Images:
    """Training and test part as n 1 28 28 in [-1, 1] from the two image files in folder `path`.

    Raises FileNotFoundError saying how to get them.
    """
    folder = FOLDER if path is None else Path(path)
    files = [folder / name for name in FILES]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"Fashion-MNIST: {file} is missing: run `apt-get install dataset-fashion-mnist`, "
                f"or set `data.path` to a folder with {' and '.join(FILES)}."
            )
    return idx.load(*files)
