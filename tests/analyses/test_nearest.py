import numpy as np
import pytest
import torch

from analyses import memorization, nearest
from tests.analyses.specimens import draw_points, make_subset, wrapped

POINTS = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.2, 0.0]], dtype=torch.float64)


def test_points_of_one_group_are_not_each_others_second():
    """The third point joins no group: it is near the second, which began none."""
    same = nearest.Sameness(distance=0.15)
    points, group, index = nearest.neighbours(POINTS, (1, 1, 2), same)
    assert group.tolist() == [0, 0, 2, 3] and index.tolist() == [0, 1, 2, 3]
    near = nearest.nearest_two(POINTS[:1], points, group)
    assert near.second.tolist() == pytest.approx([0.2])
    alone = nearest.nearest_two(POINTS[:1], points)
    assert alone.second.tolist() == pytest.approx([0.1])


def test_a_mirror_image_is_a_copy_of_its_original():
    subset = make_subset(n=8)
    mirror = nearest.mirrored(subset.train[:1], subset.shape)
    specimen = wrapped(subset, lambda y, sigma: mirror.expand_as(y))
    assert float(memorization.measure(specimen).memorized_fraction) == 0
    found = memorization.measure(wrapped(subset, specimen.denoiser), flips=True)
    assert float(found.memorized_fraction) == 1
    assert set(found.nearest_index.values.tolist()) == {0}


def test_a_brighter_copy_is_the_same_by_correlation():
    subset = make_subset(n=6)
    twin = 1.5 * subset.train[:1] + 0.5
    train = torch.cat([subset.train, twin])
    group = nearest.neighbours(train, subset.shape, nearest.Sameness(correlation=0.999)).group
    assert group[6] == 0 and len(group.unique()) <= 6
    apart = nearest.neighbours(train, subset.shape, nearest.Sameness()).group
    assert len(apart.unique()) == 7


def test_a_symmetric_image_and_its_mirror_count_once():
    image = torch.tensor([[1.0, 2.0, 1.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    found = nearest.neighbours(image, (1, 1, 3), nearest.Sameness(flips=True))
    assert found.group.tolist() == [0, 1, 0, 1]


def repeated(n=60, shape=(3, 2, 4)):
    """Images among which some occur again, as they are, mirrored, or with -0 for 0."""
    points = draw_points(n, d=24).round(decimals=1)
    points[::7] = points[3]
    points[5::11] = nearest.mirrored(points[4:5], shape)
    points[8, :3], points[9] = 0.0, points[8]
    points[9, :3] = -0.0
    return points, shape


def test_distinct_rows_are_those_that_sorting_finds():
    points, shape = repeated()
    _, first = np.unique(points.numpy(), axis=0, return_index=True)
    assert nearest.distinct(points).tolist() == sorted(first)
    images = zip(points.tolist(), nearest.mirrored(points, shape).tolist(), strict=True)
    names = [min(pair) for pair in images]
    expected = [i for i, name in enumerate(names) if name not in names[:i]]
    found = nearest.distinct(points, flips=shape)
    assert found.tolist() == expected and len(found) < len(first) < len(points)


def first_alike(points, mirrors, alike):
    """Of each point the first earlier one that began a group and is alike, or itself."""
    began = []
    for i, point in enumerate(points):
        same = (j for j in began if alike(point, points[j]) or alike(point, mirrors[j]))
        yield (j := next(same, i))
        if j == i:
            began.append(i)


@pytest.mark.parametrize(
    ("option", "value", "alike"),
    [
        ("distance", 3.0, lambda a, b: (a - b).norm() < 3.0),
        ("correlation", 0.5, lambda a, b: torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.5),
        ("distance", 0.0, lambda a, b: False),
    ],
)
def test_neighbours_are_the_distinct_points_and_then_their_mirror_images(
    option, value, alike, monkeypatch
):
    monkeypatch.setattr(nearest, "ROWS", 100)
    points, shape = repeated()
    kept = nearest.distinct(points, flips=shape)
    same = nearest.Sameness(flips=True, **{option: value})
    found = nearest.neighbours(points, shape, same)
    originals, mirrors = found.points.chunk(2)
    assert torch.equal(originals, points[kept])
    assert torch.equal(mirrors, nearest.mirrored(points[kept], shape))
    assert torch.equal(found.index, kept.repeat(2))
    groups = list(first_alike(originals, mirrors, alike))
    assert torch.equal(found.group, kept[groups].repeat(2))
    assert (len(set(groups)) < len(kept)) == (value > 0)


def test_points_with_nothing_to_leave_out_are_not_copied():
    points = draw_points(20)
    assert nearest.neighbours(points, (1, 2, 3), nearest.Sameness()).points is points


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": -1.0}, "`same_distance` must be at least 0, got -1"),
        ({"correlation": 0.0}, r"`same_correlation` must be in \(0, 1\], got 0"),
    ],
)
def test_an_impossible_sameness_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nearest.Sameness(**options)


def test_groups_do_not_depend_on_blocks(monkeypatch):
    points = draw_points(40)
    same = nearest.Sameness(distance=0.8)
    whole = nearest.neighbours(points, (1, 2, 3), same).group
    monkeypatch.setattr(nearest, "ROWS", 200)
    assert torch.equal(nearest.neighbours(points, (1, 2, 3), same).group, whole)
    assert len(whole.unique()) < 40
