"""Trials, analyses and cube in one process: what is computed, resumed, recomputed, refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import grid
from engine.analyse import analyse
from engine.grid import Cell, trials
from engine.pieces import Piece, Variable
from engine.resolve import load
from engine.run import record_run
from engine.spec import SpecError
from engine.store import checkpoint_path, piece_path, snapshot_path
from engine.trial import Heldout, TrialFailed, train_trial
from engine.work import DONE, FAILED, PENDING
from tests.engine.helpers import VOLATILE, compute, contents, cube_of, job_of, prepared
from trainables.train import Training


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished store of the tiny sweep, not to be changed."""
    from tests.engine.helpers import TINY

    storage = tmp_path_factory.mktemp("whole")
    ready = prepared(TINY, storage)
    compute(ready)
    return ready


def grown(tiny, storage, **changes):
    """The tiny sweep with changed keys, over a copy-free fresh look at the same storage."""
    return prepared({**tiny, **changes}, storage)


def test_everything_is_done_once(tiny, tmp_path):
    ready = prepared(tiny, tmp_path)
    done = compute(ready)
    assert len(done) == len(set(done)) == 4 * 2 + 4 * 2 * 6 + 2 * 5
    assert (ready.survey().cells() == DONE).all()
    before = contents(tmp_path, "*.arrow")
    assert compute(ready) == []
    assert contents(tmp_path, "*.arrow") == before


@pytest.mark.parametrize(
    ("change", "trained", "cells"),
    [
        ({"kimg": [1, 2, 3]}, 4, 4),
        ({"kimg": [1, 1.5, 2]}, 4, 4),
        ({"axes": {"width": [64, 96, 128], "n_train": [8, 16]}}, 4, 4),
        ({"axes": {"width": [64, 96], "n_train": [8, 16], "seed": [0, 1]}}, 8, 8),
    ],
)
def test_growing_an_axis_computes_only_what_is_new_and_changes_no_byte(
    tiny, tmp_path, change, trained, cells
):
    compute(prepared(tiny, tmp_path))
    before = contents(tmp_path, "*.arrow") | contents(tmp_path, "kimg*.safetensors")
    ready = grown(tiny, tmp_path, **change)
    done = compute(ready)
    assert sum(kind == "train" for kind, *_ in done) == trained
    assert len({at for kind, at, _ in done if kind == "analyse"}) == cells
    after = contents(tmp_path, "*.arrow") | contents(tmp_path, "kimg*.safetensors")
    assert {name: after[name] for name in before} == before
    assert (ready.survey().cells() == DONE).all()


def test_a_snapshot_between_stored_ones_equals_the_one_trained_on_the_way(tiny, tmp_path):
    compute(prepared(tiny, tmp_path / "later"), analyses=[])
    compute(grown(tiny, tmp_path / "later", kimg=[1, 1.5, 2]), analyses=[])
    compute(grown(tiny, tmp_path / "at once", kimg=[1, 1.5, 2]), analyses=[])
    later, once = (contents(tmp_path / n, "kimg*.safetensors") for n in ("later", "at once"))
    assert later == once and len(once) == 12


def test_more_samples_recompute_that_analysis_alone(tiny, tmp_path):
    compute(prepared(tiny, tmp_path))
    before = contents(tmp_path, "*.arrow")
    analyses = {**tiny["analyses"], "memorization": {"threshold": 0.25}}
    ready = grown(tiny, tmp_path, analyses=analyses)
    todo = ready.survey()
    assert todo.stale["memorization"] == 4 * 2 + 2
    assert not todo.to_train()
    assert {name for _, names in todo.to_analyse() for name in names} == {"memorization"}
    compute(ready)
    after = contents(tmp_path, "*.arrow")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {name for name in before if "memorization" in name}


def test_removing_values_shrinks_the_cube_and_deletes_nothing(tiny, tmp_path):
    compute(prepared(tiny, tmp_path))
    before = contents(tmp_path, "*.arrow")
    cube = cube_of(grown(tiny, tmp_path, axes={"width": [64], "n_train": [8]}, kimg=[2]))
    assert cube["memorized_fraction"].size == 1 and cube["memorized_fraction"].notnull().all()
    assert contents(tmp_path, "*.arrow") == before


def test_other_training_under_stored_trials_is_refused_naming_both_values(tiny, tmp_path):
    from engine.run import record_run

    ready = prepared(tiny, tmp_path)
    record_run(ready, "test")
    compute(ready, analyses=[])
    training = {**tiny["training"], "lr": 1e-3}
    with pytest.raises(SpecError, match=r"training.lr: stored 0.004, now 0.001\n.*new name"):
        grown(tiny, tmp_path, training=training)
    for harmless in ({"question": "?"}, {"resources": {"concurrency": 1}}, {"kimg": [1]}):
        grown(tiny, tmp_path, **harmless)


def cut_off_while_training(ready, monkeypatch, writes):
    """Train the one trial that lacks something; end it at its n-th write, as a kill would."""
    ((trial, kimg),) = ready.survey().to_train()
    real, calls = ready.store.files.write, []

    def write(name, data):
        calls.append(name)
        if len(calls) == writes:
            raise KeyboardInterrupt
        real(name, data)

    monkeypatch.setattr(ready.store.files, "write", write)
    with pytest.raises(KeyboardInterrupt):
        list(train_trial(job_of(ready), load(ready.sweep, "x"), trial, kimg))
    monkeypatch.undo()
    return trial


def step_of(ready, trial, **which):
    """The step of a stored checkpoint."""
    return int(ready.store.read_header(checkpoint_path(trial, **which))["step"])


def test_a_killed_training_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    tiny = {
        **tiny,
        "axes": {"width": [64], "n_train": [8]},
        "resources": {"checkpoint_seconds": 1e-6},
    }
    whole, killed = prepared(tiny, tmp_path / "whole"), prepared(tiny, tmp_path / "killed")
    compute(whole, analyses=[])
    trial = cut_off_while_training(killed, monkeypatch, writes=8)
    assert 0 < step_of(killed, trial) < 8
    compute(killed, analyses=[])
    assert contents(tmp_path / "whole", "kimg*") == contents(tmp_path / "killed", "kimg*")


def test_held_out_images_are_evaluated_in_blocks_and_never_one_alone(tiny, tmp_path):
    tiny |= {"data": {"name": "digits", "n_heldout": 33}}
    job = job_of(prepared(tiny, tmp_path))
    trial, data = trials(job.sweep)[0], load(job.sweep, "x")
    denoiser, config = job.denoiser(trial, "cpu"), job.config(trial)
    weights, rows, found = denoiser.state_dict(), [], []
    denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    for eval_batch in (64, 33, 16):
        heldout = Heldout(data, config, job.dtype, torch.device("cpu"), None, eval_batch)
        found.append(heldout.loss(denoiser, weights))
    assert rows == [33, 33, 16, 17]
    assert found[0] == found[1] == pytest.approx(found[2], rel=1e-6)


def test_a_torn_checkpoint_costs_time_and_no_numbers(tiny, tmp_path):
    ready = prepared({**tiny, "kimg": [1]}, tmp_path / "a")
    compute(ready, analyses=[])
    trial = ready.survey().trials[0]
    path = checkpoint_path(trial)
    ready.store.files.write(path, ready.store.files.read(path)[:100])
    compute(grown(tiny, tmp_path / "a"), analyses=[])
    compute(prepared(tiny, tmp_path / "b"), analyses=[])
    assert contents(tmp_path / "a", "kimg*.safetensors") == contents(
        tmp_path / "b", "kimg*.safetensors"
    )
    assert "trained again without it" in ready.store.trial_record(trial)["note"]


def test_a_killed_training_of_an_earlier_kimg_resumes_beside_the_later_checkpoint(
    tiny, tmp_path, monkeypatch
):
    tiny |= {
        "axes": {"width": [64], "n_train": [8]},
        "resources": {"checkpoint_seconds": 1e-6},
    }
    compute(prepared({**tiny, "kimg": [1, 2]}, tmp_path / "whole"), analyses=[])
    compute(prepared({**tiny, "kimg": [2]}, tmp_path / "killed"), analyses=[])
    killed = prepared({**tiny, "kimg": [1, 2]}, tmp_path / "killed")
    later = contents(tmp_path / "killed", "checkpoint.safetensors")
    trial = cut_off_while_training(killed, monkeypatch, writes=6)
    assert contents(tmp_path / "killed", "checkpoint.safetensors") == later
    assert step_of(killed, trial) == 16 and step_of(killed, trial, again=True) == 4
    real, steps = Training.advance, []
    monkeypatch.setattr(Training, "advance", lambda self: steps.append(self.step) or real(self))
    compute(killed, analyses=[])
    assert steps == [4, 5, 6, 7]
    assert contents(tmp_path / "killed", "checkpoint*.safetensors") == later
    whole, killed = (contents(tmp_path / n, "kimg*") for n in ("whole", "killed"))
    assert whole == killed and len(whole) == 2


def test_a_foreign_checkpoint_does_not_keep_a_training_from_saving_its_own(
    tiny, tmp_path, monkeypatch
):
    tiny |= {
        "axes": {"width": [64], "n_train": [8]},
        "resources": {"checkpoint_seconds": 1e-6},
    }
    ready = prepared(tiny, tmp_path)
    (trial,) = ready.survey().trials
    foreign = {"step": "1000", "seconds": "1.0", "fingerprint": "of another training"}
    ready.store.write_tensors(checkpoint_path(trial), {"x": np.zeros(1)}, foreign)
    cut_off_while_training(ready, monkeypatch, writes=6)
    assert step_of(ready, trial) == 4


def test_a_diverging_training_is_a_failed_cell_with_its_reason(tiny, tmp_path):
    axes = {"width": [64], "n_train": [8], "training.lr": [4e-3, 1e30]}
    training = {k: v for k, v in tiny["training"].items() if k != "lr"}
    ready = prepared({**tiny, "axes": axes, "training": training}, tmp_path)
    job, data = job_of(ready), load(ready.sweep, "x")
    work = ready.survey().to_train()
    list(train_trial(job, data, *work[0]))
    with pytest.raises(TrialFailed, match=r"lr=1e\+30: FloatingPointError: The training loss"):
        list(train_trial(job, data, *work[1]))
    compute(ready)
    cube = cube_of(ready)
    assert cube["status"].sel(training_lr=4e-3).values.ravel().tolist() == [DONE, DONE]
    assert cube["status"].sel(training_lr=1e30).values.ravel().tolist() == [FAILED, FAILED]
    assert "not finite" in str(cube["error"].sel(training_lr=1e30).values.ravel()[-1])
    assert not ready.survey().to_train()
    assert len(ready.survey(retry_failed=True).to_train()) == 1


def test_an_analysis_that_raises_fails_alone(tiny, tmp_path, monkeypatch):
    from analyses.registry import ANALYSES

    ready = prepared({**tiny, "axes": {"width": [64], "n_train": [8]}}, tmp_path)

    def broken(specimen, *, laws=("train",)):
        raise ArithmeticError("no such number")

    analysis = ANALYSES["linearity"]
    monkeypatch.setitem(
        ANALYSES, "linearity", type(analysis)(**{**vars(analysis), "measure": broken})
    )
    compute(ready)
    monkeypatch.undo()
    cube = cube_of(ready)
    assert (cube["status"] == FAILED).all()
    assert "linearity: ArithmeticError: no such number" in str(cube["error"].values.ravel()[0])
    assert cube["denoiser_rmse"].notnull().all()
    assert "linearity_cosine" not in cube
    assert not ready.survey().to_analyse()
    assert {n for _, names in ready.survey(retry_failed=True).to_analyse() for n in names} == {
        "linearity"
    }


def test_a_lost_piece_is_one_hole_and_its_neighbours_stay(whole):
    cell = Cell(whole.survey().trials[1], 2)
    lost = whole.store.files.read(piece_path(cell, "gaussian"))
    full = cube_of(whole)
    whole.store.files.delete(piece_path(cell, "gaussian"))
    holed = cube_of(whole)
    whole.store.files.write(piece_path(cell, "gaussian"), lost)
    at = dict(cell.trial.coordinates) | {"kimg": 2}
    assert holed["status"].sel(at) == PENDING
    assert holed["denoiser_rmse"].sel(at).isnull().all()
    assert int(holed["denoiser_rmse"].isnull().sum()) == full["denoiser_rmse"].sel(at).size
    rest = xr.where(
        full["status"].notnull() & (holed["status"] == DONE), full["memorized_fraction"], np.nan
    )
    assert rest.notnull().sum() == 7


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_torn_snapshot_that_is_needed_is_trained_again_to_the_same_bytes(tiny, tmp_path, length):
    one = {"axes": {"width": [64], "n_train": [8]}, "analyses": ["generalization"]}
    ready = prepared({**tiny, **one}, tmp_path)
    compute(ready)
    before = contents(tmp_path, "kimg*")
    cell = Cell(ready.survey().trials[0], 1)
    path = snapshot_path(cell)
    ready.store.files.write(path, ready.store.files.read(path)[:length])
    assert ready.survey().is_finished  # nobody needs it
    ready.store.files.delete(piece_path(cell, "generalization"))
    assert [kind for kind, *_ in compute(ready)] == ["train", "analyse"]
    assert contents(tmp_path, "kimg*.arrow") == {k: v for k, v in before.items() if "arrow" in k}
    assert ready.store.files.read(path) == before[f"tiny/{path}"]


@pytest.mark.parametrize("torn", ["trial.json", "log/*.json", "sweep.json"])
def test_torn_records_cost_no_results(tiny, tmp_path, torn):
    one = {"axes": {"width": [64], "n_train": [8]}, "kimg": [1], "analyses": ["generalization"]}
    ready = prepared({**tiny, **one}, tmp_path)
    record_run(ready, "test")
    compute(ready)
    before, whole = contents(tmp_path, "kimg*"), cube_of(ready)
    for path in tmp_path.rglob(torn):
        path.write_bytes(path.read_bytes()[:-3])
    again = prepared({**tiny, **one}, tmp_path)
    assert again.survey().is_finished and compute(again) == []
    assert contents(tmp_path, "kimg*.arrow").items() <= before.items()
    for name in ("heldout_loss", "stream_loss", "heldout_stream_loss", "images_seen"):
        xr.testing.assert_identical(cube_of(again)[name], whole[name])


@pytest.mark.parametrize(
    "torn", ["results.zarr/zarr.json", "results.zarr/heldout_loss/c/**/0", "*.nc"]
)
def test_a_torn_cube_is_gathered_again_and_a_whole_one_is_not(whole, torn):
    from engine.publish import publish

    facts = whole.facts.model_dump(mode="json")

    def stamp():
        publish(whole.sweep, facts, whole.prints, whole.store, whole.survey(), figures=False)
        return whole.store.files.modified("cube.json")

    assert stamp() == (before := stamp())
    path = next(p for p in sorted(Path(whole.store.folder).glob(torn)) if p.is_file())
    path.write_bytes(path.read_bytes()[:-1])
    assert stamp() > before
    xr.testing.assert_equal(
        xr.open_zarr(Path(whole.store.folder) / "results.zarr").load(), cube_of(whole)
    )


def test_a_torn_snapshot_is_named_by_what_needs_it_and_trained_again(tiny, tmp_path):
    ready = prepared({**tiny, "axes": {"width": [64], "n_train": [8]}, "kimg": [1]}, tmp_path)
    compute(ready, analyses=[])
    cell = Cell(ready.survey().trials[0], 1)
    whole = ready.store.files.read(snapshot_path(cell))
    ready.store.files.write(snapshot_path(cell), whole[:-1])
    group = ready.facts.analyses["linearity"].group
    outcome = analyse(job_of(ready), load(ready.sweep, "x"), cell, group, ["linearity"])
    assert "kimg=1.safetensors is not a whole safetensors file" in outcome["errors"]["linearity"]
    compute(ready)
    assert ready.store.files.read(snapshot_path(cell)) == whole


def test_a_torn_piece_is_computed_again(tiny, tmp_path):
    ready = prepared(tiny, tmp_path)
    compute(ready)
    before = contents(tmp_path, "*.arrow")
    path = piece_path(Cell(ready.survey().trials[0], 1), "samples")
    ready.store.files.write(path, ready.store.files.read(path)[:50])
    assert compute(ready) == [("analyse", str(Cell(ready.survey().trials[0], 1)), "samples")]
    assert contents(tmp_path, "*.arrow") == before


def test_the_cube_has_the_names_and_dims_of_the_contract(whole):
    cube = cube_of(whole)
    across = ("width", "n_train", "seed", "draw", "split", "kimg")
    assert cube["status"].dims == across and (cube["status"] == DONE).all()
    expected = {
        "train_loss": ("sigma",),
        "heldout_loss": ("sigma",),
        "heldout_loss_gaussian": ("sigma",),
        "linearity_cosine_centred": ("sigma", "inputs"),
        "affine_r2": ("sigma", "inputs"),
        "linearity_cosine_centred_empirical": ("sigma", "inputs"),
        "weight_distance": ("sigma", "inputs"),
        "subspace_overlap": ("sigma", "inputs"),
        "denoiser_rmse": ("sigma", "reference", "inputs"),
        "memorized_fraction": (),
        "memorized_fraction_null_gaussian": (),
        "generalization_score": (),
        "memorization_auc": (),
        "nearest_ratio": ("sample",),
        "samples": ("sample", "pixel"),
        "kappa": ("sigma",),
        "n_eff": ("sigma",),
        "train_seconds": (),
        "analysis_seconds": (),
    }
    for name, own in expected.items():
        assert set(cube[name].dims) == {*across, *own}, name
        assert cube[name].attrs["long_name"] and cube[name].attrs["units"], name
    assert cube["train_eigenvalues"].dims == ("n_train", "draw", "split", "mode")
    assert cube["exposure"].dims == ("sigma",)
    assert cube["n_params"].dims == ("width",) and cube["epochs"].dims == ("kimg", "n_train")
    assert cube["samples"].sizes["sample"] == 16
    assert cube["samples"].notnull().all()
    missing = [
        n for n, v in cube.data_vars.items() if n != "config_json" and not v.attrs.get("long_name")
    ]
    assert not missing


def test_a_swept_backbone_option_is_a_dim_of_the_cube_and_of_the_network_size(tiny, tmp_path):
    axes = {
        "width": [64],
        "n_train": [8],
        "backbone.depth": [1, 2],
        "training.p_mean": [-1.2, -0.5],
    }
    tiny |= {
        "backbone": {"name": "mlp"},
        "axes": axes,
        "kimg": [1],
        "analyses": ["generalization"],
    }
    ready = prepared(tiny, tmp_path)
    compute(ready)
    found = cube_of(ready)
    assert found["heldout_loss"].sizes["backbone_depth"] == 2
    assert found["heldout_loss"].notnull().all() and "exposure" not in found
    assert found["n_params"].dims == ("width", "backbone_depth")
    assert found["n_params"].sel(width=64, backbone_depth=2) > found["n_params"].sel(
        width=64, backbone_depth=1
    )


def test_every_sigma_resolved_mean_has_its_standard_error(whole):
    cube = cube_of(whole)
    for name in (
        "train_loss",
        "heldout_loss",
        "linearity_cosine_centred",
        "affine_r2",
        "denoiser_rmse",
    ):
        assert (cube[f"{name}_se"] >= 0).all(), name


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_every_piece_lands_in_its_cell_in_any_order_and_a_lost_one_is_nan(tmp_path_factory, data):
    from engine.gather import Cube
    from engine.spec import parse

    widths = data.draw(st.lists(st.integers(1, 500), min_size=1, max_size=3, unique=True))
    kimg = data.draw(
        st.lists(st.floats(0.1, 100), min_size=1, max_size=3, unique=True).map(sorted)
    )
    sweep = parse(
        {
            "name": "x",
            "data": {"name": "d"},
            "backbone": {"name": "b"},
            "kimg": kimg,
            "sigmas": [1, 2],
            "axes": {"width": widths, "n_train": [2, 4]},
            "analyses": ["a"],
        },
        "x",
    )
    cells = data.draw(st.permutations(list(grid.cells(sweep))))
    lost = data.draw(st.sets(st.sampled_from(cells)))
    cube = Cube(sweep)
    names = tuple(grid.cube_dim(a) for a in cube.axes)
    value = {cell: float(i) for i, cell in enumerate(cells)}
    for cell in cells:
        if cell not in lost:
            piece = Piece({"v": Variable(("sigma",), np.array([value[cell], -1.0]), {})}, {}, "f")
            cube.put(piece, cube.index([*cell.trial.coordinates, ("kimg", cell.kimg)]), names)
    if len(lost) < len(cells):
        dims, array, _ = cube.arrays["v"]
        found = xr.DataArray(
            array,
            dims=dims,
            coords={
                "width": sorted(widths),
                "n_train": [2, 4],
                "kimg": kimg,
                "seed": [0],
                "draw": [0],
                "split": ["a"],
            },
        )
        for cell in cells:
            at = found.sel(dict(cell.trial.coordinates) | {"kimg": cell.kimg}).values
            assert np.isnan(at).all() if cell in lost else at[0] == value[cell]


def test_two_stores_of_one_sweep_give_identical_cubes(tiny, tmp_path, whole):
    ready = prepared(tiny, tmp_path)
    compute(ready)
    xr.testing.assert_identical(
        cube_of(ready).drop_vars(VOLATILE), cube_of(whole).drop_vars(VOLATILE)
    )


def test_float64_training_is_stored_as_float64(tiny, tmp_path):
    ready = prepared({**tiny, "numerics": {"precision": "float64"}, "kimg": [1]}, tmp_path)
    compute(ready, analyses=["generalization"])
    tensors, _ = ready.store.read_tensors(snapshot_path(Cell(ready.survey().trials[0], 1)))
    assert {a.dtype for a in tensors.values()} == {np.dtype(np.float64)}
    assert torch.get_default_dtype() == torch.float32


def test_an_option_that_did_not_exist_when_the_trials_were_stored_changes_nothing(tiny, tmp_path):

    ready = prepared(tiny, tmp_path)
    compute(ready)
    record_run(ready, "first")
    record = ready.store.record()
    del record["identity"]["training"]["ema_rampup"]
    ready.store.write_record(json.loads(json.dumps(record)))
    assert prepared(tiny, tmp_path).prints == ready.prints
    explicit = {**tiny, "training": {**tiny["training"], "ema_rampup": 0.05}}
    assert prepared(explicit, tmp_path).survey().is_finished
    with pytest.raises(SpecError, match=r"training.ema_rampup: stored 0.05, now 0.1"):
        prepared({**tiny, "training": {**tiny["training"], "ema_rampup": 0.1}}, tmp_path)


def test_a_full_batch_is_the_training_set_of_each_trial(tiny, tmp_path):
    mapping = {**tiny, "training": {"sampling": "full", "warmup_kimg": 0}, "kimg": [0.1, 0.2]}
    ready = prepared({**mapping, "analyses": {"generalization": {}}}, tmp_path)
    batches = {t["n_train"]: job_of(ready).config(t).batch for t in ready.survey().trials}
    assert batches == {8: 8, 16: 16}
    compute(ready)
    cube = cube_of(ready)
    # 0.1 kimg are 13 steps of 8 images, 7 of 16.
    assert cube["images_seen"].sel(kimg=0.1, n_train=8) == 104
    assert cube["images_seen"].sel(kimg=0.1, n_train=16) == 112
    assert cube["epochs"].sel(kimg=0.1, n_train=8) == 13
    with pytest.raises(SpecError, match=r"training.batch: 128 is not the full batch"):
        prepared({**mapping, "training": {"sampling": "full", "batch": 128}}, tmp_path / "other")


def test_copies_of_training_points_fill_whole_training_sets(tiny, tmp_path):
    data = {**tiny["data"], "copies": 8}
    with pytest.raises(SpecError, match=r"n_train: 12 is no multiple of data.copies 8"):
        prepared({**tiny, "data": data, "axes": {"width": [64], "n_train": [12]}}, tmp_path)
    ready = prepared({**tiny, "data": data}, tmp_path)
    points = load(ready.sweep, "tiny.yaml").subset(16)
    assert len(np.unique(points.reshape(16, -1), axis=0)) == 2


@pytest.mark.parametrize(
    ("training", "share"),
    [
        ({"noise": "loguniform", "sigma_min": 0.1, "sigma_max": 1.6}, 0.25),
        ({"noise": "fixed", "sigma": 0.2}, 1.0),
        ({"noise": "fixed", "sigma": 1.0}, 0.0),
    ],
)
def test_the_exposure_is_that_of_the_density_trained_with(tiny, tmp_path, training, share):
    grid = {"axes": {"width": [64], "n_train": [8]}, "kimg": [1]}
    options = {"training": {**tiny["training"], **training}, "analyses": {"generalization": {}}}
    ready = prepared({**tiny, **grid, **options}, tmp_path)
    compute(ready)
    assert cube_of(ready)["exposure"].sel(sigma=0.2).item() == pytest.approx(share)
