"""The published backbones in a sweep: identity, errors, and the way to the cube."""

import pytest

from engine.spec import SpecError
from tests.backbones import OPTIONS
from tests.engine.helpers import TINY, compute, cube_of, prepared

SMALL = {
    **TINY,
    "name": "small",
    "data": {"name": "digits", "n_heldout": 32},
    "backbone": {"name": "ddpmpp", **OPTIONS["ddpmpp"], "attention": [8], "augment_dim": 9},
    "axes": {"width": [4], "n_train": [8]},
    "kimg": [0.256],
    "analyses": {"memorization": {}, "samples": {}},
}


def snapshot(tmp_path, **training):
    sweep = {**SMALL, "training": {**TINY["training"], **training}}
    return prepared(sweep, tmp_path / "-".join(training)).prints["snapshot"]


def test_only_what_changes_the_numbers_changes_the_identity(tmp_path):
    plain = snapshot(tmp_path)
    assert snapshot(tmp_path, checkpointing=True) == plain
    others = {
        snapshot(tmp_path, **{option: value})
        for option, value in (("autocast", "bfloat16"), ("channels_last", True), ("compile", True))
    }
    assert len(others - {plain}) == 3


def test_checkpointing_a_backbone_without_blocks_is_an_error_before_anything_starts(tmp_path):
    sweep = {**TINY, "training": {**TINY["training"], "checkpointing": True}}
    with pytest.raises(SpecError, match=r"training.checkpointing: backbone 'mlp' has no blocks"):
        prepared(sweep, tmp_path)


def test_a_published_backbone_goes_all_the_way_to_the_cube(tmp_path):
    ready = prepared(SMALL, tmp_path)
    compute(ready)
    cube = cube_of(ready)
    ((parameters, _),) = ready.facts.sizes.values()
    assert (cube["status"] == 2).all() and cube["n_params"].item() == parameters
