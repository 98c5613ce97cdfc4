"""The packages from outside: what an import costs, and what a wheel holds."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_version_is_known_without_importing_torch():
    code = "import sys, trainables; assert trainables.VERSION >= 1; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_wheel_has_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = ("engine", "trainables", "analyses", "sweeps")
    there = {p.parent.relative_to(ROOT) for top in tops for p in (ROOT / top).rglob("__init__.py")}
    assert {".".join(path.parts) for path in there} == set(settings["packages"])


def test_ray_is_forbidden_to_every_module_of_the_engine_but_five():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in settings["contracts"] if c["name"].startswith("Ray stays"))
    modules = {f"engine.{path.stem}" for path in (ROOT / "engine").glob("[!_]*.py")}
    allowed = {"cluster", "fanout", "submit", "training", "tuning"}
    assert modules - set(contract["source_modules"]) == {f"engine.{name}" for name in allowed}
