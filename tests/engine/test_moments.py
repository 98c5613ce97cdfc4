"""The moments of a pool: streamed, kept on disk where pixels are many, and never trusted torn."""

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from analyses.moments import Moments
from engine import moments
from engine.moments import pool_moments
from trainables.datasets import cache
from trainables.datasets.data import load


@pytest.fixture
def many(monkeypatch, tmp_path):
    """Digits have many pixels, and the cache is empty."""
    monkeypatch.setattr(moments, "MANY", 1)
    monkeypatch.setattr(moments, "_POOLS", {})
    monkeypatch.setenv("DIFFPHASE_CACHE", str(tmp_path))


def forgotten(monkeypatch):
    monkeypatch.setattr(moments, "_POOLS", {})


def same(one, other):
    torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(one.cov, other.cov, rtol=0, atol=1e-12)
    assert one.rank == other.rank


def test_blocks_have_the_moments_of_all_points():
    points = torch.randn(70, 6, generator=torch.Generator().manual_seed(0))
    for n in (70, 5):  # more and fewer points than pixels
        some = points[:n]
        same(Moments.of_blocks(lambda p=some: p.split(3), n), Moments.of_points(some))


def test_the_pool_is_that_of_all_its_points():
    data = load("digits", n_heldout=64)
    points = torch.from_numpy(data.pool.reshape(len(data.rows), -1).astype(np.float64))
    same(pool_moments(data), Moments.of_points(points))


def test_they_are_computed_once_and_read_from_the_cache(many, monkeypatch):
    data = load("digits", n_heldout=64)
    first = pool_moments(data)
    forgotten(monkeypatch)
    monkeypatch.setattr(moments, "_computed", None)
    again = pool_moments(data)
    assert all(
        torch.equal(getattr(first, n), getattr(again, n)) for n in ("mean", "eigenvalues", "basis")
    )


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"{}" * 9]
)
def test_a_torn_file_is_computed_again(many, monkeypatch, damage):
    data = load("digits", n_heldout=64)
    first = pool_moments(data)
    (path,) = (cache.folder() / "moments").glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    forgotten(monkeypatch)
    same(pool_moments(data), first)


def at_once(data, n=4):
    """The moments as n threads get them that ask at the same time, each as a process of its own.

    Each opens the lock for itself, and that is what locks of files tell apart.
    """
    start = threading.Barrier(n)

    def ask():
        start.wait()
        return moments._kept(data)

    with ThreadPoolExecutor(n) as pool:
        return [each.result() for each in [pool.submit(ask) for _ in range(n)]]


def test_processes_that_ask_at_once_compute_them_once(many, monkeypatch):
    data, real, calls = load("digits", n_heldout=64), moments._computed, []

    def computed(data):
        calls.append(data)
        time.sleep(0.3)  # the others come meanwhile
        return real(data)

    monkeypatch.setattr(moments, "_computed", computed)
    found = at_once(data)
    assert len(calls) == 1
    assert all(torch.equal(each.basis, found[0].basis) for each in found)


def test_where_files_cannot_be_locked_each_computes_them_for_itself(many, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("engine.moments.fcntl.flock", refuse)
    data = load("digits", n_heldout=64)
    for each in at_once(data):
        same(each, pool_moments(data))


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(many, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFPHASE_CACHE", str(tmp_path / "file"))
    assert pool_moments(load("digits", n_heldout=64)).rank > 0
