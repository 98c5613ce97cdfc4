"""Files that lie or attack: refused with an error that names them, and nothing of theirs runs."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from PIL import Image

from trainables.datasets import files, members
from trainables.datasets.formats import pictures
from trainables.datasets.formats.restricted import loads
from trainables.datasets.limits import VARIABLE


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFPHASE_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(size=4):
    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "PNG")
    return file.getvalue()


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def build(target, state):
    """A pickle that gives `state` to what it names."""
    module, name = target
    pushed = pickle.dumps(state, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pushed + b"b."


HOSTILE = {
    "a command": lambda mark: pickle.dumps(Calls(os.system, f"touch {mark}")),
    "a command, protocol 0": lambda mark: pickle.dumps(Calls(os.system, f"touch {mark}"), 0),
    "eval": lambda mark: pickle.dumps(Calls(eval, f"open({str(mark)!r}, 'w')")),
    "a file": lambda mark: pickle.dumps(Calls(open, str(mark), "w")),
    "inside a dictionary": lambda mark: pickle.dumps({b"data": Calls(os.mkdir, str(mark))}),
    "by instance": lambda mark: f"(S'touch {mark}'\nios\nsystem\n.".encode(),
    "a dotted name": lambda mark: b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "an extension": lambda mark: b"\x80\x02\x82\x01.",
    "a state for a function": lambda mark: build(
        ("numpy.core.multiarray", "_reconstruct"), (None, {"__defaults__": 1})
    ),
    "a state for a class": lambda mark: build(("numpy", "ndarray"), (None, {"x": 1})),
    "an array of objects": lambda mark: pickle.dumps({b"data": np.array([{}], dtype=object)}),
    "an array short of bytes": lambda mark: pickle.dumps(np.zeros(900, np.uint8), 2).replace(
        struct.pack("<H", 900), struct.pack("<H", 901)
    ),
    "a memo of four thousand million": lambda mark: b"\x80\x02]r\xff\xff\xff\xff0.",
    "a length of an exabyte": lambda mark: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
    "too deep": lambda mark: b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "cut short": lambda mark: pickle.dumps({b"data": 1})[:-3],
    "empty": lambda mark: b"",
    "no pickle": lambda mark: b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(make, tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "data_batch_1").write_bytes(make(mark))
    with pytest.raises(ValueError, match="data_batch_1: refused pickle"):
        files.load(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(5))
def test_plain_pickles_are_read(protocol):
    value = {
        b"data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "turned": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "labels": [1, 2, {"x": (None, True, 0.5, "text", b"bytes")}],
    }
    found = loads(pickle.dumps(value, protocol), "x")
    np.testing.assert_equal(found, value)
    assert found["turned"].dtype == np.dtype(">i4")


def test_a_pickle_of_shared_lists_is_not_unfolded():
    value = []
    for _ in range(200):
        value = [value, value]
    assert len(loads(pickle.dumps(value), "x")) == 2


def zip_of(path, named):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in named:
            archive.writestr(name, data)
    return path


OUTSIDE = ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_an_archive_is_refused(name, tmp_path):
    zip_of(tmp_path / "x.zip", [("a.png", png()), (name, png())])
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for one in ("a.png", name):
            info = tarfile.TarInfo(one)
            info.size = len(png())
            archive.addfile(info, io.BytesIO(png()))
    for file in ("x.zip", "x.tar"):
        with pytest.raises(ValueError, match="a name that leads out of the archive"):
            files.load(tmp_path / file)


def test_links_in_a_tar_are_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(info)
    with pytest.raises(ValueError, match="no format is recognised by the names of the 0 files"):
        files.load(tmp_path / "x.tar")


def test_the_same_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(tmp_path / "x.zip", [("a.png", png()), ("a.png", png())])
    with pytest.raises(ValueError, match=r"member 'a\.png' is there twice"):
        files.load(tmp_path / "x.zip")


def test_an_archive_s_member_is_read_no_further_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MEMBER_BYTES", 10**5)
    zip_of(tmp_path / "x.zip", [("a.png", bytes(10**6))])
    with pytest.raises(ValueError, match=r"'a\.png' unpacks to 1000000 bytes, more than"):
        files.load(tmp_path / "x.zip")


def test_a_member_that_unpacks_to_other_than_it_claims_is_refused(tmp_path):
    data = zip_of(tmp_path / "x.zip", [("a.png", bytes(10**5))]).read_bytes()
    for claimed in (10**4, 10**9):
        lie = data.replace(struct.pack("<I", 10**5), struct.pack("<I", claimed))
        (tmp_path / "y.zip").write_bytes(lie)
        with pytest.raises(ValueError, match=r"y\.zip: (damaged archive|member 'a\.png')"):
            files.load(tmp_path / "y.zip")


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_a_truncated_archive_is_an_error_naming_it(kind, keep, tmp_path):
    noise = np.random.default_rng(0).bytes(3000)
    if kind == "x.zip":
        zip_of(tmp_path / kind, [("a.png", png() + noise), ("b.png", png())])
    else:
        with tarfile.open(tmp_path / kind, "w:gz") as archive:
            info = tarfile.TarInfo("a.png")
            info.size = 3000
            archive.addfile(info, io.BytesIO(noise))
    data = (tmp_path / kind).read_bytes()
    (tmp_path / kind).write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"x\.(zip|tar\.gz)"):
        files.load(tmp_path / kind)


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_an_image_that_claims_too_many_pixels_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "a.png").write_bytes(data + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"a\.png (claims 60000 x 60000|is not a readable)"):
        files.load(tmp_path)


def test_what_starts_another_program_is_no_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EOF\n")
    with pytest.raises(ValueError, match=r"a\.png is not a readable image"):
        files.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b'{"labels": [1]}', b'{"labels": [["a.png", -1]]}', b"[" * 10**5],
)
def test_a_broken_dataset_json_is_an_error_naming_it(text, tmp_path):
    zip_of(tmp_path / "x.zip", [("a.png", png()), ("dataset.json", text)])
    with pytest.raises(ValueError, match=r"dataset\.json: "):
        files.load(tmp_path / "x.zip")


def test_labels_may_be_missing_from_dataset_json(tmp_path):
    named = [
        ("a/1.png", png()),
        ("b/2.png", png()),
        ("dataset.json", json.dumps({"labels": None})),
    ]
    assert files.load(zip_of(tmp_path / "x.zip", named)).labels is not None
    assert not pictures._labels(b'{"labels": null}', "x")


def compressed_mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=True)
    return file.getvalue()


def test_a_small_file_that_unpacks_to_too_much_is_refused_before_it_is(tmp_path, monkeypatch):
    """20 kB on disk that are 12 MB of pixels, or 4 MB of labels, with 1 MB allowed."""
    monkeypatch.setenv(VARIABLE, "0.001")
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("it was unpacked"))
    pixels, labels = np.zeros((32, 32, 3, 1000), np.uint8), np.zeros(10**6, np.uint8)
    (tmp_path / "train_32x32.mat").write_bytes(compressed_mat(X=pixels, y=labels[:1000]))
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((3, 4, 4), np.uint8), labels=labels)
    for name in ("train_32x32.mat", "x.npz"):
        assert (tmp_path / name).stat().st_size < 10**5
        with pytest.raises(ValueError, match=rf"{name}.* GB as float32, more than the 0.001"):
            files.load(tmp_path / name)


def test_an_npz_that_claims_more_than_it_holds_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((7, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        data = archive.read("images.npy")
    lie = data.replace(b"(7, 4, 4)", b"(7, 4, 9)")
    huge = data.replace(b"(7, 4, 4), }   ", b"(7, 4, 9999), }")
    assert len({data, lie, huge}) == 3
    for body in (lie, huge):
        zip_of(tmp_path / "y.npz", [("images.npy", body)])
        with pytest.raises(ValueError, match=r"y\.npz: no images to read"):
            files.load(tmp_path / "y.npz")
    (tmp_path / "z.npy").write_bytes(lie)
    with pytest.raises(ValueError, match=r"z\.npy: no array to read"):
        files.load(tmp_path / "z.npy")
    np.savez(tmp_path / "o.npz", images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"o\.npz: no images to read"):
        files.load(tmp_path / "o.npz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 4)), "the data set `npz` takes floats"),
        (np.zeros((3, 3, 4, 3), np.uint8), "Set `layout` to nchw or nhwc"),
        (np.zeros((0, 4, 4), np.uint8), "must be n h w"),
    ],
)
def test_unfit_arrays_are_errors(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message):
        files.load(tmp_path / "x.npy")


def test_broken_parquet_files_are_errors_naming_file_and_row(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet: no parquet file"):
        files.load(tmp_path)
    pq.write_table(pa.table({"pixels": [b"x"]}), file)
    with pytest.raises(ValueError, match="no column image or img; set `key` to one of pixels"):
        files.load(tmp_path)
    with pytest.raises(ValueError, match=r"a\.parquet: row 0 is not a readable image"):
        files.load(tmp_path, key="pixels")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1.bin", bytes(3074), "not a whole number of 3073"),
        ("train_X.bin", bytes(5), "no whole number of images"),
        ("train_32x32.mat", b"MATLAB 5.0 " + bytes(200), "no SVHN file to read"),
        (
            "train-images-idx3-ubyte",
            b"\0\0\x08\x03" + bytes([255] * 12) + b"x",
            "more than the 16 allowed",
        ),
    ],
)
def test_broken_files_of_known_names_are_errors(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.load(tmp_path)
