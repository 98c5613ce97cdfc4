"""No code comes out of a file: what is read from the store or as data is never unpickled."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for package in ("engine", "analyses", "trainables", "sweeps")
    for path in sorted((ROOT / package).rglob("*.py"))
]
READERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
UNPACKERS = {"extract", "extractall", "unpack_archive"}
"""Archives are read member by member: an unpacked name could leave its folder."""

RESTRICTED = "trainables/unpickling.py"
"""The one reader of pickles: it resolves a closed list of names to stand-ins of ours."""


def unsafe(source):
    """What of a module could run code from a file, as `line: why`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            for name in names:
                if name.split(".")[0] in READERS:
                    yield f"{node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called in RUNNERS or called.rpartition(".")[2] in UNPACKERS | {"read_pickle"}:
                yield f"{node.lineno}: calls {called}"
            if called == "torch.load" and given.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only=True"
            if given.get("allow_pickle", "False") != "False":
                yield f"{node.lineno}: {called} with allow_pickle"
            if called.rpartition(".")[2] == "YAML" and given.get("typ") != "'safe'":
                yield f"{node.lineno}: YAML that is not safe"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "tar.extractall(path)",
        "YAML()",
        "pd.read_pickle(path)",
    ],
)
def test_each_way_to_run_a_file_is_seen(source):
    assert list(unsafe(source))


def test_nothing_in_the_packages_can_run_what_it_reads():
    others = [p for p in SOURCES if p.relative_to(ROOT).as_posix() != RESTRICTED]
    found = [f"{p.relative_to(ROOT)}:{w}" for p in others for w in unsafe(p.read_text())]
    assert len(others) > 100 and found == []


def test_the_reader_of_pickles_decides_every_name_itself():
    source = (ROOT / RESTRICTED).read_text()
    assert [why.partition(": ")[2] for why in unsafe(source)] == ["imports pickle"]
    used = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert used == {"pickle._Unpickler", "pickle.UnpicklingError"}
    (reader,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and "Unpickler" in "".join(map(ast.unparse, node.bases))
    )
    own = {node.name for node in reader.body if isinstance(node, ast.FunctionDef)}
    assert {"find_class", "get_extension", "persistent_load"} <= own
