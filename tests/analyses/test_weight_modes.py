import pytest
import torch

from analyses import linear_fit, weight_modes
from analyses.weight import Whole
from analyses.weight_modes import Modes, principal_cosines
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def orthonormal(d, k, seed=0):
    return torch.linalg.qr(draw_points(d, d, seed))[0][:, :k]


@pytest.mark.parametrize("n", [4, 10, 40])
def test_a_gaussian_denoiser_has_the_modes_of_the_wiener_filter(n):
    """T12: singular values lam / (lam + sigma^2), vectors on the principal axes."""
    specimen = make_specimen("gaussian", n=n)
    found = weight_modes.measure(specimen, draws=4)
    lam = specimen.moments.eigenvalues
    for sigma in specimen.sigmas:
        at = found.sel(sigma=sigma)
        values = at.weight_singular_value.values
        assert values[: len(lam)] == pytest.approx((lam / (lam + sigma**2)).numpy(), abs=1e-9)
        assert values[len(lam) :] == pytest.approx(0, abs=1e-9)
        for name in ("singular_vector_cosine", "principal_cosine"):
            assert at[name].values[: len(lam)] == pytest.approx(1, abs=1e-8)
            assert at[name][len(lam) :].isnull().all()
        matrix = torch.from_numpy(at.singular_correlation.values)[: len(lam), : len(lam)]
        torch.testing.assert_close(matrix, torch.eye(len(lam)), atol=1e-5, rtol=0)


def test_the_modes_are_free_of_signs():
    subset = make_subset()
    weight = -subset.gaussian.weight(0.5)
    found = weight_modes.measure(wrapped(subset, lambda y, sigma: y @ weight), draws=4)
    at = found.sel(sigma=0.5)
    assert at.singular_vector_cosine.values == pytest.approx(1, abs=1e-8)
    assert float(at.singular_correlation.min()) >= 0


def test_a_rotated_filter_keeps_its_values_and_loses_its_axes():
    """R W_G has the singular values of W_G and the left vectors R u_k."""
    subset = make_subset()
    turn = orthonormal(6, 6, seed=3)
    weight = turn @ subset.gaussian.weight(0.5)
    found = weight_modes.measure(wrapped(subset, lambda y, sigma: y @ weight.T), draws=4)
    at, lam = found.sel(sigma=0.5), subset.moments.eigenvalues
    assert at.weight_singular_value.values == pytest.approx((lam / (lam + 0.25)).numpy(), abs=1e-9)
    axes = subset.moments.basis
    expected = ((turn @ axes).T @ axes).abs()
    correlation = torch.from_numpy(at.singular_correlation.values).double()
    torch.testing.assert_close(correlation, expected, atol=1e-6, rtol=0)
    assert at.singular_vector_cosine.values == pytest.approx(expected.diagonal().numpy(), abs=1e-8)


def test_principal_angles_do_not_see_a_rotation_within_the_span():
    basis = orthonormal(6, 3)
    assert principal_cosines(basis @ orthonormal(3, 3), basis).tolist() == pytest.approx([1] * 3)


def test_principal_angles_of_spans_that_share_one_direction():
    basis = torch.eye(6, dtype=torch.float64)
    turned = torch.stack([basis[0], (basis[1] + basis[2]) / 2**0.5], 1)
    assert principal_cosines(turned, basis[:, :2]).tolist() == pytest.approx([1, 0.5**0.5])


def test_singular_modes_come_largest_first():
    u, v = orthonormal(6, 6, seed=1), orthonormal(6, 6, seed=2)
    sizes = torch.tensor([1.0, 5.0, 2.0, 0.1, 3.0, 4.0], dtype=torch.float64)
    found = Modes(*Whole(u * sizes @ v.T).leading(3))
    assert found.values.tolist() == pytest.approx([5, 4, 3])
    assert (found.vectors * u[:, [1, 5, 4]]).sum(0).abs().tolist() == pytest.approx([1] * 3)


def test_the_mean_square_of_the_principal_cosines_is_the_overlap_of_the_linear_fit():
    specimen = make_specimen("empirical")
    overlap = linear_fit.measure(specimen, draws=4, modes=3).subspace_overlap
    cosines = weight_modes.measure(specimen, draws=4, matrix=3).principal_cosine
    mean = (cosines**2).mean("mode").values
    assert mean == pytest.approx(overlap.sel(inputs="heldout").values, abs=1e-9)


def test_the_fit_is_shared_with_the_linear_fit():
    specimen = make_specimen("empirical")
    linear_fit.measure(specimen, draws=4)
    known = dict(specimen.memo)
    weight_modes.measure(specimen, draws=4)
    assert specimen.memo == known


def test_fewer_modes_are_the_first_of_more():
    specimen = make_specimen("empirical")
    few = weight_modes.measure(specimen, draws=4, modes=2, matrix=5)
    many = weight_modes.measure(specimen, draws=4)
    assert few.sizes["mode"] == few.sizes["fit_mode"] == few.sizes["wiener_mode"] == 2
    first = many.weight_singular_value.isel(mode=slice(2))
    assert (few.weight_singular_value.values == first.values).all()


@pytest.mark.parametrize("options", [{"modes": 0}, {"matrix": 0}])
def test_no_modes_are_refused(options):
    with pytest.raises(ValueError, match="`modes` and `matrix` must be at least 1"):
        weight_modes.measure(make_specimen("gaussian"), draws=2, **options)
