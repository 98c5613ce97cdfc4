"""Laws of every data set that is registered, on small files written for the occasion."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import DATASETS, emoji
from trainables.datasets.data import Data, load
from trainables.datasets.fashion_mnist import FILES


def write_idx(path, images):
    header = b"\0\0\x08" + bytes([images.ndim]) + struct.pack(f">{images.ndim}I", *images.shape)
    data = header + images.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def some_bytes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 6), dtype=np.uint8)


def files(name, folder):
    """The options with which the data set `name` loads at least 40 images, writing its files."""
    if name == "fashion_mnist":
        for i, file in enumerate(FILES):
            write_idx(folder / file, some_bytes(60, seed=i))
        return {"path": folder}
    if name == "idx":
        write_idx(folder / "images.idx", some_bytes(60))
        return {"path": folder / "images.idx"}
    if name == "npz":
        np.savez(folder / "images.npz", images=some_bytes(60))
        return {"path": folder / "images.npz"}
    if name in ("files", "image_folder"):
        for i, pixels in enumerate(some_bytes(60)):
            Image.fromarray(pixels).save(folder / f"{i:03}.png")
        return {"path": folder, "channels": 1}
    if name == "patches":
        return {"resolution": 64, "channels": 1}
    if name == "emoji":
        return {"resolution": 8}
    return {}


@pytest.fixture(params=DATASETS)
def case(request, tmp_path):
    if request.param == "emoji" and emoji.font() is None:
        pytest.skip("no emoji font here: apt-get install fonts-noto-color-emoji")
    return request.param, {"n_heldout": 16, **files(request.param, tmp_path)}


@pytest.fixture
def data(case) -> Data:
    name, options = case
    return load(name, **options)


def rows(points):
    return {point.tobytes() for point in points}


def test_points_are_finite_float32_images_of_one_shape(data):
    for points in (data.pool, data.heldout):
        assert points.dtype == np.float32 and points.shape[1:] == data.shape
        assert np.isfinite(points).all()
    assert data.dim == np.prod(data.shape) and len(data.heldout) == 16


def test_pixels_are_comparable_to_images_between_minus_one_and_one(data):
    assert 0.1 < data.sigma_data < 1.1
    assert np.abs(data.pool).max() <= (1 if data.moments is None else 6)


def test_loading_twice_gives_the_same_points_and_hash(case, data):
    name, options = case
    again = load(name, **options)
    np.testing.assert_array_equal(again.pool, data.pool)
    np.testing.assert_array_equal(again.heldout, data.heldout)
    assert again.content_hash == data.content_hash


def test_another_number_of_heldout_points_changes_the_hash(case, data):
    name, options = case
    assert load(name, **{**options, "n_heldout": 15}).content_hash != data.content_hash


def test_no_heldout_point_is_in_the_pool(data):
    assert not rows(data.pool) & rows(data.heldout)


@pytest.mark.parametrize("split", ["a", "b"])
def test_smaller_subsets_are_prefixes_of_larger_ones(data, split):
    np.testing.assert_array_equal(data.subset(5, 1, split), data.subset(12, 1, split)[:5])


@pytest.mark.parametrize("split", ["a", "b"])
def test_with_copies_a_training_set_is_that_of_distinct_points_each_repeated(case, data, split):
    name, options = case
    thrice = load(name, copies=3, **options)
    assert thrice.n_pool == 3 * data.n_pool and thrice.content_hash != data.content_hash
    repeated = np.repeat(data.subset(4, 1, split), 3, axis=0)
    np.testing.assert_array_equal(thrice.subset(12, 1, split), repeated)
    np.testing.assert_array_equal(thrice.subset(6, 1, split), repeated[:6])
    np.testing.assert_array_equal(thrice.heldout, data.heldout)
    with pytest.raises(ValueError, match=r"`n_train` must be a multiple of the 3 copies .* got 7"):
        thrice.subset(7)


@pytest.mark.parametrize("copies", [0, -1, True])
def test_an_impossible_number_of_copies_is_an_error(case, copies):
    name, options = case
    with pytest.raises(ValueError, match="`copies` must be a whole number of at least 1"):
        load(name, copies=copies, **options)


def test_the_two_splits_are_disjoint_while_the_pool_suffices(data):
    half = data.n_pool // 2
    a, b = data.subset(half, split="a"), data.subset(half, split="b")
    assert not rows(a) & rows(b)


def test_a_whole_subset_is_a_permutation_of_the_pool_and_draws_differ(data):
    first, second = (data.subset(data.n_pool, draw) for draw in (0, 1))
    assert rows(first) == rows(second) == rows(data.pool)
    assert not np.array_equal(first, second)


def test_a_subset_is_a_copy(data):
    before = data.pool.copy()
    data.subset(4)[:] = 9
    np.testing.assert_array_equal(data.pool, before)


@pytest.mark.parametrize("n", [0, 10**9, True])
def test_an_impossible_subset_is_an_error_naming_the_pool(data, n):
    with pytest.raises(ValueError, match=rf"`n_train` must be .* {data.n_pool} points"):
        data.subset(n)


def test_a_third_split_is_an_error(data):
    with pytest.raises(ValueError, match="`split` must be 'a' or 'b', got 'c'"):
        data.subset(2, split="c")


def test_lower_resolution_keeps_the_mean_and_lowers_the_variance(case, data):
    name, options = case
    if name == "patches":  # its resolution is the size of a window: other pixels
        return
    small = load(name, **{**options, "resolution": 2})
    assert small.shape == (data.shape[0], 2, 2)
    rounding = 1 / 127.5 if small.near else 1e-4  # images from files stay bytes
    assert small.heldout.mean() == pytest.approx(data.heldout.mean(), abs=rounding)
    assert small.sigma_data < data.sigma_data


def test_an_unknown_option_is_an_error_naming_it_and_the_allowed_ones(case):
    name, options = case
    with pytest.raises(ValueError, match="no option 'colour': allowed are"):
        load(name, **options, colour="red")


@pytest.mark.parametrize("n_heldout", [1, 0, -3, True])
def test_fewer_than_two_heldout_points_are_an_error(case, n_heldout):
    name, options = case
    with pytest.raises(ValueError, match="`n_heldout` must be a whole number of at least 2"):
        load(name, **{**options, "n_heldout": n_heldout})


def test_holding_out_everything_is_an_error(case):
    name, options = case
    with pytest.raises(ValueError, match="`n_heldout` 1000000 leaves too few points"):
        load(name, **{**options, "n_heldout": 1_000_000})


def test_known_moments_are_those_of_the_points(case):
    name, options = case
    data = load(name, **options)
    if data.moments is None:
        assert name not in ("gaussian", "mixture", "subspaces")
        return
    mean, covariance = data.moments
    points = data.pool.reshape(data.n_pool, -1).astype(np.float64)
    spread = np.sqrt(np.diag(covariance))
    assert np.abs((points.mean(0) - mean) / spread).max() < 5 / np.sqrt(data.n_pool)
    error = np.cov(points.T, ddof=0) - covariance
    assert np.abs(error / np.outer(spread, spread)).max() < 8 / np.sqrt(data.n_pool)
