"""`diffphase analyse`: models beside one training set, with the numbers that a sweep gives."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from engine.cli import app
from engine.external import analyse_models, examination, models
from engine.run import record_run
from engine.spec import SpecError
from tests.engine.helpers import TINY, compute, cube_of, prepared

CPU = torch.device("cpu")
SETTINGS = [
    "n_train=8",
    "sigmas=[0.2, 1]",
    "sampler.samples=16",
    "sampler.steps=4",
    "numerics.eval_batch=64",
    f"analyses={json.dumps({k: v for k, v in TINY['analyses'].items() if k != 'samples'})}",
]
DATA = "{name: digits, n_heldout: 32}"
MODULE = """
calls = 0

def half(y, sigma):
    global calls
    calls += 1
    return y / 2

def broken(y, sigma):
    raise ArithmeticError("nothing comes of it")

def flat(y, sigma):
    return y.flatten(1)
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """One trial of the tiny sweep, computed: its prepared form and its folder."""
    storage = tmp_path_factory.mktemp("sweep")
    ready = prepared({**TINY, "axes": {"width": [64], "n_train": [8]}}, storage)
    record_run(ready, "diffphase run")
    compute(ready)
    return ready, storage / "tiny"


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "users_denoisers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "users_denoisers", raising=False)


def measured(sources, out, settings=SETTINGS, data=DATA):
    """Exit status and cube of one command."""
    said = []
    asked = examination(data, settings)
    status = analyse_models(asked, models(sources, CPU), str(out), device=CPU, say=said.append)
    return status, xr.open_zarr(out / "results.zarr").load(), said


def test_a_snapshot_of_a_sweep_has_the_numbers_that_the_sweep_gave_it(sweep, tmp_path):
    ready, folder = sweep
    snapshots = sorted(folder.rglob("kimg=*.safetensors"))
    status, found, _ = measured([f"k{i + 1}={p}" for i, p in enumerate(snapshots)], tmp_path / "o")
    own = cube_of(ready)
    assert status == 0 and list(found.model.values) == ["k1", "k2"]
    compared = 0
    for name, variable in found.data_vars.items():
        if name not in own or variable.dtype.kind != "f":
            continue
        theirs = own[name].isel(width=0, seed=0, missing_dims="ignore")
        if "model" in variable.dims:
            theirs = theirs.rename(kimg="model").drop_vars("model", errors="ignore")
        elif "kimg" in theirs.dims:
            theirs = theirs.isel(kimg=0)
        theirs = theirs.transpose(*variable.dims)
        np.testing.assert_array_equal(variable.values, theirs.values, err_msg=str(name))
        compared += 1
    assert compared > 100


def test_a_callable_is_measured_like_any_denoiser(user_code, tmp_path):
    status, found, _ = measured(["half=users_denoisers:half"], tmp_path / "o")
    assert status == 0
    np.testing.assert_allclose(found.linearity_cosine_centred.values, 1, atol=1e-6)
    np.testing.assert_allclose(found.identity_cosine.values, 1, atol=1e-6)
    np.testing.assert_allclose(found.identity_distance.values, 0.5, atol=1e-6)


def test_a_snapshot_and_a_callable_have_derivatives_in_both_directions(sweep, user_code, tmp_path):
    """Above `full` pixels the Jacobian is multiplied from either side."""
    snapshot = next(sweep[1].rglob("kimg=*.safetensors"))
    settings = [s for s in SETTINGS if not s.startswith("analyses")]
    settings.append('analyses={"jacobian": {"full": 1, "points": 2}}')
    sources = [f"net={snapshot}", "half=users_denoisers:half"]
    status, found, said = measured(sources, tmp_path / "o", settings)
    assert status == 0, said
    assert found.jacobian_asymmetry.sel(model="half").values == pytest.approx(0, abs=1e-6)
    assert (found.jacobian_asymmetry.sel(model="net") > 1e-3).all()


def test_the_same_command_again_evaluates_nothing(user_code, tmp_path):
    import importlib

    measured(["half=users_denoisers:half"], tmp_path / "o")
    module = importlib.import_module("users_denoisers")
    before = module.calls
    _, again, _ = measured(["half=users_denoisers:half"], tmp_path / "o")
    assert before > 0 and module.calls == before
    more = [s for s in SETTINGS if not s.startswith("analyses")] + ["analyses=[linearity, lid]"]
    measured(["half=users_denoisers:half"], tmp_path / "o", more)
    assert module.calls > before
    assert (again.piece_status == 2).all()


def test_a_model_that_fails_is_said_and_the_others_stand(user_code, tmp_path):
    sources = ["half=users_denoisers:half", "bad=users_denoisers:broken"]
    status, found, said = measured(sources, tmp_path / "o")
    assert status == 1
    assert any("ArithmeticError: nothing comes of it" in line for line in said)
    assert (found.piece_status.sel(model="half") == 2).all()
    assert (found.piece_status.sel(model="bad") == 3).all()
    assert found.linearity_cosine.sel(model="bad").isnull().all()
    assert found.linearity_cosine.sel(model="half").notnull().all()


def test_outputs_of_another_shape_are_a_failure_that_names_them(user_code, tmp_path):
    status, _, said = measured(["users_denoisers:flat"], tmp_path / "o")
    assert status == 1 and any("wanted images" in line for line in said)


@pytest.mark.parametrize(
    ("sources", "settings", "message"),
    [
        (["users_denoisers:half"] * 2, [], "two models are called"),
        (["nowhere/kimg=1.safetensors"], [], "no such file"),
        (["users_denoisers:half"], ["n_train=5000"], "n_train"),
        (["users_denoisers:half"], ["sigmas=[0]"], "sigmas: wanted positive noise levels"),
        (["users_denoisers:half"], ["analyses=[nothing]"], "unknown analysis 'nothing'"),
        (["users_denoisers:half"], ["n_trian=5"], "did you mean 'n_train'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    user_code, tmp_path, sources, settings, message
):
    with pytest.raises(SpecError, match=message):
        measured(sources, tmp_path / "o", settings)
    assert not (tmp_path / "o").exists()


def test_the_command_takes_names_and_settings(user_code, tmp_path):
    arguments = ["analyse", "--denoiser", "h=users_denoisers:half", "--data", DATA]
    arguments += [part for setting in SETTINGS[:-1] for part in ("--set", setting)]
    arguments += ["--set", "analyses=[linearity]", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "h: 1 of 1 analyses" in done.output and "results.zarr" in done.output
