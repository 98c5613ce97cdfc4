"""What a run of our own lets in: nothing from other machines, nobody without its token."""

import json
import os
import subprocess
import sys

import pytest

from engine.cluster import configure

WATCHED = """
import json, os, subprocess, sys
from engine.cluster import cluster, configure

configure(None)
with cluster(None, 0, groups=True):
    import ray

    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    import psutil  # the one that Ray ships

    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ports = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == "LISTEN"}
    told = [p.pid for p in family if os.environ["RAY_AUTH_TOKEN"] in " ".join(p.cmdline())]
    address = ray.get_runtime_context().gcs_address
    ask = "[C(address={!r}).internal_kv_keys(b'', b'x', timeout=30)]"
    from ray._raylet import GcsClient as C

    assert eval(ask.format(address)) == [[]]
    client = "from ray._raylet import GcsClient as C; " + ask.format(address)
    answers = []
    for setting in {"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}:
        done = subprocess.run([sys.executable, "-c", client], env=os.environ | setting,
                              capture_output=True, text=True)
        answers.append([done.returncode, done.stderr])
print(json.dumps({"ports": sorted(ports), "told": told, "answers": answers}))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"home": sorted(home.rglob("*"))}


@pytest.mark.ray
def test_every_port_of_a_run_of_our_own_is_on_loopback(watched):
    assert {ip.removeprefix("::ffff:") for ip in watched["ports"]} == {"127.0.0.1"}


@pytest.mark.ray
def test_a_client_without_the_token_is_refused(watched):
    for status, said in watched["answers"]:
        assert status != 0 and "Unauthenticated" in said


@pytest.mark.ray
def test_the_token_is_neither_on_a_command_line_nor_in_the_home_folder(watched):
    assert watched["told"] == [] and watched["home"] == []


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    return os.environ


def test_each_setting_of_the_user_is_left_alone(environment):
    for setting in (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_TOKEN_PATH": "/some/file"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "mine"},
    ):
        environment.clear()
        environment.update(setting)
        configure(None)
        assert setting.items() <= environment.items()
        assert environment.get("RAY_AUTH_TOKEN") == setting.get("RAY_AUTH_TOKEN")


def test_a_cluster_at_an_address_keeps_its_own_way_of_letting_clients_in(environment):
    configure("10.0.0.1:6379")
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & {
        *environment
    }
