import pytest
import torch

from analyses.cache import Cache, digest, size_of


def zeros(n):
    return torch.zeros(n, dtype=torch.float64)


def test_a_value_is_built_once():
    cache, calls = Cache(1000), []
    for _ in range(3):
        cache.get("a", lambda: calls.append(1) or zeros(2))
    assert len(calls) == 1


def test_the_cache_never_holds_more_than_its_bytes():
    cache = Cache(1000)
    for key in range(50):
        cache.get(key, lambda key=key: zeros(key))
        assert cache.n_bytes <= 1000


def test_the_least_recently_used_value_is_dropped_first():
    cache, calls = Cache(24), []
    for key in "abacaba":
        cache.get(key, lambda key=key: calls.append(key) or zeros(1))
    assert len(cache) == 3
    cache.get("d", lambda: zeros(1))
    cache.get("a", lambda: calls.append("a again") or zeros(1))
    cache.get("c", lambda: calls.append("c again") or zeros(1))
    assert calls == ["a", "b", "c", "c again"]


def test_a_value_larger_than_the_cache_is_returned_and_not_kept():
    cache = Cache(7)
    assert torch.equal(cache.get("a", lambda: zeros(1)), zeros(1))
    assert (len(cache), cache.n_bytes) == (0, 0)


def test_a_value_that_is_not_enough_is_built_again():
    cache = Cache(1000)
    cache.get("a", lambda: zeros(2))
    assert len(cache.get("a", lambda: zeros(5), lambda value: len(value) >= 5)) == 5
    assert len(cache.get("a", lambda: zeros(3), lambda value: len(value) >= 3)) == 5
    assert cache.n_bytes == 40


def test_the_size_of_a_tuple_is_that_of_its_tensors():
    assert size_of((zeros(2), (zeros(1),))) == 24


def test_equal_sizes_do_not_make_equal_digests():
    assert digest(zeros(3)) == digest(zeros(3))
    assert len({digest(zeros(3)), digest(zeros(3) + 1), digest(zeros(3).float())}) == 3
    assert digest(zeros(4)) != digest(zeros(4).view(2, 2))


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="`max_bytes` must be at least 0, got -1"):
        Cache(-1)
