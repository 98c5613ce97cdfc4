"""A sweep that mirrors or augments: what is refused, and what its analyses compare with."""

import pytest

from engine.spec import SpecError
from tests.engine.helpers import compute, cube_of, prepared

SONG = {"name": "ddpmpp", "mult": [1], "blocks": 1, "attention": []}
BY_NEAREST = ["memorization", "novelty", "points"]


def test_mirror_images_count_as_training_points_where_they_are_trained_on(tiny, tmp_path):
    tiny["analyses"] = BY_NEAREST
    plain = prepared(tiny, tmp_path / "a").facts.analyses
    tiny["training"]["xflip"] = True
    mirrored = prepared(tiny, tmp_path / "b").facts.analyses
    tiny["analyses"] = {name: {"flips": False} for name in BY_NEAREST}
    told = prepared(tiny, tmp_path / "c").facts.analyses
    for name in BY_NEAREST:
        found = [facts[name].options["flips"] for facts in (plain, mirrored, told)]
        assert found == [False, True, False]


def test_one_trial_that_mirrors_is_enough(tiny, tmp_path):
    tiny |= {"axes": {"width": [64], "n_train": [8], "training.xflip": [False, True]}}
    tiny["analyses"] = ["memorization"]
    assert prepared(tiny, tmp_path).facts.analyses["memorization"].options["flips"]


def test_augmentation_wants_a_backbone_that_is_told_of_it(tiny, tmp_path):
    tiny["training"]["augment"] = 0.15
    with pytest.raises(
        SpecError, match=r"training.augment: backbone 'mlp' is not told of the aug"
    ):
        prepared(tiny, tmp_path)
    tiny["backbone"] = {**SONG, "augment_dim": 0}
    with pytest.raises(SpecError, match="wanted ncsnpp, ddpmpp or adm with augment_dim 9"):
        prepared(tiny, tmp_path)


def test_an_augmented_training_runs_and_is_measured(tiny, tmp_path):
    tiny |= {"backbone": SONG, "axes": {"width": [8], "n_train": [8]}, "kimg": [0.128]}
    tiny |= {"analyses": ["generalization", "memorization"]}
    tiny["training"] |= {"augment": 0.15, "batch": 64}
    ready = prepared(tiny, tmp_path)
    compute(ready)
    assert (cube_of(ready)["status"] == 2).all()
