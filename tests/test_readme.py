"""Every command of the README works: shell blocks are run, Python blocks are executed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLEAN = {k: v for k, v in os.environ.items() if k != "COLUMNS"}


def blocks(language):
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    """The shell lines, without comments."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_make_targets_of_the_readme_exist_and_test_is_what_ci_calls():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {c[1] for c in commands() if c[0] == "make"} | set(re.findall(r"`make (\w+)", README))
    assert {"demo", "test", "venv"} == named <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.ray
@pytest.mark.timeout(900)  # thirteen processes one after the other
def test_every_command_runs_and_every_snippet_works(tmp_path):
    """In the order of the page, with the smoke sweep standing in for quickstart's minutes."""
    (tmp_path / "sweeps").mkdir()
    smoke = (ROOT / "sweeps" / "smoke.yaml").read_text().replace("name: smoke", "name: quickstart")
    (tmp_path / "sweeps" / "quickstart.yaml").write_text(smoke)
    environment = {**CLEAN, "PYTHONPATH": str(ROOT)}
    ran = 0
    for command in commands():
        program = Path(command[0]).name
        if program == "diffphase":
            arguments = [sys.executable, "-m", "engine", *command[1:]]
            subprocess.run(
                arguments, cwd=tmp_path, env=environment, check=True, capture_output=True
            )
            ran += 1
        elif program == "tensorboard":
            (logs,) = [a for a in command if a.startswith("results/")]
            assert list((tmp_path / logs).rglob("events.out.tfevents*"))
        else:
            assert program == "make"
    assert ran == 11
    for code in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        assert "tau_mem_low" in done.stdout
