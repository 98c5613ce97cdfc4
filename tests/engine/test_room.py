"""Room on a cluster, the cluster files, and jobs: what can be told without starting Ray."""

import copy
from pathlib import Path

import pytest
from jsonschema import ValidationError
from ruamel.yaml import YAML

import engine
from engine import cluster
from engine.cluster import Room, analysis_ask, trial_ask
from engine.spec import Resources, SpecError, parse
from engine.submit import PACKAGES, code, entrypoint

ROOT = Path(engine.__file__).parents[1]
LAUNCHER = ["cluster.yaml", "docs/clusters/gcp.yaml", "docs/clusters/local.yaml"]


def node(name, alive=True, group=None, **resources):
    """A node as Ray describes it."""
    labels = {"ray.io/node-group": group} if group else {}
    return {"NodeID": name, "Alive": alive, "Labels": labels, "Resources": resources}


@pytest.fixture
def ray_nodes(monkeypatch):
    """The nodes that Ray reports, counted anew at each question."""
    found = []
    monkeypatch.setattr("ray.nodes", lambda: found)
    monkeypatch.setattr(cluster, "RECOUNT", 0.0)
    return found


def test_a_trial_that_no_single_node_holds_is_refused_with_what_the_nodes_have(ray_nodes):
    ray_nodes += [node("a", CPU=2.0), node("b", CPU=2.0), node("c", alive=False, CPU=8.0)]
    wants = (
        "resources: a trial wants CPU 4, and no node of the cluster holds that; nodes: 2 x CPU 2"
    )
    with pytest.raises(SpecError, match=wants):
        Room(trial_ask(Resources(cpus_per_trial=4)))
    with pytest.raises(SpecError, match=r"an analysis wants CPU 1, GPU 0.5, .* CPU 2, GPU 0"):
        Room(analysis_ask(Resources(gpus_per_analysis=0.5)))
    with pytest.raises(SpecError, match=r"2 workers of CPU 2, big 0.5 each .*: 2 x CPU 2, big 0"):
        Room(trial_ask(Resources(cpus_per_trial=4, workers=2, custom={"big": 1.0})))
    assert Room(trial_ask(Resources(cpus_per_trial=4, workers=2))).slots() == 1
    with pytest.raises(SpecError, match="STRICT_PACK"):
        Room(trial_ask(Resources(cpus_per_trial=4, workers=2, placement="STRICT_PACK")))


def test_a_node_that_joins_gives_room_and_one_that_dies_takes_it(ray_nodes):
    ray_nodes += [node("a", CPU=2.0, GPU=1.0)]
    room = Room(trial_ask(Resources(gpus_per_trial=0.25)))
    assert room.wanted() == 2
    ray_nodes += [node("b", CPU=8.0, GPU=1.0)]
    assert room.wanted() == 6
    ray_nodes[0]["Alive"] = False
    assert room.wanted() == 4


def test_a_cluster_that_starts_nodes_on_demand_is_shown_more_than_it_holds(ray_nodes, capsys):
    ray_nodes += [node("head", group="head", CPU=8.0)]
    room = Room(trial_ask(Resources(gpus_per_trial=1)))
    assert "waiting for it to start one" in capsys.readouterr().err
    assert room.wanted() == 2
    ray_nodes += [node("worker", group="worker", CPU=8.0, GPU=4.0)]
    assert room.wanted() == 8


def test_analyses_are_placed_on_the_node_with_most_cores_free(ray_nodes):
    small, large, driver = ("ab" * 28, "cd" * 28, "ef" * 28)
    ray_nodes += [node(small, CPU=1.0), node(large, CPU=3.0), node(driver, CPU=0.0)]
    room = Room(analysis_ask(Resources()))
    assert [room.take() for _ in range(5)] == [large, large, small, large, None]
    room.leave(small)
    assert room.take() == small
    assert room.near(small).node_id == small and room.near(small).soft


def test_without_a_core_on_any_node_one_analysis_at_a_time_is_left_to_ray(ray_nodes):
    ray_nodes += [node("head", group="head", CPU=0.0)]
    room = Room(analysis_ask(Resources()))
    assert room.take() == "" and room.take() is None
    assert room.near("") == "DEFAULT"


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"custom": {"GPU": 1}}, "resources.custom: GPU is not a custom resource"),
        ({"custom": {"big": 0}}, "resources.custom: wanted a mapping from a custom resource"),
        ({"analysis_custom": ["big"]}, "resources.analysis_custom: wanted a mapping"),
        ({"placement": "pack"}, "resources.placement: .*'PACK'"),
    ],
)
def test_bad_resources_are_refused(tiny, resources, message):
    with pytest.raises(SpecError, match=message):
        parse({**tiny, "resources": resources}, "tiny.yaml")


def read(name):
    """A cluster file."""
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text())


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_s_own_schema_takes_the_launcher_s_files_and_refuses_an_unknown_key(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(name)
    validate_config(prepare_config(copy.deepcopy(config)))
    for part in (config, config["auth"]):
        part["ssh_usr"] = "me"
        with pytest.raises(ValidationError, match="'ssh_usr' was unexpected"):
            validate_config(prepare_config(copy.deepcopy(config)))
        del part["ssh_usr"]


@pytest.mark.parametrize("name", LAUNCHER)
def test_launched_clusters_want_the_token_and_show_the_dashboard_on_loopback_alone(name):
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [line for line in starts if "ray start" in line]
    assert len(starts) == 2 and all(line.startswith("RAY_AUTH_MODE=token ") for line in starts)
    assert "--head" in starts[0] and "--dashboard-host=127.0.0.1" in starts[0]
    assert {".venv", "results", "**/.git"} <= set(config["rsync_exclude"])


def test_the_kuberay_job_runs_a_shipped_sweep_on_pods_that_say_what_they_need():
    import sweeps

    job = read("docs/clusters/kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["diffphase", "run"] and words[2] in sweeps.names()
    assert words[3:5] == ["--address", "auto"] and words[6].startswith("s3://")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    pinned = (ROOT / ".ci/constraints.txt").read_text()
    assert f"\nray=={spec['rayVersion']}\n" in pinned
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        assert "rayStartParams" in group
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] and container["name"]
        wanted = container["resources"]
        assert wanted["requests"] == wanted["limits"] and {"cpu", "memory"} <= set(
            wanted["limits"]
        )
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert workers["groupName"]


def test_a_job_brings_every_package_of_ours_and_keeps_its_options():
    modules = code()["py_modules"]
    assert [Path(module).name for module in modules] == list(PACKAGES)
    assert all((Path(module) / "__init__.py").is_file() for module in modules)
    line = entrypoint("s3://bucket/with space", ["--retry-failed"])
    assert line == (
        "python -m engine run sweep.json --address auto --storage 's3://bucket/with space'"
        " --retry-failed"
    )


def test_a_job_s_storage_must_be_where_all_nodes_see_it():
    with pytest.raises(SpecError, match="--storage results: wanted a URI or an absolute path"):
        entrypoint("results", [])
