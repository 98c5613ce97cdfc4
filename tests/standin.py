"""Images that stand in for the paper's data sets: the same formats and shapes, drawn at random.

    python -m tests.standin FOLDER        # one of each, to plan and to try the paper's sweeps

Smooth random fields, so that their covariance falls off as that of photographs does.
"""

import io
import json
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pictures(n, h, w, seed=0):
    """n colour images (n h w 3) of bytes whose spectrum falls as 1/frequency^2."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    falling = 1 / (np.hypot(rows, columns) + 1 / max(h, w))
    noise = rng.standard_normal((n, 3, h, w))
    fields = np.fft.irfft2(np.fft.rfft2(noise) * falling, (h, w))
    fields /= fields.std((2, 3), keepdims=True)
    return np.clip(127.5 + 60 * fields, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def encoded(pixels, kind="PNG"):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def edm_zip(path, n, classes=0):
    """A zip as EDM's, 64 x 64; `classes` of labels or none."""
    names = [f"{i // 1000:05}/img{i:08}.png" for i in range(n)]
    labels = [[name, i % classes] for i, name in enumerate(names)] if classes else None
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, pictures(n, 64, 64), strict=True):
            archive.writestr(name, encoded(image))
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def cifar_tar(path, n):
    """CIFAR-10 in python's format: five batches and one of tests, n images each."""
    with tarfile.open(path, "w:gz") as archive:
        for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            rows = pictures(n, 32, 32, seed=k).transpose(0, 3, 1, 2).reshape(n, -1)
            data = pickle.dumps({b"data": rows, b"labels": [i % 10 for i in range(n)]}, 2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def photographs(path, n):
    """A folder of JPEG and WebP files of several sizes, none below 64 pixels."""
    path.mkdir()
    for i in range(n):
        h, w = ((96, 128), (128, 96), (100, 100))[i % 3]
        kind = ("JPEG", "WEBP")[i % 2]
        (path / f"{i:06}.{kind.lower()}").write_bytes(encoded(pictures(1, h, w, seed=i)[0], kind))
    return path


def ffhq(folder, n):
    """As EDM's FFHQ."""
    return edm_zip(folder / "ffhq-64x64.zip", n)


def cifar(folder, n):
    """As CIFAR-10."""
    return cifar_tar(folder / "cifar-10-python.tar.gz", -(-n // 5))


MAKE = {
    "paper_ffhq": ffhq,
    "paper_ffhq_baseline": ffhq,
    "paper_afhq": lambda folder, n: edm_zip(folder / "afhqv2-64x64.zip", n, classes=3),
    "paper_cifar10": cifar,
    "paper_cifar10_width": cifar,
    "paper_cifar10_twins": cifar,
    "paper_lsun": lambda folder, n: photographs(folder / "church_outdoor_train", n),
}
"""Sweep -> function(folder, number of images) that makes its data and returns the path."""
TOY = [
    "axes.width=[4]",
    "axes.n_train=[16]",
    "kimg=[0.032, 0.064]",
    "training.batch=16",
    "sigmas=[0.5, 5]",
    "sampler={samples: 16, steps: 4}",
    "resources={}",
]
"""What makes a paper-scale sweep one of minutes here; images keep their shape and format."""


def main():
    """Make one of each."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MAKE.items():
        print(name, make(folder, 200))


if __name__ == "__main__":
    main()
