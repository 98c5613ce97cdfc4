import pytest
import torch

from analyses.moments import Moments
from tests.analyses.specimens import draw_points


@pytest.mark.parametrize("n", [2, 6, 7, 50])
def test_the_moments_are_those_of_the_points(n):
    points = draw_points(n)
    moments = Moments.of_points(points)
    torch.testing.assert_close(moments.mean, points.mean(0))
    torch.testing.assert_close(moments.cov, torch.cov(points.T, correction=0))
    eye = torch.eye(moments.rank, dtype=torch.float64)
    torch.testing.assert_close(moments.basis.T @ moments.basis, eye)
    assert (moments.eigenvalues.diff() <= 0).all() and (moments.eigenvalues > 0).all()


def test_a_known_covariance_gives_the_moments_of_its_points():
    points = draw_points(50)
    known = Moments.of_covariance(points.mean(0), torch.cov(points.T, correction=0))
    torch.testing.assert_close(known.cov, Moments.of_points(points).cov)


def test_float32_points_do_not_leak_into_the_null_space():
    few = draw_points(30, d=100).float()
    assert Moments.of_points(few).rank == 29


def test_points_that_are_all_the_same_have_no_direction():
    assert Moments.of_points(torch.full((4, 6), 0.1, dtype=torch.float64)).rank == 0


def test_the_digest_follows_the_content():
    a, b = Moments.of_points(draw_points(50)), Moments.of_points(draw_points(50, seed=3))
    assert a.digest == Moments.of_points(draw_points(50)).digest != b.digest
