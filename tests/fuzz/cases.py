"""How often each law of this folder is tried: 60 fixed cases, or FUZZ_CASES random ones."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("FUZZ_CASES", 0))
fuzz = settings(
    max_examples=CASES or 60,
    derandomize=not CASES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["..", "/etc/passwd", "a/b", "\0", "1e999", "=", "~", "log2", "edm", ""])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | scalars.filter(lambda k: k == k), inner, max_size=4
        )
        | st.dictionaries(
            st.sampled_from(["log2", "log", "range", "edm", "name", "trials", "optuna"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=12,
)
"""Anything a YAML file can spell, and the words of ours among it."""


@st.composite
def changed_json(draw, start):
    """`start` with one to three places replaced, removed, renamed or added to."""
    value = start
    for _ in range(draw(st.integers(1, 3))):
        value = draw(_changed(value))
    return value


@st.composite
def _changed(draw, value):
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(values)
    at = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    result = dict(value) if isinstance(value, dict) else list(value)
    act = draw(st.sampled_from(["deeper"] * 5 + ["replace"] * 4 + ["drop", "add"]))
    if act == "drop":
        del result[at]
    elif act == "add" and isinstance(result, dict):
        result[draw(st.text(max_size=8))] = draw(values)
    elif act == "add":
        result.append(draw(values))
    else:
        result[at] = draw(_changed(value[at]) if act == "deeper" else values)
    return result


@st.composite
def damaged(draw, whole):
    """The bytes `whole` cut short, with some bytes changed, or with some put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)) | st.integers(0, min(64, len(data))))
        act = draw(st.sampled_from(["cut", "change", "change", "insert", "remove"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if act == "cut":
            del data[at:]
        elif act == "remove":
            del data[at : at + len(some)]
        else:
            data[at : at + len(some) * (act == "change")] = some
    return bytes(data)
