import pytest
import torch

from analyses import teleportation
from analyses.evaluations import Size
from analyses.sampler import Sampler, edm_grid
from tests.analyses.specimens import make_specimen, make_subset, wrapped


@pytest.mark.parametrize("steps", [2, 3, 18, 40])
@pytest.mark.parametrize("skips", [1, 2, 6, 50])
def test_positions_are_distinct_and_leave_out_the_first_level(steps, skips):
    at = teleportation.positions(steps, skips)
    assert at == sorted(set(at)) and len(at) <= min(skips, steps - 1)
    assert at[0] == 1 and at[-1] <= steps - 1
    if skips >= steps - 1:
        assert at == list(range(1, steps))


def test_a_gaussian_denoiser_errs_only_as_its_sampler_does():
    """Twice the steps, a quarter of the error: the jump itself is exact."""
    error = {}
    for steps in (40, 80):
        specimen = make_specimen("gaussian", steps=steps)
        error[steps] = teleportation.measure(specimen, skips=1).teleport_rmse.item()
        y = specimen.gaussian.flow(80 * specimen.latents(20), 80.0, 0.0)
        full = (specimen.samples() - y).square().mean().sqrt()
        assert error[steps] < 1.5 * float(full)
    assert 0 < error[80] < error[40] < 0.05
    # Position 1 of either grid is another level; at a common level the order shows.
    ends = {}
    for steps, position in ((20, 9), (39, 18)):
        specimen = make_specimen("gaussian", steps=steps)
        start = teleportation.teleport(specimen, specimen.latents(20), position)
        ends[steps] = (start - specimen.samples()).square().mean().sqrt()
        assert edm_grid(steps)[position] == pytest.approx(edm_grid(20)[9])
    assert float(ends[20] / ends[39]) == pytest.approx((38 / 19) ** 2, rel=0.25)


def test_the_error_of_a_gaussian_denoiser_is_the_sampler_error_above_the_skip():
    specimen = make_specimen("gaussian", steps=18)
    result = teleportation.measure(specimen, samples=20)
    z, x = specimen.latents(20), specimen.samples()
    exact = specimen.gaussian.flow(80 * z, 80.0, 0.0)
    all_of_it = (x - exact).square().mean().sqrt()
    # Started at the last level nothing is left to the sampler but its last step.
    assert result.teleport_rmse.values[-1] == pytest.approx(float(all_of_it), rel=0.01)


def test_a_memorizing_denoiser_follows_the_gaussian_only_at_large_noise():
    specimen = make_specimen("empirical", n=30, samples=64)
    error = teleportation.measure(specimen).teleport_rmse
    assert float(error[0]) < 0.1 * float(error[-1])
    assert float(error[-1]) > 0.1
    last = teleportation.teleport(specimen, specimen.latents(64), 17)
    assert float((last - specimen.samples()).square().mean().sqrt()) == pytest.approx(
        float(error[-1])
    )


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_what_is_saved_is_what_is_not_evaluated(solver):
    rows = []
    subset = make_subset()
    subset.sampler = Sampler(20, 12, solver)

    def counting(y, sigma):
        rows.append(len(y))
        return y / (1 + sigma)

    specimen = wrapped(subset, counting)
    specimen.samples()
    full = sum(rows)
    result = teleportation.measure(specimen, skips=3, samples=20)
    spent = 3 * full - 20 * int(result.teleport_evaluations_saved.sum())
    assert sum(rows) - full == spent
    announced = teleportation.rows(Size(6, 24, 3, subset.sampler), skips=3, samples=20)
    assert sum(announced.values()) == sum(rows)


def test_the_levels_are_those_of_the_samplers_grid():
    result = teleportation.measure(make_specimen("gaussian", steps=8), skips=3)
    grid = edm_grid(8)
    assert result.skip_sigma.values.tolist() == [grid[1], grid[4], grid[7]]
    assert result.skip_sigma.attrs["units"] == "pixel"


def test_the_first_samples_do_not_depend_on_how_many_are_compared():
    """Of the sampler's samples, not of new ones."""
    specimen = wrapped(make_subset(samples=30), lambda y, sigma: torch.tanh(y) / (1 + sigma))
    result = teleportation.measure(specimen, skips=1, samples=10)
    jumped = teleportation.teleport(specimen, specimen.latents(10), 1)
    expected = (jumped - specimen.samples()[:10]).square().mean().sqrt()
    assert result.teleport_rmse.item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skips": 0}, "`skips` must be at least 1, got 0"),
        ({"samples": 1}, "`samples` must be at least 2, got 1"),
    ],
)
def test_a_bad_option_says_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        teleportation.measure(make_specimen("gaussian"), **options)
