"""Whole runs through the command line, Tune, Train and remote analyses, in own processes."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.grid import Cell
from engine.resolve import load
from engine.store import snapshot_path
from engine.trial import train_trial
from tests.engine.helpers import (
    VOLATILE,
    compute,
    contents,
    cube_of,
    job_of,
    prepared,
    stored_cube,
)

pytestmark = pytest.mark.ray
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(path, storage, *more):
    """The command that runs a sweep."""
    return [sys.executable, "-m", "engine", "run", str(path), "--storage", str(storage), *more]


def run(path, storage, *more, expect=0, figures=False):
    """Run a sweep to its end."""
    drawn = [] if figures else ["--no-figures"]
    done = subprocess.run(
        command(path, storage, *drawn, *more),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done


def write(folder, mapping):
    """The sweep file of a mapping."""
    path = folder / f"{mapping['name']}.yaml"
    path.write_text(json.dumps(mapping))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny sweep: (mapping, its file, storage, what was printed)."""
    from tests.engine.helpers import TINY

    folder = tmp_path_factory.mktemp("finished")
    path = write(folder, TINY)
    return TINY, path, folder, run(path, folder, figures=True)


def test_a_run_gives_the_cube_that_one_process_gives(finished, tmp_path):
    mapping, _, folder, _ = finished
    ready = prepared(mapping, tmp_path)
    compute(ready)
    alone = cube_of(ready).drop_vars(VOLATILE)
    xr.testing.assert_equal(stored_cube(folder / "tiny"), alone)
    assert (alone["status"] == 2).all()


def test_a_run_prints_what_was_found_and_where_it_lies(finished):
    _, _, folder, done = finished
    assert "1. The memorized fraction falls with n_train (mlp on digits)" in done.stdout
    for place in ("results.zarr", "figures", f"tensorboard --logdir {folder}/tiny/tensorboard"):
        assert place in done.stdout
    assert "analyses 58/58" in done.stderr and "\x1b" not in done.stderr
    assert {p.suffix for p in (folder / "tiny" / "figures").iterdir()} == {
        ".png",
        ".pdf",
        ".csv",
        ".txt",
    }


def test_tensorboard_reads_scalars_images_and_hyperparameters(finished):
    _, _, folder, _ = finished
    stored = stored_cube(folder / "tiny")
    runs = list((folder / "tiny" / "tensorboard").iterdir())
    assert len(runs) == 4
    for run_folder in runs:
        events = EventAccumulator(str(run_folder)).Reload()
        at = {
            k: int(v)
            for k, v in (p.split("=") for p in run_folder.name.split(","))
            if k != "split"
        }
        expected = stored["memorized_fraction"].sel(at).values.ravel()
        scalars = events.Scalars("memorization/memorized_fraction")
        assert [s.step for s in scalars] == [1, 2]
        np.testing.assert_allclose([s.value for s in scalars], expected, rtol=1e-6)
        tags = events.Tags()
        for start in (
            "loss/stream_loss",
            "linearity_cosine_centred/",
            "denoiser_rmse/",
            "affine_r2/",
        ):
            assert any(tag.startswith(start) for tag in tags["scalars"]), start
        (images,) = tags["images"]
        assert [i.step for i in events.Images(images)] == [1, 2]
        first = events.Images(images)[0]  # 4 rows of 4 pairs of 8 x 8 pixels, enlarged 4 times
        assert (first.height, first.width) == (4 * 9 * 4, 4 * 18 * 4)
        plugins = events.summary_metadata
        assert any(meta.plugin_data.plugin_name == "hparams" for meta in plugins.values())


def test_a_second_run_of_a_finished_sweep_starts_nothing(finished):
    _, path, folder, _ = finished
    # The index takes in folders once they are 2 s old.
    derived = (".lock", "index.ipc")
    before = {
        p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name not in derived
    }
    probe = (
        "import sys; sys.argv = ['diffphase', *sys.argv[1:]]; from engine import cli\n"
        "try: cli.main()\n"
        "finally: assert 'ray' not in sys.modules, 'Ray was imported'"
    )
    arguments = [sys.executable, "-c", probe, *command(path, folder)[3:]]
    start = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert (
        time.monotonic() - start < 30
    )  # a hang guard; the time itself is the benchmarks' business
    assert "1. The memorized fraction" in done.stdout
    after = {
        p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name not in derived
    }
    assert after == before


def test_a_new_seed_and_a_later_kimg_leave_old_pieces_byte_identical(finished, tmp_path):
    mapping, _, folder, _ = finished
    before = contents(folder / "tiny", "*.arrow")
    grown = {**mapping, "axes": {**mapping["axes"], "seed": [0, 1]}, "kimg": [1, 2, 3]}
    done = run(write(tmp_path, grown), folder)
    assert "trials 8/8  snapshots 16/16  analyses 96/96" in done.stderr
    after = contents(folder / "tiny", "*.arrow")
    assert {name: after[name] for name in before} == before
    assert (stored_cube(folder / "tiny")["status"] == 2).all()
    run(write(tmp_path, mapping), folder)  # and back: the cube shrinks, nothing is deleted
    assert contents(folder / "tiny", "*.arrow") == after
    assert stored_cube(folder / "tiny").sizes["seed"] == 1


def test_two_processes_train_to_the_weights_of_one(tiny, tmp_path):
    """In single precision; two nodes in double: `tests/engine/test_cluster.py`."""
    tiny |= {
        "axes": {"width": [64], "n_train": [16]},
        "training": {"batch": 64, "lr": 1e-3, "warmup_kimg": 1},
        "kimg": [6.4, 12.8],  # 100 and 200 steps
        "analyses": ["generalization"],
    }
    alone = prepared(tiny, tmp_path / "one")
    ((trial, kimg),) = alone.survey().to_train()
    list(train_trial(job_of(alone), load(alone.sweep, "x"), trial, kimg))
    run(write(tmp_path, {**tiny, "resources": {"workers": 2}}), tmp_path / "two")
    both = prepared(tiny, tmp_path / "two")
    for k in kimg:
        path = snapshot_path(Cell(trial, k))
        (one, _), (two, _) = (ready.store.read_tensors(path) for ready in (alone, both))
        assert one.keys() == two.keys()
        assert any((one[name] != 0).any() for name in one)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5, err_msg=name)
    assert both.store.trial_record(trial)["snapshots"]["kimg=12.8"]["step"] == 200


def test_optuna_picks_cells_of_the_same_cube_and_the_rest_is_skipped(tiny, tmp_path):
    tiny |= {
        "axes": {"width": [64, 80, 96, 128], "n_train": [8, 16, 32, 64]},
        "analyses": ["generalization"],
        "search": {"optuna": {"objective": "heldout_loss", "mode": "min", "trials": 4}},
    }
    path = write(tmp_path, tiny)
    run(path, tmp_path)
    found = stored_cube(tmp_path / "tiny")
    asked = json.loads((tmp_path / "tiny" / "search.json").read_text())["asked"]
    assert len(asked) == 4 and all(entry["value"] > 0 for entry in asked)
    points = {(entry["point"]["width"], entry["point"]["n_train"]) for entry in asked}
    done = found["status"].isel(kimg=-1, seed=0, draw=0, split=0)
    for width in (64, 80, 96, 128):
        for n_train in (8, 16, 32, 64):
            state = int(done.sel(width=width, n_train=n_train))
            assert state == (2 if (width, n_train) in points else 4)
    assert int(found["heldout_loss"].notnull().any("sigma").sum()) == 2 * len(points)
    again = run(path, tmp_path)
    assert "snapshots" not in again.stderr


def test_a_boundary_search_reads_the_pieces_it_asks_for_and_skips_the_rest(tiny, tmp_path):
    tiny |= {
        "axes": {"width": [64, 80], "n_train": [4, 8, 16, 32]},
        "analyses": ["memorization"],
        "search": {"boundary": {"budget": 7, "target_width": 0.01}},
    }
    path = write(tmp_path, tiny)
    run(path, tmp_path)
    record = json.loads((tmp_path / "tiny" / "search.json").read_text())
    points = {(entry["point"]["width"], entry["point"]["n_train"]) for entry in record["asked"]}
    assert 6 <= len(points) == len(record["asked"]) <= 7 and record["over"]
    found = stored_cube(tmp_path / "tiny").isel(seed=0, draw=0, split=0)
    for (width, n_train), cells in found["status"].stack(at=("width", "n_train")).groupby("at"):
        assert (cells == (2 if (width, n_train) in points else 4)).all()
    assert int(found["memorized_fraction"].notnull().sum()) == 2 * len(points)
    again = run(path, tmp_path)
    assert "snapshots" not in again.stderr


def test_a_diverging_trial_is_a_failed_cell_until_it_is_retried_and_not_a_dead_sweep(
    tiny, tmp_path
):
    training = {"batch": 128, "warmup_kimg": 1}
    axes = {"width": [64], "n_train": [8], "training.lr": [4e-3, 1e29, 1e30]}
    tiny |= {"training": training, "axes": axes, "analyses": ["generalization", "memorization"]}
    tiny |= {"resources": {"concurrency": 1}}
    path = write(tmp_path, tiny)
    done = run(path, tmp_path, "--max-failures", "1", expect=1)
    assert "failed training width=64" in done.stderr and "not finite" in done.stderr
    assert "Traceback (most recent call last)" in done.stderr
    assert "cells are still pending: run the same command again" in done.stderr
    # The third trial has not begun; of the first, analyses that were still queued have not.
    assert len(list((tmp_path / "tiny").glob("trials/*/trial.json"))) == 2
    assert int((stored_cube(tmp_path / "tiny")["status"] == 3).sum()) == 2
    retried = run(path, tmp_path, "--retry-failed", expect=1)
    assert "trials 2/2" in retried.stderr  # the one that had failed, and the one that was pending
    status = stored_cube(tmp_path / "tiny")["status"]
    assert (status.sel(training_lr=4e-3) == 2).all()
    assert (status.sel(training_lr=[1e29, 1e30]) == 3).all()
    records = [json.loads(p.read_text()) for p in (tmp_path / "tiny").glob("trials/*/trial.json")]
    assert sorted((r["status"], r["attempts"], len(r["errors"])) for r in records) == [
        ("done", 1, 0),
        ("failed", 1, 1),
        ("failed", 2, 2),
    ]
    again = run(path, tmp_path, expect=1)
    assert "trials" not in again.stderr
