"""Weights made of few directions and a gain are the matrices that they stand for."""

import pytest
import torch

from analyses import affine, linear_fit, trajectories, weight_modes
from analyses.affine import affine_fit, design, directions
from analyses.cache import SHARED
from analyses.moments import Moments
from analyses.oracles import GaussianDenoiser
from analyses.specimen import Subset
from analyses.weight import Leading, Whole
from tests.analyses.specimens import draw_points, make_specimen, make_subset, stream, wrapped
from tests.standin import pictures

D, Q, SIGMA = 12, 4, 0.5


def orthonormal(d, k, seed=0):
    return torch.linalg.qr(draw_points(k, d=d, seed=seed).T)[0]


@pytest.fixture
def both():
    """The same map in either form."""
    factor, basis = draw_points(Q, d=D, seed=1).T, orthonormal(D, Q)
    few = Leading(factor, basis, torch.tensor(0.3, dtype=torch.float64))
    rest = torch.eye(D, dtype=torch.float64) - basis @ basis.T
    return few, Whole(factor @ basis.T + 0.3 * rest)


def test_both_forms_are_one_map(both):
    few, whole = both
    y = draw_points(9, d=D, seed=2)
    torch.testing.assert_close(few(y), whole(y))
    torch.testing.assert_close(few.norm(), whole.norm())
    torch.testing.assert_close(few.asymmetry(), whole.asymmetry())


@pytest.mark.parametrize("n", [3, 30])
def test_both_forms_are_as_far_from_a_wiener_filter(both, n):
    oracle = GaussianDenoiser(Moments.of_points(draw_points(n, d=D, seed=5)))
    one, other = (each.distance(oracle, SIGMA) for each in both)
    torch.testing.assert_close(one, other)


def test_both_forms_have_the_same_leading_modes(both):
    (few, vectors), (whole, expected) = (each.leading(D) for each in both)
    torch.testing.assert_close(few, whole)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(D, dtype=torch.float64))
    cosines = torch.linalg.svdvals(vectors[:, :3].T @ expected[:, :3])
    torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64))


def test_few_directions_are_fitted_where_pixels_are_many(monkeypatch):
    law = Moments.of_points(draw_points(40, d=D))
    assert directions(law, 80) is None
    monkeypatch.setattr(affine, "MOST", 6)
    assert directions(law, 10**4).shape == (D, 6)
    assert directions(law, 24).shape == (D, 3)  # four rows of a fold for each


@pytest.mark.parametrize("n_points", [40, 7])
def test_a_map_of_the_class_is_found_and_predicted_exactly(both, n_points):
    few, _ = both
    bias = draw_points(1, d=D, seed=8)[0]
    y = draw_points(4 * 40, d=D, seed=9).view(4, 40, D)
    out = few(y.flatten(0, 1)).view_as(y) + bias
    found = affine_fit(design(y, n_points, few.basis), y, out)
    torch.testing.assert_close(found.weight.factor, few.factor)
    torch.testing.assert_close(found.weight.gain, few.gain)
    torch.testing.assert_close(found.bias, bias)
    torch.testing.assert_close(found.predicted, out[0])
    assert float(found.residual.max()) < 1e-20 and float(found.weight_error) < 1e-9


def test_the_fit_is_least_squares_over_the_class():
    basis = orthonormal(D, Q)
    y = draw_points(160, d=D, seed=3).view(4, 40, D)
    out = torch.tanh(2 * y) + 0.1 * y.flip(-1)
    found = affine_fit(design(y, 40, basis), y, out)

    def error(factor, gain, bias):
        made = Leading(factor, basis, gain)(y.flatten(0, 1)) + bias
        return (made - out.flatten(0, 1)).square().sum()

    best = found.weight.factor.clone(), found.weight.gain.clone(), found.bias.clone()
    for each in best:
        each.requires_grad_()
    error(*best).backward()
    scale = float(out.square().sum())
    assert all(float(each.grad.abs().max()) < 1e-9 * scale for each in best)


@pytest.fixture(autouse=True)
def nothing_shared():
    """Designs do not outlast a test: it changes along how many directions they are."""
    SHARED.clear()
    yield
    SHARED.clear()


@pytest.fixture
def narrow(monkeypatch):
    """Fits along at most three of the six directions of the specimens."""
    monkeypatch.setattr(affine, "MOST", 3)


def test_a_wiener_filter_within_the_directions_is_at_no_distance(narrow):
    """T3, where the law's variance lies along the directions that are fitted."""
    specimen = make_specimen("gaussian", n=4, sigmas=(SIGMA,))
    cells = linear_fit.measure(specimen, draws=16, laws=("train",)).sel(inputs="train").squeeze()
    assert float(cells.weight_distance) < 1e-7
    assert float(cells.affine_r2) == pytest.approx(1, abs=1e-12)
    assert float(cells.subspace_overlap) == pytest.approx(1)


def bent(y, sigma=0.5):
    return torch.tanh(2 * y) + 0.1 * y.flip(-1)


def test_the_variance_explained_rises_with_the_directions_to_that_of_all_maps():
    y = draw_points(4 * 800, d=D, seed=3).view(4, 800, D)
    out = torch.tanh(y @ draw_points(D, d=D, seed=4) / D**0.5)
    shares = []
    for q in (1, 4, 8, D, None):
        basis = None if q is None else orthonormal(D, D)[:, :q]
        found = affine_fit(design(y, 800, basis), y, out)
        shares.append(1 - float(found.residual.sum() / found.variance.sum()))
    *rising, last = shares
    assert rising == sorted(rising) and rising[0] < 0.5 < 0.7 < rising[-1]
    assert rising[-1] == pytest.approx(last, abs=1e-3)


def smooth(side=16, n=600):
    """Points and a law of smooth random images."""
    images = torch.from_numpy(pictures(2 * n, side, side, seed=0)[..., 0] / 127.5 - 1).flatten(1)
    law, heldout = images.chunk(2)
    train = law[:200]
    return Subset(train, heldout, Moments.of_points(law), (0.2, 5.0), (1, side, side), stream)


@pytest.mark.parametrize("kind", ["gaussian", "rolled", "empirical"])
def test_a_fit_along_few_directions_is_as_near_to_the_whole_one_as_is_stated(kind, monkeypatch):
    subset, laws = smooth(), ["heldout", "noise"]
    wiener, found = subset.gaussian_pool, {}
    denoiser = {
        "gaussian": wiener,
        "rolled": lambda y, sigma: wiener(y, sigma) + y.roll(3, 1) / 4,
        "empirical": subset.empirical,
    }[kind]
    for most in (64, 128, 1024):
        monkeypatch.setattr(affine, "MOST", most)
        SHARED.clear()
        made = linear_fit.measure(wrapped(subset, denoiser), draws=6, laws=laws)
        found[most] = made.sel(inputs=laws)
    whole = found.pop(1024)
    assert (whole.weight_distance_bound == 0).all()
    for few in found.values():
        apart = abs(few.weight_distance - whole.weight_distance)
        error = 3 * (few.weight_distance_se + whole.weight_distance_se)
        assert (apart <= few.weight_distance_bound + error).all()
        if kind != "empirical":  # of which the whole fit explains less: it has too few rows
            assert (few.affine_r2 <= whole.affine_r2 + 1e-9).all()
        if kind == "rolled":  # it moves what no leading direction sees
            assert (apart > 0.3 * few.weight_distance_bound).sel(sigma=5.0).all()


def test_a_map_of_what_is_left_out_lies_at_the_bound():
    basis, rest = orthonormal(D, D)[:, :Q], orthonormal(D, D)[:, Q:]
    best = rest * torch.linspace(2, -2, D - Q).double() @ rest.T
    y = torch.randn(4, 400, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fit = affine_fit(design(y, 400, basis), y, y @ best.T)
    apart = (fit.weight(torch.eye(D).double()).T - best).norm()
    assert float(apart / affine.distance_to_best(fit, 1.0)) == pytest.approx(1, abs=0.1)


def test_a_fit_along_few_directions_states_no_bound_on_paths(narrow):
    specimen = make_specimen("empirical", sigmas=(SIGMA,))
    bound = linear_fit.measure(specimen, draws=4).weight_distance_bound
    assert bound.sel(inputs="path").isnull().all()
    assert (bound.sel(inputs=["train", "heldout", "noise"]) > 0).all()


def test_every_analysis_that_uses_the_fit_takes_either_form(narrow):
    specimen = wrapped(make_subset(), bent)
    modes = weight_modes.measure(specimen, draws=16)
    assert modes.weight_singular_value.notnull().all()
    paths = trajectories.measure(specimen, draws=16)
    assert all(v.notnull().any() for v in paths.data_vars.values())
