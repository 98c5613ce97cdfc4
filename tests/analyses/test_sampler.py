import pytest

from analyses.sampler import edm_grid, sample
from tests.analyses.specimens import draw_points


@pytest.mark.parametrize("steps", [2, 5, 18])
def test_the_grid_falls_from_the_largest_to_the_smallest_noise(steps):
    grid = edm_grid(steps, 0.01, 50.0)
    assert list(grid) == sorted(grid, reverse=True) and len(grid) == steps
    assert (grid[0], grid[-1]) == pytest.approx((50.0, 0.01))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edm_grid(0), "`steps` must be at least 1, got 0"),
        (lambda: edm_grid(4, 2.0, 1.0), "needs 0 < sigma_min < sigma_max, got 2.0 and 1.0"),
        (
            lambda: sample(lambda y, sigma: y, draw_points(2), 4, "rk4"),
            "unknown solver 'rk4', choose from heun, euler",
        ),
    ],
)
def test_a_bad_request_says_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()
