"""The sweeps that ship with diffphase: one YAML each, found by name when installed."""

from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files("sweeps")))


def names() -> list[str]:
    """Names that the command line accepts in place of a path."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
