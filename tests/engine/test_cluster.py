"""Clusters of several nodes on this host: each node is a raylet with its own object store."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from engine.cluster import Ask, fits, places
from tests.engine.helpers import VOLATILE, compute, cube_of, prepared
from tests.engine.nodes import cluster

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}

nodes = st.lists(st.fixed_dictionaries({"CPU": st.integers(0, 9), "GPU": st.integers(0, 3)}))
asks = st.builds(
    Ask,
    st.just("a trial"),
    st.fixed_dictionaries(
        {"CPU": st.integers(1, 5)}, optional={"GPU": st.sampled_from([0.25, 1])}
    ),
    st.integers(1, 4),
    st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
)


@given(nodes, asks)
def test_what_is_counted_fits_node_by_node_and_one_more_does_not(nodes, ask):
    held = sorted(fits(node, ask.bundle) for node in nodes)
    count = places(nodes, ask)

    def place(n):
        """Whether n asks fit, bundle by bundle, each on the fullest node allowed."""
        left = list(held)
        for _ in range(n):
            if ask.placement == "STRICT_PACK":
                taken = [next((i for i, k in enumerate(left) if k >= ask.bundles), None)]
                taken *= ask.bundles
            elif ask.placement == "STRICT_SPREAD":
                taken = sorted((i for i, k in enumerate(left) if k), key=lambda i: -left[i])
                taken = taken[: ask.bundles]
            else:
                taken = [i for i, k in enumerate(left) for _ in range(k)][: ask.bundles]
            if len(taken) < ask.bundles or None in taken:
                return False
            for i in taken:
                left[i] -= 1
        return True

    assert place(count) and not place(count + 1)


@pytest.fixture(scope="module")
def add_node():
    """Starts a node of one CPU; returns the cluster's address and the raylet's process."""
    with cluster(ENVIRONMENT) as add:
        yield add


def start(address, path, storage, *more):
    """A run that joins the cluster, in its own process."""
    where = ["--storage", str(storage), "--address", address]
    return subprocess.Popen(
        [sys.executable, "-m", "engine", "run", str(path), *where, *more],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def ended(process):
    """A test that fails leaves no run behind."""
    try:
        yield
    finally:
        process.kill()


def workers(storage, pattern):
    """The nodes, by their raylets, on which the matching files were written."""
    return {json.loads(path.read_text())["raylet"] for path in storage.rglob(pattern)}


def wait_until(condition, process, what):
    """Poll while the process lives."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"no {what} in four minutes"
        time.sleep(0.05)


@pytest.mark.ray
def test_a_lost_node_s_work_moves_and_a_new_node_takes_some_and_the_cube_is_the_same(
    add_node, tiny, tmp_path
):
    tiny |= {"axes": {"width": [64, 96], "n_train": [8, 16, 32, 64], "seed": [0, 1]}}
    tiny |= {"kimg": [20, 40, 60], "training": {**tiny["training"], "batch": 32}}
    tiny |= {"analyses": ["generalization", "memorization"]}
    path, storage = tmp_path / "tiny.yaml", tmp_path / "cluster"
    path.write_text(json.dumps(tiny))
    (address, head), (_, lost) = add_node(), add_node()
    with start(address, path, storage) as run, ended(run):
        wait_until(lambda: {head, lost} <= workers(storage, "trial.json"), run, "spreading")
        os.kill(lost, signal.SIGKILL)
        _, added = add_node()
        wait_until(lambda: added in workers(storage, "trial.json"), run, "work on the new node")
        assert run.wait(timeout=240) == 0, run.stdout.read()
    assert {head, added} <= workers(storage, "log/*.json"), "analyses on one node alone"
    disturbed, alone = prepared(tiny, storage), prepared(tiny, tmp_path / "alone")
    compute(alone)
    one, other = (cube_of(each).drop_vars(VOLATILE) for each in (disturbed, alone))
    xr.testing.assert_identical(one, other)
    assert (one["status"] == 2).all()
