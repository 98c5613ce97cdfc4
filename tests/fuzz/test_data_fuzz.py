"""A data file gives images or a `ValueError` that names it, whatever its bytes are."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from tests.fuzz.cases import damaged, fuzz
from trainables.datasets import files, idx, image_folder, npz
from trainables.datasets.data import load
from trainables.datasets.limits import VARIABLE

BYTES = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)
IDX = b"\0\0\x08\x03" + struct.pack(">3I", *BYTES.shape) + BYTES.tobytes()


def archived(**arrays):
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def pictured(kind, mode):
    """The bytes of an image file."""
    file = io.BytesIO()
    pixels = BYTES[0] if mode in "LP" else np.repeat(BYTES[0][:, :, None], len(mode), 2)
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


ARCHIVES = [archived(images=BYTES), archived(images=BYTES / np.float32(9), test=BYTES)]
PICTURES = [
    pictured(kind, mode)
    for kind, modes in {
        "PNG": ["L", "RGB", "RGBA", "P"],
        "JPEG": ["L", "RGB"],
        "GIF": ["P"],
        "BMP": ["RGB"],
        "TIFF": ["L", "RGB"],
        "WEBP": ["RGB"],
        "PPM": ["RGB"],
    }.items()
    for mode in modes
]


def images_or_refused(read, name):
    """What a loader gives for a bad file: images that are sound, or one clear error."""
    try:
        points = read().points
    except ValueError as error:
        assert name in str(error)
    else:
        assert points.ndim == 4 and points.dtype in (np.uint8, np.float32)
        assert np.isfinite(points).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@fuzz
@given(
    st.binary(max_size=40).map(lambda b: b"\0\0\x08\x03" + b)
    | damaged(IDX)
    | damaged(gzip.compress(IDX, mtime=0))
    | damaged(IDX).map(lambda b: gzip.compress(b, mtime=0))
)
def test_an_idx_file_is_images_or_a_clear_error(folder, data):
    (folder / "images.idx").write_bytes(data)
    images_or_refused(lambda: idx.load(folder / "images.idx"), "images.idx")


@fuzz
@given(st.binary(max_size=40) | st.sampled_from(ARCHIVES).flatmap(damaged))
def test_an_archive_is_images_or_a_clear_error(folder, data):
    (folder / "images.npz").write_bytes(data)
    images_or_refused(lambda: npz.load(folder / "images.npz"), "images.npz")


@fuzz
@given(
    st.binary(max_size=40) | st.sampled_from(PICTURES).flatmap(damaged), st.sampled_from([1, 3])
)
def test_a_picture_is_images_or_a_clear_error(folder, data, channels):
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / "one.png").write_bytes(data)
    images_or_refused(lambda: image_folder.load(folder / "pictures", channels=channels), "one.png")


def written(write, *arguments):
    """What a function writes to a file that it is given."""
    file = io.BytesIO()
    write(file, *arguments)
    return file.getvalue()


def tarred(data):
    """A tar archive of one picture."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a/one.png")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def edm_zip(data):
    """A zip as EDM's, of one picture and its label."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("00000/img00000000.png", data)
        archive.writestr("dataset.json", '{"labels": [["00000/img00000000.png", 3]]}')
    return file.getvalue()


CIFAR = np.arange(2 * 3072, dtype=np.uint16).astype(np.uint8).reshape(2, 3072)
TABLE = pa.table({"image": [{"bytes": PICTURES[1], "path": "x"}] * 2, "label": [0, 1]})
FILES = {
    "train-images-idx3-ubyte": [IDX, gzip.compress(IDX, mtime=0)],
    "images.npz": [archived(images=BYTES, labels=np.arange(5))],
    "images.npy": [written(np.save, BYTES)],
    "images.zip": [edm_zip(PICTURES[1])],
    "images.tar": [tarred(PICTURES[1])],
    "data_batch_1.bin": [b"".join(bytes([i]) + row.tobytes() for i, row in enumerate(CIFAR))],
    "data_batch_1": [
        pickle.dumps({b"data": CIFAR, b"labels": [0, 1]}, protocol) for protocol in (2, 4)
    ],
    "train_X.bin": [bytes(range(256)) * 108],
    "train_32x32.mat": [
        written(scipy.io.savemat, {"X": CIFAR.reshape(32, 32, 3, 2), "y": [[1], [10]]})
    ],
    "train.parquet": [written(lambda file: parquet.write_table(TABLE, file))],
}
"""A sound file of each format by its name, in the ways that it may be written."""


@pytest.mark.parametrize("name", FILES)
def test_the_files_that_are_damaged_below_are_sound(tmp_path, name):
    for data in FILES[name]:
        (tmp_path / name).write_bytes(data)
        assert len(files.load(tmp_path / name).points) > 0


@fuzz
@given(st.data())
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_format_is_images_or_a_clear_error(folder, name, data):
    content = data.draw(st.binary(max_size=40) | st.sampled_from(FILES[name]).flatmap(damaged))
    (folder / name).write_bytes(content)
    images_or_refused(lambda: files.load(folder / name), name)


def header(shape):
    """The header of an .npy file of bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def zipped(**entries):
    """A zip file with the given entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


LARGE = {
    "idx": b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**10, 2**10),
    "idx.gz": gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**10, 2**10)),
    "npz": zipped(images=header((2**31, 2**10, 2**10))),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_header_that_promises_too_much_is_refused_unread(tmp_path, kind):
    path = tmp_path / f"large.{kind}"
    path.write_bytes(LARGE[kind])
    loader = npz.load if kind == "npz" else idx.load
    with pytest.raises(ValueError, match=rf"large.*GB as float32.*set {VARIABLE}"):
        loader(path)


def test_an_archive_whose_header_lies_is_refused_unread(tmp_path):
    (tmp_path / "lie.npz").write_bytes(zipped(images=header((2**10, 2**10, 2**10)) + b"12"))
    with pytest.raises(ValueError, match=r"lie\.npz.*promises 1073741824 bytes"):
        npz.load(tmp_path / "lie.npz")


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(IDX + bytes(2**24), 1))
    with pytest.raises(ValueError, match=r"bomb\.gz.*found more"):
        idx.load(tmp_path / "bomb.gz")


def test_the_limit_can_be_raised_and_lowered(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(IDX)
    monkeypatch.setenv(VARIABLE, "1e-9")
    with pytest.raises(ValueError, match=r"5 x 4 x 6 pixels are 4\.8e-07 GB.*1e-09 allowed"):
        idx.load(tmp_path / "x")
    monkeypatch.setenv(VARIABLE, "1")
    assert len(idx.load(tmp_path / "x").points) == 5


@pytest.mark.parametrize("name", ["gaussian", "mixture", "subspaces"])
def test_synthetic_data_that_would_not_fit_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: 10000000000 x 64 pixels .* GB"):
        load(name, n=10**10)
