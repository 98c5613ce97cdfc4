"""The sweep file: what is accepted, and what a mistake says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.spec import SpecError, Sweep, as_mapping, canonical, expand, load, parse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kimgs": [1]},
            r"unknown key 'kimgs' \(did you mean 'kimg'\?\); allowed: name, question",
        ),
        ({"resources": {"worker": 1}}, r"unknown key 'resources.worker' \(did you mean 'workers'"),
        (
            {"axes": {"widht": [64], "n_train": [8]}},
            r"axes.widht: unknown axis \(did you mean 'width'",
        ),
        (
            {"axes": {"width": [0], "n_train": [8]}},
            r"axes.width: wanted whole numbers >= 1, got \[0\]",
        ),
        ({"axes": {"width": [64], "n_train": [1]}}, r"axes.n_train: wanted whole numbers >= 2"),
        ({"axes": {"width": [64, 64], "n_train": [8]}}, r"axes.width: lists 64 twice"),
        ({"axes": {"width": [64]}}, r"axes.n_train is missing"),
        ({"axes": {"width": [64], "n_train": [8], "split": ["c"]}}, r"axes.split: allowed: a, b"),
        ({"axes": {"width": [64], "n_train": [8], "data.n": [1]}}, r"data cannot be an axis"),
        ({"kimg": [4, 2]}, r"kimg: must increase, got \[4, 2\]"),
        ({"kimg": [-1, 2]}, r"kimg: wanted positive numbers"),
        ({"sigmas": [0]}, r"sigmas: wanted positive noise levels"),
        ({"name": "../up"}, r"name: wanted letters, digits.*got '../up'"),
        (
            {"numerics": {"precision": "half"}},
            r"numerics.precision: .*'float32' or 'float64', got 'half'",
        ),
        (
            {"numerics": {"eval_batch": 1}},
            r"numerics.eval_batch: .*greater than or equal to 2, got 1",
        ),
        (
            {"search": {"optuna": {"trials": 0}}},
            r"search.optuna.trials: .*greater than or equal to 1",
        ),
        ({"backbone": {"depth": 1}}, r"backbone.name is missing"),
        ({"analyses": {"linearity": 1}}, r"analyses: linearity: wanted a mapping of options"),
    ],
)
def test_a_mistake_names_file_key_value_and_what_is_allowed(tiny, change, message):
    with pytest.raises(SpecError, match=message) as error:
        parse({**tiny, **change}, "x.yaml")
    assert str(error.value).startswith("x.yaml: ")


def test_every_mistake_is_named_at_once(tiny):
    with pytest.raises(SpecError) as error:
        parse({**tiny, "kimg": [2, 1], "sigmas": [-1], "nonsense": 1}, "x.yaml")
    assert len(str(error.value).splitlines()) == 3


def test_a_number_in_scientific_notation_is_a_number(tmp_path, tiny):
    path = tmp_path / "a.yaml"
    path.write_text(json.dumps(tiny).replace("0.004", "4e-3"))
    assert load(path).training["lr"] == 4e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line .*not readable as YAML"),
        ("- 1", "wanted a mapping of keys, got list"),
        ("a: 1\na: 2", "not readable as YAML: found duplicate key"),
        ("", "wanted a mapping of keys, got NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        load(tmp_path / "a.yaml")


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="no such sweep file"):
        load(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not readable as YAML"):
        load(tmp_path / "b.yaml")


def test_a_python_file_describes_the_same_sweep(tmp_path, tiny):
    (tmp_path / "a.yaml").write_text(json.dumps(tiny))
    (tmp_path / "a.py").write_text(
        "import json\nfrom engine.spec import Sweep\n"
        f"SWEEP = Sweep(**json.loads({json.dumps(tiny)!r}))\n"
    )
    assert load(tmp_path / "a.py") == load(tmp_path / "a.yaml")


def test_overrides_reach_axes_options_and_dotted_axes(tmp_path, tiny):
    path = tmp_path / "a.yaml"
    path.write_text(json.dumps({**tiny, "training": {"batch": 128}}))
    sweep = load(
        path,
        [
            "axes.width={log2: [64, 256]}",
            "axes.training.lr=[1e-3, 2e-3]",
            "data.n_heldout=64",
            "analyses.memorization.threshold=0.25",
            "sampler.steps=9",
        ],
    )
    assert sweep.axes["width"] == (64, 128, 256)
    assert sweep.axes["training.lr"] == (1e-3, 2e-3)
    assert sweep.data.options == {"n_heldout": 64}
    assert sweep.analyses["memorization"] == {"threshold": 0.25}
    assert (sweep.sampler.samples, sweep.sampler.steps) == (16, 9)
    with pytest.raises(SpecError, match=r"--set x: wanted key=value"):
        load(path, ["x"])


def test_a_constant_cannot_be_an_axis_as_well(tiny):
    axes = {**tiny["axes"], "training.lr": [1e-3]}
    with pytest.raises(SpecError, match=r"axes.training.lr is also set as the constant"):
        parse({**tiny, "axes": axes}, "x.yaml")


def test_parsing_undoes_as_mapping(tiny):
    sweep = parse({**tiny, "sigmas": {"edm": 10}, "search": {"optuna": {"trials": 3}}}, "x.yaml")
    assert parse(as_mapping(sweep), "y.yaml") == sweep


def test_the_edm_grid_is_the_published_one(tiny):
    sigmas = parse({**tiny, "sigmas": {"edm": 10}}, "x.yaml").sigmas
    published = (
        0.002,
        0.02043533,
        0.11663856,
        0.46997906,
        1.50174198,
        4.06612360,
        9.72320136,
        21.10867674,
        42.41518932,
        80,
    )
    assert sigmas == pytest.approx(published, rel=1e-6)


@given(st.integers(1, 50), st.integers(0, 8))
def test_doubling_axes_hold_both_ends(low, doublings):
    values = expand({"log2": [low, low * 2**doublings]}, whole=True)
    assert values == tuple(low * 2**k for k in range(doublings + 1))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_whatever_a_file_says_ends_in_a_sweep_or_a_clear_error(raw):
    try:
        assert isinstance(parse(raw, "x.yaml"), Sweep)
    except SpecError as error:
        assert str(error).startswith("x.yaml")


KEYS = [
    "name",
    "data",
    "backbone",
    "axes",
    "kimg",
    "sigmas",
    "training",
    "analyses",
    "resources",
    "numerics",
    "search",
]
VALUES = st.recursive(
    st.none()
    | st.integers(-3, 300)
    | st.floats()
    | st.sampled_from(["a", "mlp", "width", "log2"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYS, "width", "n_train", "log2", "log", "range", "optuna"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_any_key_ends_in_a_sweep_or_a_clear_error(key, value):
    good = {
        "name": "x",
        "data": {"name": "digits"},
        "backbone": {"name": "mlp"},
        "kimg": [1],
        "sigmas": [1],
        "axes": {"width": [64], "n_train": [8]},
        "analyses": ["linearity"],
    }
    try:
        assert isinstance(parse({**good, key: value}, "x.yaml"), Sweep)
    except SpecError as error:
        assert key in str(error)


def test_canonical_json_has_one_spelling_per_value():
    assert canonical({"b": 1.0, "a": (2, 0.5)}) == canonical({"a": [2.0, 0.5], "b": 1})
