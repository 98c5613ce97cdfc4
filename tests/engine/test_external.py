"""`diffphase analyse`: models beside one training set, with the numbers that a sweep gives."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

import analyses.subset
import engine.analyse
from analyses import linearity, memorization
from analyses.cache import SHARED
from analyses.moments import Moments
from analyses.sampler import Sampler
from analyses.specimen import Specimen, Subset
from engine.cli import app
from engine.external import analyse_models, examination, models
from engine.grid import cells
from engine.moments import pool_moments
from engine.run import record_run
from engine.spec import SpecError
from tests.engine.helpers import TINY, compute, cube_of, job_of, prepared
from tests.trainables.edm_network import pickled, tiny
from trainables import pretrained
from trainables.datasets.data import load
from trainables.streams import stream

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

def full(y, sigma):
    from torch import backends
    assert not backends.cudnn.allow_tf32 and not backends.cuda.matmul.allow_tf32
    return y / 2
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


def test_a_snapshot_is_evaluated_where_it_is_asked_for_whatever_its_sweep_reserved(
    sweep, tmp_path
):
    shutil.copytree(sweep[1], tmp_path / "tiny")
    record = json.loads((tmp_path / "tiny" / "sweep.json").read_text())
    record["sweep"]["resources"]["gpus_per_analysis"] = 1
    (tmp_path / "tiny" / "sweep.json").write_text(json.dumps(record))
    y = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outs = []
    for folder in (sweep[1], tmp_path / "tiny"):
        source = next(folder.rglob("kimg=1.safetensors"))
        (model,) = models([str(source)], CPU)
        outs.append(model.found.denoise(y, 0.5))
    assert torch.equal(*outs)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu", ""])
def test_a_device_that_is_not_there_is_bad_input(user_code, tmp_path, device):
    arguments = ["analyse", "--denoiser", "users_denoisers:half", "--data", DATA]
    arguments += ["--device", device, "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, SpecError)
    assert "not on this machine; wanted cpu" in str(done.exception)
    assert not (tmp_path / "o").exists()


def test_what_depends_on_the_points_alone_is_found_once_even_where_nothing_is_cached(
    user_code, tmp_path, monkeypatch
):
    counted, of_points, digested = [], Moments.of_points, analyses.subset.digest
    SHARED.clear()
    monkeypatch.setattr(SHARED, "max_bytes", 0)
    monkeypatch.setattr(engine.analyse, "memory_here", lambda: 0)
    monkeypatch.setattr(
        Moments, "of_points", lambda points: counted.append("moments") or of_points(points)
    )
    monkeypatch.setattr(
        analyses.subset, "digest", lambda points: counted.append("digest") or digested(points)
    )
    settings = [*SETTINGS[:-1], "analyses=[linearity]"]
    measured(["a=users_denoisers:half"], tmp_path / "o", settings)
    assert counted.count("moments") == 1
    counted.clear()
    measured([f"{name}=users_denoisers:half" for name in "ab"], tmp_path / "o", settings)
    assert counted == ["digest", "digest", "moments"]  # of the training points, the held-out ones


@pytest.fixture
def rounding():
    """A process in which convolutions and products may round to TF32."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = True
    yield places
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


def test_the_process_keeps_a_share_of_the_machine_and_computes_float32_in_full(
    user_code, tmp_path, monkeypatch, rounding
):
    monkeypatch.setattr(SHARED, "max_bytes", 1)
    monkeypatch.setattr(engine.analyse, "memory_here", lambda: 2**34)
    settings = [*SETTINGS[:-1], "analyses=[linearity]"]
    status, _, said = measured(["users_denoisers:full"], tmp_path / "o", settings)
    assert status == 0, said
    assert SHARED.max_bytes == 2**30
    assert all(place.allow_tf32 for place in rounding)


def test_the_analyses_of_a_sweep_compute_float32_in_full_and_its_trainings_as_they_did(
    sweep, rounding
):
    ready, _ = sweep
    seen = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append([place.allow_tf32 for place in rounding])
    )
    with hook:
        data = load("digits", n_heldout=32)
        cell = next(cells(ready.sweep))
        engine.analyse.analyse(job_of(ready), data, cell, "snapshot", ["linearity"])
    assert seen and not any(map(any, seen))
    assert all(place.allow_tf32 for place in rounding)


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


@pytest.fixture
def side_by_side(user_code, tmp_path):
    """A folder of diffusers, a network file of EDM and a callable, of images of 8 x 8."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    outer = {"img_resolution": 8, "img_channels": 1}
    (tmp_path / "edm.pkl").write_bytes(pickled(tiny(), "VPPrecond", outer))
    return {
        "ddpm": str(tmp_path / "ddpm"),
        "edm": str(tmp_path / "edm.pkl"),
        "half": "users_denoisers:half",
    }


FEW = [
    "n_train=8", "sigmas=[0.2, 1]", "sampler.samples=8", "sampler.steps=3",
    "analyses={linearity: {}, memorization: {flips: true}, jacobian: {points: 2, probes: 2}}",
]  # fmt: skip


def test_every_format_has_the_numbers_of_its_denoiser(side_by_side, tmp_path):
    sources = [f"{name}={source}" for name, source in side_by_side.items()]
    status, cube, said = measured(sources, tmp_path / "o", FEW)
    assert status == 0, said
    assert (cube.piece_status == 2).all()
    assert list(cube.model.values) == list(side_by_side)
    assert [json.loads(about)["format"] for about in cube.about.values] == [
        "diffusers", "edm", "function",
    ]  # fmt: skip
    data = load("digits", n_heldout=32)
    subset = Subset.of_images(
        data.subset(8), data.heldout, pool_moments(data), (0.2, 1.0), stream, Sampler(8, 3)
    )
    for name, source in side_by_side.items():
        loaded = pretrained.load(source, CPU)

        def flat(y, sigma, loaded=loaded):
            known = min(max(sigma, loaded.sigma_min), loaded.sigma_max)
            return loaded.denoise(y.float().view(-1, 1, 8, 8), known).flatten(1).double()

        specimen = Specimen.of(subset, flat)
        own = cube.sel(model=name)
        for expected in (linearity.measure(specimen), memorization.measure(specimen, flips=True)):
            for variable, values in expected.data_vars.items():
                found = own[variable].squeeze(drop=True).transpose(*values.dims)
                np.testing.assert_array_equal(found, values, err_msg=f"{name} {variable}")
        assert own.jacobian_trace.notnull().all()
        assert own.jacobian_rank_gaussian.notnull().all()


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (DATA, ["sigmas=[0.001]"], r"sigmas: the models know noise levels from 0\.01 to 152"),
        (DATA, ["sigmas=[1, 200]"], r"to 152\.\d, got 200"),
        (
            "{name: digits, resolution: 4}",
            [],
            r"ddpm: its images are \(1, 8, 8\), those of .* 4, 4",
        ),
    ],
)
def test_models_that_do_not_know_the_levels_or_the_images_are_refused(
    side_by_side, tmp_path, data, more, message
):
    with pytest.raises(SpecError, match=message):
        measured(side_by_side.values(), tmp_path / "o", more, data)
    assert not (tmp_path / "o").exists()


def test_an_option_of_one_analysis_leaves_the_others_in_place():
    asked = examination("digits", ["analyses.memorization.flips=true"])
    assert asked.analyses == {
        "linearity": {}, "linear_fit": {}, "gaussian": {}, "memorization": {"flips": True},
        "generalization": {},
    }  # fmt: skip
    assert examination("digits", ["analyses=[lid]"]).analyses == {"lid": {}}


def test_the_cube_says_what_the_audit_of_the_data_found(user_code, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 4, 4), dtype=np.uint8)
    images[:, 0, 0] = 7
    images[1] = images[0]
    np.save(tmp_path / "train.npy", images)
    np.save(tmp_path / "test.npy", images[2:9])
    files = {"path": str(tmp_path / "train.npy"), "test_path": str(tmp_path / "test.npy")}
    _, cube, _ = measured(
        ["users_denoisers:half"],
        tmp_path / "o",
        ["n_train=8", "sigmas=[1]", "analyses=[linearity]"],
        json.dumps({"name": "files", "n_heldout": 5, **files}),
    )
    data = load("files", n_heldout=5, **files)
    assert (cube.n_leaked, cube.n_duplicates, cube.n_constant_pixels) == (
        data.n_leaked, data.n_duplicates, data.n_constant_pixels,
    )  # fmt: skip
    assert cube.n_leaked == 5 and cube.n_constant_pixels == 1
    assert cube.n_near_duplicates == data.near.n_near_duplicates
    assert cube.n_near_leaked == data.near.n_near_leaked and cube.near_threshold == 0.95


def test_the_command_takes_names_and_settings(user_code, tmp_path):
    arguments = ["analyse", "--denoiser", "h=users_denoisers:half", "--data", DATA]
    arguments += [part for setting in SETTINGS[:-1] for part in ("--set", setting)]
    arguments += ["--set", "analyses=[linearity]", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "h: 1 of 1 analyses" in done.output and "results.zarr" in done.output
