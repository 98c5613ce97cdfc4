"""The command line in this process: what it says, and how it refuses bad input."""

import json
import sys

import pandas as pd
import pytest
import xarray as xr

from engine import cli
from engine.resolve import load
from engine.run import record_run
from tests.engine.helpers import compute, prepared


@pytest.fixture
def sweep_file(tmp_path, tiny):
    """Writes the tiny sweep with changed keys; returns its path."""

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps({**tiny, **changes}))
        return str(path)

    return write


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line; returns (exit status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["diffphase", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


BAD = [
    ({"kimgs": [1]}, "unknown key 'kimgs' (did you mean 'kimg'?)"),
    ({"data": {"name": "digit"}}, "data.name: unknown data set 'digit' (did you mean 'digits'?)"),
    ({"data": {"name": "digits", "size": 3}}, "size"),
    (
        {"backbone": {"name": "mpl"}},
        "backbone.name: unknown architecture 'mpl' (did you mean 'mlp'?)",
    ),
    ({"backbone": {"name": "mlp", "dept": 3}}, "unknown option 'dept' (did you mean 'depth'?)"),
    (
        {"analyses": ["linearty"]},
        "analyses: unknown analysis 'linearty' (did you mean 'linearity'?)",
    ),
    ({"analyses": {"memorization": {"treshold": 9}}}, "unknown option 'treshold' (did you mean"),
    (
        {"analyses": {"memorization": {"threshold": -9}}},
        "analyses.memorization.threshold: wanted a positive",
    ),
    (
        {"backbone": {"name": "gmm"}},
        "training.preconditioning: 'edm' does not fit backbone 'gmm'",
    ),
    ({"kimg": [4, 2]}, "kimg: must increase, got [4, 2]"),
    ({"kimg": [1, 1.01]}, "kimg: 1 and 1.01 fall on the same step 8 at training.batch 128"),
    (
        {"axes": {"width": [64], "n_train": [9999]}},
        "axes.n_train: 9999 is larger than the data: digits has 1765",
    ),
    (
        {"axes": {"width": [64], "n_train": [1000], "split": ["a", "b"]}},
        "allowed: up to 882 for each of two",
    ),
    ({"axes": {"width": [0], "n_train": [8]}}, "axes.width: wanted whole numbers >= 1, got [0]"),
    ({"axes": {"width": [32], "n_train": [8]}}, "at axes.width 32"),
    ({"training": {"lr": -1}}, "lr"),
    ({"training": {"lrr": 1}}, "unknown key 'lrr' (did you mean 'lr'?); allowed: batch"),
    ({"training": {"preconditioning": "edn"}}, "edm"),
    (
        {"training": {"batch": 7}, "resources": {"workers": 2}},
        "training.batch: 7 does not split over",
    ),
    ({"data": {"name": "idx", "path": "/nowhere/x.gz"}}, "/nowhere/x.gz"),
    ({"data": {"name": "fashion_mnist", "path": "/nowhere"}}, "dataset-fashion-mnist"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change)[:60] for change, _ in BAD])
def test_bad_input_exits_2_naming_file_key_and_choice_and_starts_nothing(
    sweep_file, call, tmp_path, monkeypatch, change, message
):
    monkeypatch.setitem(sys.modules, "engine.driver", None)  # importing it would start the run
    path = sweep_file(**change)
    status, out, err = call("run", path, "--storage", tmp_path / "results")
    assert status == 2
    assert message in err and path in err and "Traceback" not in err
    assert out == "" and not (tmp_path / "results").exists()


def test_unreadable_yaml_and_unknown_sweeps_exit_2(call, tmp_path):
    (tmp_path / "x.yaml").write_text("a: [1")
    status, _, err = call("plan", tmp_path / "x.yaml")
    assert status == 2 and "not readable as YAML" in err
    status, _, err = call("plan", "quickstrat")
    assert status == 2 and "did you mean 'quickstart'?" in err
    status, _, err = call("status", tmp_path / "nothing")
    assert status == 2 and "no sweep.json there" in err
    status, _, err = call("list", "analysis")
    assert status == 2 and "allowed: datasets, architectures, analyses, sweeps" in err


def test_an_address_where_nothing_listens_exits_2(sweep_file, call, tmp_path):
    status, _, err = call("run", sweep_file(), "--storage", tmp_path, "--address", "127.0.0.1:1")
    assert status == 2
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in err
    assert not list(tmp_path.rglob("trials"))


def test_list_names_every_registered_thing(call):
    from analyses.registry import ANALYSES
    from trainables.architectures import ARCHITECTURES
    from trainables.datasets import DATASETS

    status, out, _ = call("list")
    assert status == 0
    for name in [*ANALYSES, *ARCHITECTURES, *DATASETS, "quickstart", "smoke", "fashion"]:
        assert f"  {name} " in out


def test_plan_counts_and_predicts_and_starts_nothing(sweep_file, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "engine.driver", None)
    path = sweep_file()
    status, out, _ = call("plan", path, "--storage", tmp_path, "--json")
    numbers = json.loads(out)
    assert status == 0
    assert numbers["cells"]["total"] == numbers["cells"]["pending"] == 8
    assert numbers["trials_to_train"] == 4
    assert numbers["cost"]["core_seconds"] > 0
    status, out, _ = call("plan", path, "--storage", tmp_path, "--set", "axes.width=[64]")
    assert "2 trials" in out and "4 cells: 4 pending" in out


def test_a_run_estimated_to_take_too_long_exits_2_and_starts_nothing(sweep_file, call, tmp_path):
    status, _, err = call("run", sweep_file(), "--storage", tmp_path / "r", "--max-hours", "0.001")
    assert status == 2 and "--max-hours allows 0.001; drop values from the axes" in err
    assert not list((tmp_path / "r").rglob("trial*"))


@pytest.fixture
def finished(tiny, tmp_path):
    """A finished sweep's folder."""
    from engine.run import record_run

    ready = prepared(tiny, tmp_path)
    record_run(ready, "diffphase run tiny.yaml")
    compute(ready)
    return tmp_path / "tiny"


def test_status_gather_and_plot_need_the_folder_alone(finished, call, tmp_path):
    moved = finished.rename(tmp_path / "elsewhere")
    status, out, _ = call("status", moved)
    assert status == 0 and "8 cells: 8 done" in out
    status, out, _ = call("status", moved, "--json")
    assert json.loads(out)["cells"]["done"] == 8
    assert call("gather", moved)[0] == 0
    cube = xr.open_zarr(moved / "results.zarr")
    assert cube.attrs["history"].endswith("diffphase run tiny.yaml")
    assert json.loads(str(cube["config_json"].values))["name"] == "tiny"
    xr.testing.assert_identical(cube.load(), xr.open_dataset(moved / "results.nc").load())
    phase = xr.open_zarr(moved / "results.zarr", group="phase")
    assert phase["tau_gauss"].attrs["units"] and "tau_mem_low" in phase
    status, out, err = call("plot", moved)
    assert status == 0 and err == ""
    drawn = {line.rsplit("/", 1)[1] for line in out.splitlines()}
    for name in (
        "memorized_fraction_width",
        "memorized_fraction_kimg",
        "gaussian_distance",
        "linearity",
    ):
        assert {f"{name}.png", f"{name}.pdf", f"{name}.csv"} <= drawn


def test_reading_results_imports_neither_torch_nor_ray(finished):
    import subprocess

    code = (
        "import sys\n"
        "from engine.publish import gather_at, plot_at, stored\n"
        "from engine.status import state_of\n"
        f"path = {str(finished)!r}\n"
        "gather_at(path); plot_at(path); state_of(*stored(path))\n"
        "bad = {'torch', 'ray'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_gather_writes_one_long_table(finished, call, kind):
    import pandas as pd

    status, out, _ = call("gather", finished, "--to", kind)
    assert status == 0
    frame = getattr(pd, f"read_{kind}")(out.strip())
    assert {"width", "n_train", "kimg", "memorized_fraction", "denoiser_rmse"} <= set(
        frame.columns
    )
    assert frame["memorized_fraction"].notna().all()


def test_gather_refuses_an_unknown_format(finished, call):
    status, _, err = call("gather", finished, "--to", "xls")
    assert status == 2 and "wanted netcdf, csv or parquet, got 'xls'" in err


def test_a_figure_of_the_paper_that_does_not_exist_exits_2_and_lists_them(tiny, tmp_path, call):
    ready = prepared(tiny, tmp_path)
    record_run(ready, "test")
    status, _, err = call("plot", ready.store.folder, "--figure", "paper/31")
    assert status == 2 and "--figure paper/31: wanted paper, or one of paper/1" in err


def nearest_rows(folder):
    """Pixels of the nearest training images in the numbers of figure 12."""
    table = pd.read_csv(folder / "figures" / "paper" / "12.csv")
    return table[table.apply(lambda row: "nearest" in row.astype(str).values, axis=1)]


def test_samples_stand_beside_their_nearest_training_images(tiny, tmp_path, call):
    ready = prepared(tiny, tmp_path)
    compute(ready)
    record_run(ready, "test")
    folder = tmp_path / "tiny"
    assert call("gather", folder)[0] == 0
    status, out, err = call("plot", folder, "--figure", "paper/12")
    assert status == 0 and "12.png" in out and "without" not in err
    pixels = nearest_rows(folder)["value"].dropna().to_numpy().reshape(-1, 64)
    points = load(ready.sweep, "tiny").pool.reshape(-1, 64)
    assert len(pixels) and all((abs(points - x).max(1) < 1e-6).any() for x in pixels)


def test_without_the_data_set_the_figure_is_drawn_without_them_and_says_so(tiny, tmp_path, call):
    ready = prepared(tiny, tmp_path)
    compute(ready)
    record_run(ready, "test")
    record = ready.store.record()
    record["facts"]["data"]["content_hash"] = "another"
    ready.store.write_record(record)
    folder = tmp_path / "tiny"
    assert call("gather", folder)[0] == 0
    status, _, err = call("plot", folder, "--figure", "paper/12")
    assert status == 0 and "is not the one that was trained on" in err
    assert nearest_rows(folder).empty
