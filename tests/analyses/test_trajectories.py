import pytest
import torch

from analyses import linear_fit, trajectories
from analyses.cache import SHARED
from analyses.evaluations import Size
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser
from analyses.sampler import Sampler, edm_grid
from analyses.specimen import Specimen
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped

GRID = edm_grid(10)
LAM = torch.tensor([100.0, 10, 1, 0.1, 0.01, 0.001], dtype=torch.float64)
SHRINK = (0.816, 0.785, 0.751, 0.712, 0.674, 0.634)


def bent(y, sigma):
    return torch.tanh(y) / (1 + sigma)


def test_ten_euler_steps_shrink_each_mode_by_the_known_factor():
    """T8."""
    gaussian = GaussianDenoiser(
        Moments(torch.zeros(6, dtype=torch.float64), LAM, torch.eye(6, dtype=torch.float64))
    )
    z = draw_points(5)
    end = trajectories.follow(gaussian, z, GRID)[-1]
    exact = gaussian.flow(80 * z, 80.0, 0.0)
    expected = torch.tensor(SHRINK, dtype=torch.float64).expand(5, 6)
    torch.testing.assert_close(end / exact, expected, atol=1e-3, rtol=0)


def test_the_trajectory_of_a_linear_denoiser_is_the_product_of_its_steps():
    sigmas = (4.0, 2.0, 1.0)
    out = trajectories.follow(lambda y, sigma: y / 2, torch.ones(1, 1).double(), sigmas)
    # y: 4, then 4 - 2 * (2 / 4) = 3, then 3 - 1 * (1.5 / 2) = 2.25; D = y / 2.
    assert out.flatten().tolist() == pytest.approx([2, 1.5, 1.125])


def test_the_order_of_the_listed_noise_levels_is_irrelevant():
    specimen = make_specimen("empirical", sigmas=(0.5, 80.0, 0.01, 3.0))
    falling = make_specimen("empirical", sigmas=(80.0, 3.0, 0.5, 0.01))
    one, other = (trajectories.measure(s, draws=4) for s in (specimen, falling))
    assert one.trajectory.sel(sigma=[80.0, 3.0, 0.5, 0.01]).values == pytest.approx(
        other.trajectory.values, abs=1e-9
    )
    assert one.trajectory_distance.values == pytest.approx(
        other.trajectory_distance.values, abs=1e-9
    )


def test_a_gaussian_denoiser_and_its_fit_follow_the_gaussian():
    specimen = make_specimen("gaussian", sigmas=GRID)
    result = trajectories.measure(specimen, draws=4)
    distance = result.trajectory_distance.sel(trajectory_denoiser=["network", "gaussian"])
    assert distance.values == pytest.approx(0, abs=1e-12)
    linear = result.trajectory_distance.sel(trajectory_denoiser="linear")
    assert float(linear) == pytest.approx(0, abs=1e-7)
    network, gaussian = (
        result.trajectory.sel(trajectory_denoiser=name) for name in ("network", "gaussian")
    )
    assert network.equals(gaussian.assign_coords(trajectory_denoiser="network"))
    assert float(result.trajectory_distance.sel(trajectory_denoiser="empirical")) > 0.1


def test_a_memorizing_denoiser_ends_at_training_points_and_its_fit_does_not():
    specimen = make_specimen("empirical", sigmas=GRID)
    result = trajectories.measure(specimen, draws=4)
    assert float(result.trajectory_distance.sel(trajectory_denoiser="empirical")) == 0
    assert float(result.trajectory_distance.sel(trajectory_denoiser="linear")) > 0.05
    end = result.trajectory.sel(trajectory_denoiser="network", sigma=0.002)
    distance = torch.cdist(torch.tensor(end.values).double(), specimen.train).min(1).values
    assert distance == pytest.approx(0, abs=1e-5)


def test_an_untrained_network_is_its_own_fit():
    """T25: D = c_skip y is linear."""
    sd = 0.75
    specimen = wrapped(make_subset(), lambda y, sigma: sd**2 / (sigma**2 + sd**2) * y)
    result = trajectories.measure(specimen, draws=4)
    linear = result.trajectory_distance.sel(trajectory_denoiser="linear")
    assert float(linear) == pytest.approx(0, abs=1e-9)


def counted(subset, draws=4, together=True, **options):
    """Rows the denoiser was given, and the trajectories."""
    rows = []

    def denoiser(y, sigma):
        rows.extend((sigma, *row) for row in y.tolist())
        return bent(y, sigma)

    specimen = wrapped(subset, denoiser)
    names = {"draws": draws, **options}
    if together:
        linear_fit_levels(specimen, draws)
    return rows, trajectories.measure(specimen, **names)


def linear_fit_levels(specimen, draws):
    for sigma in specimen.sigmas:
        linear_fit.measure(specimen.only(sigma), draws=draws)


def test_the_fits_are_those_of_linear_fit_and_nothing_is_evaluated_twice():
    subset = make_subset(sigmas=(80.0, 0.5))
    rows, together = counted(subset)
    assert len(set(rows)) == len(rows)
    # Fits of three laws; the sampler, and its paths at the level off its grid; the second Euler
    # state, for the first is the sampler's own.
    assert len(rows) == 2 * 3 * 4 * 24 + 20 * 35 + 20 + 20
    _, alone = counted(subset, together=False)
    assert together.identical(alone)


@pytest.mark.parametrize(("sigmas", "visited"), [((0.5, 3.0), 0), ((80.0, 0.5), 20)])
def test_no_more_is_evaluated_than_announced(sigmas, visited):
    """Alone, without the fits of another analysis."""
    subset = make_subset(sigmas=sigmas)
    evaluated, _ = counted(subset, together=False)
    announced = trajectories.rows(Size(6, 24, 2, subset.sampler), draws=4)
    assert len(evaluated) == sum(announced.values()) - visited


def test_a_sampler_of_the_same_steps_has_already_drawn_the_trajectories():
    subset = make_subset(sigmas=GRID)
    subset.sampler = Sampler(20, 10, "euler")
    rows, result = counted(subset)
    assert len(set(rows)) == len(rows) == 10 * (3 * 4 * 24 + 20)
    network = result.trajectory.sel(trajectory_denoiser="network", sigma=0.002)
    samples = wrapped(subset, bent).samples()[:4]
    assert network.values == pytest.approx(samples.numpy(), abs=1e-6)


def test_oracles_are_followed_once_per_subset():
    SHARED.clear()
    calls = []

    def counting(y, sigma):
        calls.append(sigma)
        return y / 2

    for scale in (0.1, 0.2):
        specimen = wrapped(make_subset(), lambda y, sigma, s=scale: s * y)
        z = specimen.latents(9)
        trajectories._followed(specimen, "empirical", counting, z)
        trajectories._followed(specimen, "network", specimen.denoiser, z)
    SHARED.clear()
    assert len(calls) == len(specimen.sigmas)


def test_distances_are_counted_over_more_samples_than_are_shown():
    specimen = Specimen.of(make_subset(samples=50), bent)
    result = trajectories.measure(specimen, shown=2, samples=40, draws=4)
    assert result.sizes["shown"] == 2
    ends = {
        name: trajectories.follow(denoise, specimen.latents(40), specimen.sigmas)[0]
        for name, denoise in (("network", bent), ("empirical", specimen.empirical))
    }
    apart = (ends["network"] - ends["empirical"]).square().mean().sqrt()
    found = result.trajectory_distance.sel(trajectory_denoiser="empirical")
    assert float(found) == pytest.approx(float(apart), rel=1e-12)


@pytest.mark.parametrize(("shown", "samples"), [(0, 4), (5, 4)])
def test_more_shown_than_followed_is_refused(shown, samples):
    with pytest.raises(ValueError, match=f"`shown` <= `samples`, got {shown} and {samples}"):
        trajectories.measure(make_specimen("gaussian"), shown=shown, samples=samples)
