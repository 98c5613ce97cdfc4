"""Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 (Xiao et al. 2017, arXiv 1708.07747)."""

from dataclasses import replace
from pathlib import Path

from trainables.datasets import idx
from trainables.datasets.images import Images

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
LABELS = "train-labels-idx1-ubyte.gz"


def load(path: str | Path | None = None) -> Images:
    """Training and test part as n 1 28 28, bytes for [-1, 1], from the two image files in `path`.

    Classes of the training part are read where their file is there. Raises FileNotFoundError
    saying how to get the images, ValueError for a broken file or labels that are not as many.
    """
    folder = FOLDER if path is None else Path(path)
    files = [folder / name for name in FILES]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"Fashion-MNIST: {file} is missing: run `apt-get install dataset-fashion-mnist`, "
                f"or set `data.path` to a folder with {' and '.join(FILES)}."
            )
    images, file = idx.load(*files), folder / LABELS
    if not file.is_file():
        return images
    labels = idx.read_labels(file)
    if len(labels) != len(images.points):
        raise ValueError(f"{file}: {len(labels)} labels for {len(images.points)} images.")
    return replace(images, labels=labels, sources=(*images.sources, file))
