"""Images from files: every format gives back what was written, however it is packed."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from trainables.datasets import audit, cache, emoji, files, patches
from trainables.datasets.data import load
from trainables.datasets.images import from_bytes
from trainables.datasets.preprocess import Preprocessing

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (12, 4))
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DIFFPHASE_CACHE", str(folder))
    return folder


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


NAMES = [f"{'abc'[label]}/{i:02}.png" for i, label in enumerate(LABELS)]
BY_CLASS = np.argsort(NAMES)


def folder_of(path, images=TRAIN, names=NAMES):
    for name, image in zip(names, images, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(image))
    return path


def zip_of(path, named):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in named.items():
            archive.writestr(name, data)
    return path


def tar_of(path, named):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in named.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def edm_zip(path):
    names = [f"00000/img{i:08}.png" for i in range(12)]
    labels = [[name, int(label)] for name, label in zip(names, LABELS, strict=True)]
    named = dict(zip(names, map(png, TRAIN), strict=True))
    named["dataset.json"] = json.dumps({"labels": labels})
    return zip_of(path / "edm.zip", dict(reversed(named.items()))), TRAIN, LABELS, None


def image_folder(path):
    return folder_of(path), TRAIN[BY_CLASS], LABELS[BY_CLASS], None


def image_tar(path):
    named = dict(zip(NAMES, map(png, TRAIN), strict=True))
    return tar_of(path / "x.tar.gz", named), TRAIN[BY_CLASS], LABELS[BY_CLASS], None


def split_folder(path):
    folder_of(path / "train")
    folder_of(path / "test", TEST, NAMES[:4])
    return path, TRAIN[BY_CLASS], LABELS[BY_CLASS], TEST[np.argsort(NAMES[:4])]


def npz(path):
    np.savez(path / "x.npz", images=TRAIN, labels=LABELS, other=np.zeros(3))
    return path / "x.npz", TRAIN, LABELS, None


def npy(path):
    np.save(path / "x.npy", np.moveaxis(TRAIN, -1, 1))
    return path / "x.npy", TRAIN, None, None


def rows(images):
    return np.moveaxis(images, -1, 1).reshape(len(images), -1)


def batches(pickled, hundred=False):
    """The files of CIFAR by name: two batches of training and one of test images."""
    names = ["train"] if hundred else ["data_batch_1", "data_batch_2"]
    parts = [(rows(TRAIN), LABELS)] if hundred else [(rows(TRAIN)[:6], LABELS[:6])]
    parts += [] if hundred else [(rows(TRAIN)[6:], LABELS[6:])]
    parts += [(rows(TEST), LABELS[:4])]
    found = {}
    for name, (data, labels) in zip(
        [*names, "test" if hundred else "test_batch"], parts, strict=True
    ):
        if pickled:
            key = b"fine_labels" if hundred else b"labels"
            value = {b"data": data, key: labels.tolist(), b"coarse_labels": [0] * len(labels)}
            found[name] = pickle.dumps(value, protocol=2)
        else:
            classes = np.stack([labels * 0, labels] if hundred else [labels], 1)
            found[f"{name}.bin"] = np.concatenate([classes.astype(np.uint8), data], 1).tobytes()
    return found | ({"meta": b""} if hundred else {"batches.meta": b""})


def cifar(pickled, hundred, tar):
    def write(path):
        named = {f"cifar/{k}": v for k, v in reversed(batches(pickled, hundred).items())}
        if tar:
            return tar_of(path / "c.tar", named), TRAIN, LABELS, TEST
        (path / "cifar").mkdir()
        for name, data in named.items():
            (path / name).write_bytes(data)
        return path, TRAIN, LABELS, TEST

    return write


def idx_bytes(array):
    return (
        b"\0\0\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + (array.tobytes())
    )


def mnist(path):
    raw = path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, images, labels in (("train", TRAIN, LABELS), ("t10k", TEST, LABELS[:4])):
        pixels = idx_bytes(np.ascontiguousarray(images[..., 0]))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(pixels)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        packed = gzip.compress(idx_bytes(labels.astype(np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(packed)
    return path, TRAIN[..., :1], LABELS, TEST[..., :1]


def emnist(path):
    for part, images, labels in (("train", TRAIN, LABELS), ("test", TEST, LABELS[:4])):
        start = f"emnist-letters-{part}"
        pixels = idx_bytes(np.ascontiguousarray(images[..., 0]))
        (path / f"{start}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (path / f"{start}-labels-idx1-ubyte").write_bytes(idx_bytes(labels.astype(np.uint8)))
    return path, TRAIN[..., :1], LABELS, TEST[..., :1]


def svhn(path):
    for part, images in (("train", TRAIN), ("test", TEST)):
        x, y = np.moveaxis(images, 0, -1), LABELS[: len(images), None].copy()
        savemat(path / f"{part}_32x32.mat", {"X": x, "y": np.where(y == 0, 10, y)})
    return path, TRAIN, LABELS, TEST


def stl10(path):
    big = [x.repeat(3, 1).repeat(3, 2) for x in (TRAIN, TEST)]
    for part, images in zip(("train", "test"), big, strict=True):
        (path / f"{part}_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())
    (path / "train_y.bin").write_bytes((LABELS + 1).astype(np.uint8).tobytes())
    return path, big[0], LABELS, big[1]


def parquet(path):
    (path / "data").mkdir()
    for name, images in (("train-0", TRAIN[:7]), ("train-1", TRAIN[7:]), ("test-0", TEST)):
        start = 7 if name == "train-1" else 0
        cells = [{"bytes": png(image), "path": None} for image in images]
        table = {"image": cells, "label": LABELS[start : start + len(images)]}
        pq.write_table(pa.table(table), path / "data" / f"{name}.parquet")
    return path, TRAIN, LABELS, TEST


def write_shards(path, **named):
    """A parquet file of images for each name."""
    for name, images in named.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        table = {"image": [{"bytes": png(image), "path": None} for image in images]}
        pq.write_table(pa.table(table), path / f"{name}.parquet")


FORMATS = {
    "edm zip": edm_zip,
    "folder": image_folder,
    "tar": image_tar,
    "folder with parts": split_folder,
    "npz": npz,
    "npy": npy,
    "cifar-10 python": cifar(True, False, False),
    "cifar-10 python tar": cifar(True, False, True),
    "cifar-10 binary": cifar(False, False, False),
    "cifar-100 python": cifar(True, True, False),
    "cifar-100 binary tar": cifar(False, True, True),
    "mnist": mnist,
    "emnist": emnist,
    "svhn": svhn,
    "stl10": stl10,
    "parquet": parquet,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_back_the_images_and_classes_that_were_written(write, tmp_path):
    path, images, labels, test = write(tmp_path)
    found = files.load(path)
    np.testing.assert_array_equal(np.moveaxis(found.points, 1, -1), images)
    assert (found.labels is None) == (labels is None)
    assert labels is None or found.labels.tolist() == labels.tolist()
    assert (found.test is None) == (test is None)
    if test is not None:
        np.testing.assert_array_equal(np.moveaxis(found.test, 1, -1), test)


@pytest.mark.parametrize("form", ["data/{}-00000-of-00001", "default/{}/0000"])
@pytest.mark.parametrize("said", ["validation", "valid", "val", "dev"])
def test_validation_shards_are_the_test_part_or_none_and_never_training(form, said, tmp_path):
    write_shards(tmp_path, **{form.format("train"): TRAIN, form.format(said): TEST})
    found = files.load(tmp_path)
    assert len(found.points) == 12
    np.testing.assert_array_equal(np.moveaxis(found.test, 1, -1), TEST)
    write_shards(tmp_path, **{form.format("test"): TEST[1:3]})
    found = files.load(tmp_path)
    assert len(found.points) == 12
    np.testing.assert_array_equal(np.moveaxis(found.test, 1, -1), TEST[1:3])


@pytest.mark.parametrize("name", ["0000", "valley-0", "device", "training-1"])
def test_a_shard_that_names_no_part_is_training(name, tmp_path):
    write_shards(tmp_path, **{name: TRAIN})
    found = files.load(tmp_path)
    assert len(found.points) == 12 and found.test is None


def test_idx_files_of_several_sets_or_of_none_are_refused_with_the_names_wanted(tmp_path):
    emnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(TRAIN[..., 0]))
    with pytest.raises(ValueError, match=r"the prefixes are '', 'emnist-letters-'"):
        files.load(tmp_path)
    for file in tmp_path.iterdir():
        file.rename(file.with_name(file.name.replace("train", "all").replace("test", "some")))
    with pytest.raises(ValueError, match=r"wanted train-images-idx3-ubyte, and .* other files"):
        files.load(tmp_path)


def test_the_same_images_are_the_same_data_however_they_are_packed(tmp_path):
    paths = [write(tmp_path / name)[0] for name, write in FORMATS.items()
             if name in ("folder", "tar") and not (tmp_path / name).mkdir()]  # fmt: skip
    paths.append(zip_of(tmp_path / "x.zip", dict(zip(NAMES, map(png, TRAIN), strict=True))))
    data = [load("files", path=path, n_heldout=3) for path in paths]
    assert len({one.content_hash for one in data}) == 1
    for one in data:
        assert one.points.dtype == np.uint8 and not one.points.flags.writeable
        np.testing.assert_array_equal(one.subset(5), data[0].subset(5))
        shown = {from_bytes(np.moveaxis(x, -1, 0)).tobytes(): int(k)
                 for x, k in zip(TRAIN, LABELS, strict=True)}  # fmt: skip
        assert one.subset_labels("class", 9).tolist() == [
            shown[x.tobytes()] for x in one.subset(9)
        ]


def test_a_second_path_is_the_official_test_part(tmp_path):
    train, test = folder_of(tmp_path / "a"), folder_of(tmp_path / "b", TEST, NAMES[:4])
    found = files.load(train, test_path=test)
    assert len(found.points) == 12
    np.testing.assert_array_equal(np.moveaxis(found.test, 1, -1), TEST[np.argsort(NAMES[:4])])


def test_boxes_average_bytes_and_crops_are_central():
    image = TRAIN[0]
    small = Preprocessing(resolution=8)(image)
    exact = image.reshape(8, 4, 8, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small - exact).max() <= 1
    tall = np.concatenate([image, image[:7]])
    np.testing.assert_array_equal(Preprocessing(crop="centre")(tall), Preprocessing()(tall[3:35]))
    np.testing.assert_array_equal(
        Preprocessing(crop=10)(image), Preprocessing()(image[11:21, 11:21])
    )
    grey = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(Preprocessing(channels=1)(image)[0] - grey).max() <= 1
    assert Preprocessing(channels=3)(image[..., :1]).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "`channels` must be 1 or 3"),
        ({"crop": "left"}, "`crop` must be 'centre' or"),
        ({"crop": 99}, "too few for `crop` 99"),
        ({"resolution": 0}, "`resolution` must be a whole number"),
        ({"resolution": 33}, "fewer than `resolution` 33"),
        ({"resolution": 8, "path": "wide"}, "no square: with `resolution` set `crop`"),
        ({"filter": "sinc"}, "`filter` must be box"),
        ({"format": "jpeg"}, "Unknown format 'jpeg': choose from cifar"),
        ({"layout": "hw"}, "`layout` must be nchw or nhwc"),
        ({"path": "mixed"}, r"b\.png has 40 x 32 pixels and 3 channels, but a\.png has 32 x 32"),
        ({"path": "empty"}, "no format is recognised"),
    ],
)
def test_unfit_options_are_errors_naming_them(options, message, tmp_path):
    wide = np.concatenate([TRAIN[0], TRAIN[0][:, :8]], axis=1)
    folder_of(tmp_path / "plain")
    folder_of(tmp_path / "wide", [wide], ["a.png"])
    folder_of(tmp_path / "mixed", [TRAIN[0], wide], ["a.png", "b.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        files.load(**{**options, "path": tmp_path / options.get("path", "plain")})


def test_preprocessing_belongs_to_the_identity_of_the_data(tmp_path):
    path = folder_of(tmp_path / "x")
    options = [{}, {"channels": 1}, {"resolution": 8}, {"crop": 16}, {"n_heldout": 4}]
    hashes = {load("files", path=path, **{"n_heldout": 3, **o}).content_hash for o in options}
    assert len(hashes) == len(options)


def test_files_are_read_again_only_if_they_changed(tmp_path):
    path = folder_of(tmp_path / "x")
    first, file = files.load(path), path / NAMES[0]
    before, stat = file.read_bytes(), file.stat()
    other = bytearray(before)
    file.write_bytes(bytes(other[:-20]) + bytes(20))  # damaged, and of the same size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    np.testing.assert_array_equal(files.load(path).points, first.points)
    file.write_bytes(png(TRAIN[1]))
    assert (files.load(path).points[0] == np.moveaxis(TRAIN[1], -1, 0)).all()


def test_builders_at_once_agree_and_leave_nothing_else(tmp_path, own_cache):
    path = folder_of(tmp_path / "x")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: files.load(path), range(4)))
    assert len({one.prepared for one in found}) == 1
    assert {p.name for p in (own_cache / "images").iterdir()} == {found[0].prepared}
    assert not list(own_cache.rglob("*tmp-*"))


def test_a_damaged_cache_is_built_again(tmp_path, own_cache):
    path = folder_of(tmp_path / "x")
    first = np.array(files.load(path).points)
    (array,) = own_cache.glob("images/*/train.npy")
    array.write_bytes(array.read_bytes()[:-1])
    np.testing.assert_array_equal(files.load(path).points, first)


def test_a_failed_build_leaves_nothing(tmp_path, own_cache):
    path = folder_of(tmp_path / "x")
    (path / "z.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"z\.png is not a readable image"):
        files.load(path)
    assert not list((own_cache / "images").iterdir())


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert str(cache.folder()) == os.environ["DIFFPHASE_CACHE"]
    monkeypatch.delenv("DIFFPHASE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "diffphase"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "diffphase"


def brute(points, earlier):
    """How many of `points` correlate with one of `earlier`, or with one before them."""
    x, y = (from_bytes(p).reshape(len(p), -1).astype(np.float64) for p in (points, earlier))
    corr = np.corrcoef(x, y)[: len(x), len(x) :]
    if points is earlier:
        corr = np.tril(corr, -1)
    return int((corr >= audit.THRESHOLD).any(1).sum())


@pytest.mark.parametrize("shape", [(3, 13, 11), (1, 8, 8), (3, 5, 20)])
def test_blocks_find_every_near_pair_that_all_pixels_have(shape, monkeypatch):
    monkeypatch.setattr(audit, "ROWS", 16)
    monkeypatch.setattr(audit, "NEAREST", 1)
    base = RNG.integers(60, 190, (8, *shape))
    noise = RNG.normal(size=(60, *shape)) * RNG.choice([2, 9, 14, 20], (60, 1, 1, 1))
    points = np.clip(base[RNG.integers(0, 8, 60)] * 0.9 + noise, 0, 255).astype(np.uint8)
    found = audit.count(points, np.arange(40), points[40:])
    pool = points[:40]
    assert found.n_near_duplicates == brute(pool, pool) > 3
    assert found.n_near_leaked == brute(pool, points[40:]) > 3


def test_brighter_copies_are_near_and_images_of_one_level_are_not(tmp_path):
    darker = (TRAIN[:3] * 0.6 + 20).astype(np.uint8)
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (9, 9, 200)])
    np.savez(tmp_path / "x.npz", images=np.concatenate([TRAIN, darker, flat]))
    np.savez(tmp_path / "y.npz", images=TEST)
    data = load("files", path=tmp_path / "x.npz", test_path=tmp_path / "y.npz", n_heldout=4)
    assert data.near == audit.Near(3, 0) and data.n_duplicates == 1


def test_no_pixel_of_a_photograph_is_in_patches_of_both_parts(tmp_path):
    h, w = 20, 36
    number = np.arange(h * w).reshape(h, w)
    image = np.stack([number // 256, number % 256, number * 0 + 99], -1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    seen = {False: set(), True: set()}
    for item in patches._patches((tmp_path / "x.png",), 8, 3):
        seen[item.test] |= {tuple(p) for p in item.image.reshape(-1, 3).tolist()}
    assert seen[False] and seen[True] and not seen[False] & seen[True]


def test_patches_are_colour_images_of_eight_photographs():
    found = patches.load()
    assert found.points.shape[1:] == found.test.shape[1:] == (3, 32, 32)
    assert 2000 < len(found.points) < 4000 and set(found.labels.tolist()) == set(range(8))


@pytest.mark.skipif(emoji.font() is None, reason="no emoji font: fonts-noto-color-emoji")
def test_emoji_are_drawings_on_white():
    found = emoji.load(resolution=16).points
    assert found.shape[1:] == (3, 16, 16) and len(found) > 3000
    corners = found[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all(1).mean() > 0.8


def test_glyphs_are_laid_on_white_cropped_shrunk_and_kept_in_the_order_of_the_font(
    tmp_path, monkeypatch
):
    """With tables that stand in for a font's: the font itself need not be installed."""

    def drawing(level, alpha):
        file = io.BytesIO()
        Image.new("RGBA", (136, 128), (level, level, level, alpha)).save(file, "PNG")
        return SimpleNamespace(imageData=file.getvalue())

    class Font(dict):
        def __init__(self, path):
            small, large = {"b": drawing(9, 255)}, {"b": drawing(50, 255), "a": drawing(50, 0)}
            large["again"] = drawing(50, 255)
            super().__init__(CBDT=SimpleNamespace(strikeData=[small, large]))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def getGlyphOrder(self):
            return ["none", "a", "b", "again"]

    (tmp_path / "some.ttf").write_bytes(b"stands in")
    monkeypatch.setattr("fontTools.ttLib.TTFont", Font)
    found = emoji.load(tmp_path / "some.ttf", resolution=16).points
    assert found.shape == (2, 3, 16, 16)
    assert (found[0] == 255).all() and (found[1] == 50).all()


def test_without_the_emoji_font_the_error_names_its_package(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install fonts-noto-color-emoji"):
        emoji.load(tmp_path / "none.ttf")
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"bad\.ttf: no colour bitmaps"):
        emoji.load(tmp_path / "bad.ttf")
