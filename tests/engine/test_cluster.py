"""Clusters of several nodes on this host: each node is a raylet with its own object store."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine.cluster import Ask, fits, places
from engine.grid import Cell, trials
from engine.store import snapshot_path
from tests.engine.helpers import VOLATILE, compute, cube_of, prepared
from tests.engine.nodes import cluster
from tests.faults.processes import named, send

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "PYTHONPATH": str(Path(engine.__file__).parents[1]),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


def several_nodes(test):
    """Starts Ray; the limits are hang guards, for a busy machine is slow."""
    return pytest.mark.ray(pytest.mark.timeout(1800)(test))


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
def head(tmp_path_factory):
    """A cluster of one node with one CPU, behind a token: its address, dashboard, raylet; `add`.

    What its nodes have installed as `engine` is not ours and does not work.
    """
    installed = tmp_path_factory.mktemp("installed")
    (installed / "engine").mkdir()
    (installed / "engine" / "__init__.py").write_text("raise ImportError")
    with cluster({**ENVIRONMENT, "PYTHONPATH": str(installed)}) as add:
        yield *add(), add


def start(verb, path, storage, address, *more, **options):
    """A command for the cluster, in its own process."""
    where = ["--storage", str(storage), "--address", address, "--no-figures"]
    return subprocess.Popen(
        [sys.executable, "-m", "engine", verb, str(path), *where, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **{"env": ENVIRONMENT, **options},
    )


def write(folder, mapping):
    """The sweep file of a mapping."""
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(mapping))
    return path


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
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"no {what} in ten minutes"
        time.sleep(0.05)


@several_nodes
def test_a_client_without_the_token_is_refused(head, tiny, tmp_path):
    _, dashboard, _, _ = head
    stranger = {k: v for k, v in ENVIRONMENT.items() if k != "RAY_AUTH_TOKEN"}
    stranger |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    path, storage = write(tmp_path, tiny), tmp_path / "cluster"
    with start("submit", path, storage, dashboard, env=stranger) as refused, ended(refused):
        said, _ = refused.communicate(timeout=900)
    assert refused.returncode == 2, said
    assert f"diffphase: --address {dashboard}: Authentication required" in said


@several_nodes
def test_a_job_brings_code_and_sweep_shows_its_log_and_ends_with_the_run_s_status(
    head, tiny, tmp_path
):
    _, dashboard, *_ = head
    tiny |= {"axes": {"width": [64], "n_train": [8], "training.lr": [4e-3, 1e30]}, "kimg": [1]}
    tiny |= {"training": {"batch": 128, "warmup_kimg": 1}, "analyses": ["generalization"]}
    path, storage = write(tmp_path, tiny), tmp_path / "cluster"
    options = ["--wait", "--set", "kimg=[1,2]", "--max-failures", "9"]
    with start("submit", path, storage, dashboard, *options) as job, ended(job):
        log, _ = job.communicate(timeout=900)
    assert job.returncode == 1, log  # one of the two trainings diverges
    assert "--max-failures 9" in log and "failed training width=64" in log
    status = cube_of(prepared({**tiny, "kimg": [1, 2]}, storage))["status"].squeeze()
    assert status.sel(training_lr=4e-3).values.tolist() == [2, 2]
    assert (status.sel(training_lr=1e30) == 3).all()


@several_nodes
@pytest.mark.skipif(sys.platform != "linux", reason="the folder is Linux' own")
def test_a_storage_that_a_node_does_not_share_is_refused_naming_the_node(head, tiny, tmp_path):
    address, *_ = head
    elsewhere = "/proc/self/cwd/results"  # for each process another folder
    path = write(tmp_path, tiny)
    with start("run", path, elsewhere, address, cwd=tmp_path) as run, ended(run):
        said, _ = run.communicate(timeout=900)
    assert run.returncode == 2, said
    assert f"--storage {elsewhere}/tiny: not shared with node {socket.gethostname()}" in said
    assert not (tmp_path / "results" / "tiny" / "trials").exists()


@contextlib.contextmanager
def frozen(raylet):
    """Whatever a node has under way stands still, so that what is left is left to the others."""
    pids = named(raylet, "ray::")
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


@several_nodes
def test_a_lost_node_s_work_moves_and_a_new_node_takes_some_and_the_cube_is_the_same(
    head, tiny, tmp_path
):
    tiny |= {"axes": {"width": [64, 96], "n_train": [8, 16, 32, 64], "seed": [0, 1]}}
    tiny |= {"analyses": ["generalization"]}
    path, storage = write(tmp_path, tiny), tmp_path / "cluster"
    address, _, first, add = head
    *_, lost = add()
    with start("run", path, storage, address) as run, ended(run):
        wait_until(lambda: workers(storage, "trial.json"), run, "beginning")
        with frozen(min(workers(storage, "trial.json"))):
            wait_until(lambda: {first, lost} == workers(storage, "trial.json"), run, "spreading")
        with frozen(first):
            send([lost, *named(lost, "ray::")])
            *_, added = add()
            wait_until(lambda: added in workers(storage, "trial.json"), run, "work for it")
        said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, said
    assert {first, added} <= workers(storage, "log/*.json"), "analyses on one node alone"
    disturbed, alone = prepared(tiny, storage), prepared(tiny, tmp_path / "alone")
    compute(alone)
    one, other = (cube_of(each).drop_vars(VOLATILE) for each in (disturbed, alone))
    xr.testing.assert_identical(one, other)
    assert (one["status"] == 2).all()


@several_nodes
def test_trials_and_analyses_go_to_the_nodes_that_hold_what_they_ask_for(head, tiny, tmp_path):
    address, _, _, add = head
    *_, special = add(num_cpus=2, resources={"big": 1, "fat": 1})
    tiny |= {"axes": {"width": [64], "n_train": [8, 16]}, "analyses": ["generalization"]}
    tiny |= {"resources": {"custom": {"big": 0.5}, "analysis_custom": {"fat": 0.5}}}
    path, storage = write(tmp_path, tiny), tmp_path / "cluster"
    with start("run", path, storage, address) as run, ended(run):
        said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, said
    assert {special} == workers(storage, "trial.json") == workers(storage, "log/*.json")
    assert (cube_of(prepared(tiny, storage))["status"] == 2).all()


@several_nodes
def test_two_nodes_train_one_trial_together_to_the_weights_of_one_process(head, tiny, tmp_path):
    address, _, _, add = head
    add()  # the nodes before may be gone: one CPU each, so that a group of two needs two
    tiny |= {"axes": {"width": [64], "n_train": [16]}, "kimg": [3.2, 6.4]}
    tiny |= {"training": {"batch": 64, "warmup_kimg": 1}, "analyses": ["generalization"]}
    tiny |= {"numerics": {**tiny.get("numerics", {}), "precision": "float64"}}
    group = {"workers": 2, "placement": "STRICT_SPREAD"}
    path, storage = write(tmp_path, {**tiny, "resources": group}), tmp_path / "cluster"
    with start("run", path, storage, address) as run, ended(run):
        said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, said
    alone = prepared(tiny, tmp_path / "alone")
    compute(alone)
    together = prepared({**tiny, "resources": group}, storage)
    for cell in (Cell(trial, 6.4) for trial in trials(alone.sweep)):
        (one, _), (other, _) = (
            each.store.read_tensors(snapshot_path(cell)) for each in (alone, together)
        )
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-12)
