"""A sweep file is a sweep or a `SpecError` that names it, whatever is written in it."""

import copy
import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import sweeps
from engine.grid import trials
from engine.spec import SpecError, as_mapping, canonical, load, parse
from tests.engine.helpers import TINY
from tests.fuzz.cases import changed_json, damaged, fuzz, values

SHIPPED = (sweeps.FOLDER / "quickstart.yaml").read_text()
SIGNS = r"""&a *a !!binary !!set <<: ? - { } [ ] | %YAML --- 2001-13-45 0x"""
PIECES = [
    *re.findall(r"[A-Za-z_.]+|[0-9.e-]+|\s+|[^\w\s]", SHIPPED),
    *(sign + " " for sign in SIGNS.split()),
    "\t",
    "\0",
]


def whole_or_refused(read, origin):
    """What a reader gives for bad input: a sweep that is sound, or one clear error."""
    try:
        sweep = read()
    except SpecError as error:
        assert all(line.startswith((origin, "--set")) for line in str(error).splitlines()[:1])
        return None
    written = as_mapping(sweep)
    assert canonical(as_mapping(parse(json.loads(canonical(written)), "again"))) == canonical(
        written
    )
    return sweep


@fuzz
@given(st.binary(max_size=300) | damaged(SHIPPED.encode()))
def test_bytes_are_a_sweep_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    whole_or_refused(lambda: load(path), str(path))


@fuzz
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=80))
def test_text_is_a_sweep_or_a_clear_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    whole_or_refused(lambda: load(path), str(path))


@fuzz
@given(changed_json(TINY))
def test_a_mapping_is_a_sweep_or_a_clear_error(mapping):
    sweep = whole_or_refused(lambda: parse(mapping, "sweep.yaml"), "sweep.yaml")
    if sweep:
        try:
            assert len(trials(sweep)) > 0
        except SpecError as error:  # an address too long
            assert "address" in str(error)


KEYS = [*TINY, "axes.width", "axes.training.lr", "data.name", "training", "search.optuna.trials"]


@fuzz
@given(
    st.lists(
        st.builds(
            "{}={}".format,
            st.sampled_from(KEYS) | st.text(max_size=10),
            values.map(lambda v: json.dumps(v, default=str, skipkeys=True)) | st.text(max_size=20),
        )
        | st.text(max_size=20),
        max_size=3,
    )
)
def test_an_override_is_taken_or_a_clear_error(tmp_path_factory, overrides):
    path = tmp_path_factory.getbasetemp() / "set.yaml"
    if not path.exists():
        YAML(typ="safe").dump(copy.deepcopy(TINY), path)
    whole_or_refused(lambda: load(path, overrides), str(path))


def doubling():
    """Nine values nine times, nine times over: 300 bytes that stand for 3.5e9 values."""
    rows = ["a: &a [1,1,1,1,1,1,1,1,1]"]
    for old, new in pairwise("abcdefghi"):
        rows.append(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]")
    return "\n".join(rows)


BOMBS = {
    "aliases": doubling(),
    "itself": "axes: &a {width: *a}\n",
    "depth": "[" * 5000,
    "depth_of_keys": "".join(" " * i + "a:\n" for i in range(1000)),
    "size": "# \n" * 400_000,
    "digits": f"name: {'9' * 5000}",
    "merge": "a: &a {<<: *a}",
    "half_a_character": '"\\ud800": 1',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(tmp_path, bomb):
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[bomb])
    with pytest.raises(SpecError, match=r"bomb\.yaml: ?"):
        load(path)


@pytest.mark.parametrize(
    "axis",
    [
        {"range": [0, 1e12, 1]},
        {"range": [1, 2, 1e-300]},
        {"range": [0, 99_998, 1]},
        {"log": [1, 2, 1e9]},
        {"log2": [1e-300, 1e300]},
    ],
)
def test_a_grid_that_is_too_large_is_refused_before_it_is_listed(tiny, axis):
    tiny["axes"] = {"width": [8] * 1, "n_train": [2, 4, 8, 16], "training.lr": axis}
    tiny["kimg"] = [1, 2, 3]
    with pytest.raises(SpecError, match=r"fit|apart"):
        parse(tiny, "tiny.yaml")
