"""What is special to one data set: formats, scales, known moments, and broken files."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import data as data_module
from trainables.datasets import (
    digits,
    fashion_mnist,
    gaussian,
    idx,
    image_folder,
    mixture,
    npz,
    subspaces,
)
from trainables.datasets import images as images_module
from trainables.datasets.data import area_weights, load
from trainables.datasets.images import floats, from_bytes

BYTES = np.random.default_rng(0).integers(0, 256, (20, 4, 6), dtype=np.uint8)


def idx_bytes(images=BYTES, shape=None, magic=b"\0\0\x08\x03"):
    shape = images.shape if shape is None else shape
    return magic + struct.pack(f">{len(shape)}I", *shape) + images.tobytes()


def test_digits_are_1797_images_with_17_grey_levels():
    points = digits.load().points
    assert points.shape == (1797, 1, 8, 8)
    np.testing.assert_array_equal(np.unique(points), np.arange(17, dtype=np.float32) / 8 - 1)


def test_the_audit_of_digits_is_the_published_one():
    data = load("digits")
    assert (data.n_leaked, data.n_duplicates, data.n_constant_pixels) == (0, 0, 3)
    assert data.sigma_data == pytest.approx(0.752, abs=0.003)


@pytest.mark.parametrize("name", ["images.idx", "images.gz", "odd-name"])
def test_an_idx_file_gives_its_bytes_between_minus_one_and_one(tmp_path, name):
    data = idx_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    points = floats(idx.load(tmp_path / name).points)
    np.testing.assert_allclose((points[:, 0] + 1) * 127.5, BYTES, atol=1e-4)


def test_an_idx_file_in_four_dimensions_has_channels(tmp_path):
    images = BYTES.reshape(10, 2, 4, 6)
    (tmp_path / "x").write_bytes(idx_bytes(images, magic=b"\0\0\x08\x04"))
    np.testing.assert_array_equal(idx.read(tmp_path / "x"), images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (b"PK\3\4", "must start with 00 00 08 03 or 04"),
        (idx_bytes(magic=b"\0\0\x0d\x03"), "must start with 00 00 08 03 or 04"),
        (b"\0\0\x08\x03\0\0\0\1", "header ends early"),
        (idx_bytes(shape=(21, 4, 6)), "= 504 bytes, found 480 bytes"),
        (idx_bytes(shape=(19, 4, 6)), "= 456 bytes, found more"),
        (idx_bytes(shape=(2**32 - 1,) * 3), "GB as float32, more than the 16 allowed"),
        (idx_bytes(shape=(0, 4, 6)), "promises no images"),
        (gzip.compress(idx_bytes())[:-20], "damaged gzip"),
        (b"\x1f\x8b" + bytes(40), "damaged gzip"),
    ],
)
def test_a_broken_idx_file_is_an_error_naming_it(tmp_path, content, message):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match=f"broken: .*{message}"):
        idx.load(tmp_path / "broken")


def test_fashion_mnist_takes_its_test_part_from_the_second_file(tmp_path):
    for file, part in zip(fashion_mnist.FILES, (BYTES[:12], BYTES[12:]), strict=True):
        (tmp_path / file).write_bytes(gzip.compress(idx_bytes(part)))
    images = fashion_mnist.load(tmp_path)
    assert len(images.points) == 12 and len(images.test) == 8 and len(images.sources) == 2


def test_fashion_mnist_has_the_classes_of_its_label_file(tmp_path):
    for file, part in zip(fashion_mnist.FILES, (BYTES[:12], BYTES[12:]), strict=True):
        (tmp_path / file).write_bytes(gzip.compress(idx_bytes(part)))
    assert load("fashion_mnist", path=tmp_path, n_heldout=4).labels is None
    labels = np.arange(12, dtype=np.uint8) % 10
    file = tmp_path / fashion_mnist.LABELS
    file.write_bytes(gzip.compress(idx_bytes(labels, magic=b"\0\0\x08\x01")))
    data = load("fashion_mnist", path=tmp_path, n_heldout=4)
    assert data.n_classes == 10 and file in data.sources
    shown = {from_bytes(image).tobytes(): int(k) for image, k in zip(BYTES, labels, strict=False)}
    expected = [shown[image[0].tobytes()] for image in data.subset(12)]
    assert data.subset_labels("class", 12).tolist() == expected
    file.write_bytes(gzip.compress(idx_bytes(labels[:11], magic=b"\0\0\x08\x01")))
    with pytest.raises(ValueError, match="11 labels for 12 images"):
        load("fashion_mnist", path=tmp_path, n_heldout=4)


def test_images_kept_as_bytes_are_the_data_that_their_floats_are(tmp_path, monkeypatch):
    train, test = np.concatenate([BYTES[:12], BYTES[:2], BYTES[15:16]]), BYTES[12:]
    np.savez(tmp_path / "bytes.npz", images=train, test=test)
    np.savez(tmp_path / "floats.npz", images=from_bytes(train), test=from_bytes(test))
    options = {"test_key": "test", "n_heldout": 8}
    byte, single = (
        load("npz", path=tmp_path / f"{n}.npz", **options) for n in ("bytes", "floats")
    )
    monkeypatch.setattr(data_module, "FEW_PIXELS", 0)
    monkeypatch.setattr(images_module, "BLOCK_BYTES", 4 * 24 * 5)
    blocked = load("npz", path=tmp_path / "bytes.npz", **options)
    for one in (byte, blocked):
        assert one.points.dtype == np.uint8 and one.nbytes < single.nbytes
        assert one.content_hash == single.content_hash and one.n_pool == single.n_pool == 14
        assert one.sigma_data == pytest.approx(single.sigma_data, rel=1e-12)
        for counted in ("n_leaked", "n_duplicates", "n_constant_pixels"):
            assert getattr(one, counted) == getattr(single, counted)
        for points in ("pool", "heldout"):
            np.testing.assert_array_equal(getattr(one, points), getattr(single, points))
        np.testing.assert_array_equal(one.subset(5, 1, "b"), single.subset(5, 1, "b"))
        np.testing.assert_array_equal(np.concatenate(list(one.blocks())), single.pool)


def test_without_fashion_mnist_the_error_says_how_to_get_it(tmp_path):
    for text in ("apt-get install dataset-fashion-mnist", "`data.path`", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=text):
            load("fashion_mnist", path=tmp_path)


def test_a_missing_idx_file_is_an_error_naming_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load("idx", path=tmp_path / "nowhere")


def test_an_archive_takes_bytes_floats_channels_and_a_test_part(tmp_path):
    colour = BYTES.reshape(8, 4, 5, 3)
    single = np.linspace(-2, 2, 2 * 4 * 6).reshape(2, 4, 6)
    np.savez(tmp_path / "x.npz", images=BYTES, colour=colour, floats=single)
    images = npz.load(tmp_path / "x.npz", test_key="floats")
    np.testing.assert_allclose((floats(images.points)[:, 0] + 1) * 127.5, BYTES, atol=1e-4)
    np.testing.assert_array_equal(images.test[:, 0], single.astype(np.float32))
    points = floats(npz.load(tmp_path / "x.npz", key="colour", channels_last=True).points)
    np.testing.assert_allclose((points + 1) * 127.5, np.moveaxis(colour, -1, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "must be n h w or n c h w"),
        (np.zeros((0, 4, 4)), "must be n h w or n c h w"),
        (np.full((3, 4, 4), np.nan), "not finite"),
        (np.zeros((3, 4, 4), dtype=np.int64), "bytes or floats, got int64"),
        (np.array([{"a": 1}], dtype=object), "no images to read"),
    ],
)
def test_an_unfit_array_is_an_error_and_nothing_is_unpickled(tmp_path, array, message):
    np.savez(tmp_path / "x.npz", images=array)
    with pytest.raises(ValueError, match=f"x.npz: .*{message}"):
        npz.load(tmp_path / "x.npz")


def test_a_missing_array_is_an_error_naming_those_there_are(tmp_path):
    np.savez(tmp_path / "x.npz", left=BYTES, right=BYTES)
    with pytest.raises(ValueError, match="it holds left, right, not 'images'"):
        npz.load(tmp_path / "x.npz")


def test_a_file_that_is_no_archive_is_an_error_naming_it(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"neither")
    with pytest.raises(ValueError, match=r"x\.npz: no images to read"):
        npz.load(tmp_path / "x.npz")


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "b").mkdir()
    for file, value in (("b/1.png", 2), ("c.png", 3), ("a.png", 1), ("notes.txt", None)):
        if value is None:
            (tmp_path / file).write_text("no image")
        else:
            Image.new("RGB", (5, 3), (value, 0, 255)).save(tmp_path / file)
    images = image_folder.load(tmp_path)
    assert images.points.shape == (3, 3, 3, 5)
    assert images.points[:, 0, 0, 0].tolist() == [1, 2, 3] and (images.points[:, 2] == 255).all()
    assert image_folder.load(tmp_path, channels=1).points.shape == (3, 1, 3, 5)


def test_images_of_two_sizes_are_an_error_naming_both_files(tmp_path):
    Image.new("L", (5, 3)).save(tmp_path / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png has 5 x 4 pixels, but .*a.png has 5 x 3"):
        image_folder.load(tmp_path)


def test_an_unreadable_image_is_an_error_naming_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"neither")
    with pytest.raises(ValueError, match=r"a\.png is not a readable image"):
        image_folder.load(tmp_path)


def test_a_folder_without_images_is_an_error_naming_it(tmp_path):
    with pytest.raises(ValueError, match=f"no image file .* below {tmp_path}"):
        image_folder.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        image_folder.load(tmp_path / "nowhere")


@pytest.mark.parametrize("channels", [2, 4, 0])
def test_a_folder_has_one_or_three_channels(tmp_path, channels):
    with pytest.raises(ValueError, match="`channels` must be 1 or 3"):
        image_folder.load(tmp_path, channels=channels)


def test_the_gaussian_has_the_spectrum_it_was_asked_for():
    mean, covariance = gaussian.load(dim=36, n=2, alpha=1.2, std=0.4, mean=0.1).moments
    values = np.linalg.eigvalsh(covariance)[::-1]
    expected = np.arange(1, 37) ** -1.2
    np.testing.assert_allclose(values, expected * 0.16 / expected.mean())
    assert (mean == 0.1).all() and np.trace(covariance) / 36 == pytest.approx(0.16)


@pytest.mark.parametrize("shape", [(1, 7), (4, 4), (3, 5)])
def test_the_cosines_are_an_orthonormal_basis_with_the_constant_first(shape):
    basis = gaussian.cosine_basis(*shape)
    np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
    np.testing.assert_allclose(basis[:, 0], len(basis) ** -0.5)


@pytest.mark.parametrize("module", [gaussian, mixture, subspaces])
def test_more_synthetic_points_keep_the_first_ones(module):
    np.testing.assert_array_equal(module.load(n=9).points, module.load(n=30).points[:9])
    assert not np.array_equal(module.load(n=9).points, module.load(n=9, seed=1).points)


def test_a_mixture_without_spread_is_its_centres():
    points = mixture.load(dim=10, n=60, clusters=3, spread=0.0).points
    assert points.shape == (60, 1, 1, 10) and len(np.unique(points, axis=0)) == 3


def test_every_point_lies_in_one_subspace_and_all_are_used():
    bases = subspaces.orthogonal_bases((2, 3, 5), 12, seed=4)
    points = subspaces.load((2, 3, 5), dim=12, n=90, seed=4).points.reshape(90, 12)
    shares = np.stack([np.square(points @ u).sum(1) for u in bases], axis=1)
    largest = shares.max(1)
    np.testing.assert_allclose(largest, np.square(points).sum(1), rtol=1e-5)
    np.testing.assert_allclose(shares.sum(1) - largest, 0, atol=1e-9)
    assert np.bincount(shares.argmax(1)).min() > 10


def test_points_of_a_subspace_span_it_as_soon_as_they_are_as_many_as_its_dimensions():
    bases = subspaces.orthogonal_bases((4, 6), 16)
    points = subspaces.load((4, 6), dim=16, n=60).points.reshape(60, 16).astype(np.float64)
    first = points[np.square(points @ bases[0]).sum(1) > 1e-6]
    for n in (1, 3, 4, 7):
        assert np.linalg.matrix_rank(first[:n], tol=1e-5) == min(n, 4)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_bases_of_the_subspaces_are_orthonormal_together(seed):
    joined = np.concatenate(subspaces.orthogonal_bases((4, 5, 1), 16, seed), axis=1)
    np.testing.assert_allclose(joined.T @ joined, np.eye(10), atol=1e-12)


def test_the_spectrum_of_the_subspaces_is_flat_and_of_their_joint_rank():
    _, covariance = subspaces.load((3, 5), dim=20, n=2, std=2.0).moments
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(values, [2.0] * 8 + [0.0] * 12, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (gaussian, {"dim": 0}),
        (gaussian, {"n": 0}),
        (gaussian, {"alpha": -1.0}),
        (gaussian, {"std": 0.0}),
        (mixture, {"clusters": 0}),
        (mixture, {"std": 0.0}),
        (mixture, {"spread": -0.1}),
        (subspaces, {"dim": 0}),
        (subspaces, {"n": True}),
        (subspaces, {"dims": ()}),
        (subspaces, {"dims": (4, 0)}),
        (subspaces, {"dims": (60, 5)}),
        (subspaces, {"std": 0.0}),
    ],
)
def test_an_impossible_law_is_an_error_naming_the_option(module, options):
    (option,) = options
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        module.load(**options)


def test_known_moments_follow_the_resolution():
    data = load("gaussian", resolution=3, n=6000)
    mean, covariance = data.moments
    assert mean.shape == (9,)
    points = data.pool.reshape(data.n_pool, 9).astype(np.float64)
    assert np.abs(np.cov(points.T) - covariance).max() < 0.05 * np.abs(covariance).max()


def test_lowering_the_resolution_averages_whole_pixels(tmp_path):
    np.savez(tmp_path / "x.npz", images=BYTES[:, :, :4])
    options = {"path": tmp_path / "x.npz", "n_heldout": 2}
    whole, half = load("npz", **options), load("npz", resolution=2, **options)
    blocks = whole.pool.reshape(-1, 1, 2, 2, 2, 2).mean((3, 5))
    np.testing.assert_allclose(half.pool, blocks, atol=1e-6)


@pytest.mark.parametrize("sizes", [(8, 8), (8, 4), (28, 10), (5, 1)])
def test_area_weights_average_and_use_every_pixel_alike(sizes):
    weights = area_weights(*sizes)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights.sum(0), sizes[1] / sizes[0])


@pytest.mark.parametrize("resolution", [0, 9, True])
def test_an_impossible_resolution_is_an_error_naming_the_smaller_side(resolution):
    with pytest.raises(ValueError, match="`resolution` must be a whole number from 1 to 8"):
        load("digits", resolution=resolution)


def test_copies_of_heldout_points_leave_the_pool_and_other_copies_are_counted(tmp_path):
    train = np.concatenate([BYTES[:6], BYTES[:2], BYTES[10:13]])
    np.savez(tmp_path / "x.npz", images=train, test=BYTES[10:15])
    data = load("npz", path=tmp_path / "x.npz", test_key="test", n_heldout=5)
    assert (data.n_leaked, data.n_duplicates, data.n_pool) == (3, 2, 8)


def test_constant_pixels_are_counted(tmp_path):
    images = BYTES.copy()
    images[:, 0, :2] = 7
    np.savez(tmp_path / "x.npz", images=images)
    assert load("npz", path=tmp_path / "x.npz", n_heldout=2).n_constant_pixels == 2


def test_training_and_test_images_of_two_shapes_are_an_error(tmp_path):
    np.savez(tmp_path / "x.npz", images=BYTES, test=BYTES[:, :3])
    with pytest.raises(ValueError, match="differ in shape"):
        load("npz", path=tmp_path / "x.npz", test_key="test", n_heldout=2)


def test_an_unknown_data_set_is_an_error_naming_the_nearest():
    with pytest.raises(ValueError, match=r"choose from digits, .*Did you mean 'digits'\?"):
        load("digit")


def test_a_missing_path_is_an_error_naming_the_option():
    with pytest.raises(ValueError, match="'idx' needs the option 'path'"):
        load("idx")


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    from trainables.datasets import digits

    np.testing.assert_array_equal(digits.load().points[:, 0], load_digits().images / 8 - 1)
