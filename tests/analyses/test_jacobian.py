import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from analyses import generalization, jacobian
from analyses.differential import (
    asymmetry_probed,
    effective_rank,
    hutchinson,
    left_vectors,
    patches,
    sensitivity_sides,
    signs,
)
from analyses.differential import jacobian as whole_of
from analyses.krylov import leading_modes, sines
from analyses.labels import STEPS
from analyses.moments import Moments
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import (
    SIGMAS,
    draw_points,
    make_specimen,
    make_subset,
    stream,
    wrapped,
)

SIDES = [f"sensitivity_side_{share}" for share in (50, 75, 95)]


def network(d=6, attention=False):
    """A float32 network with none of the symmetries of a posterior mean."""
    torch.manual_seed(0)
    first, second = nn.Linear(d, 32), nn.Linear(32, d)

    def denoiser(y, sigma):
        h = first(y.float())
        if attention:
            q = h.view(len(y), 1, 4, 8)
            h = F.scaled_dot_product_attention(q, q, q).flatten(1)
        return 0.7 * y + second(F.silu(h)).double()

    return denoiser


def linear(matrix):
    return lambda y, sigma: y @ matrix.T + 0.3


def large(oracle="gaussian", m=400, **options):
    return make_specimen(oracle, m=m, **options)


def whole(specimen, sigma, n=5):
    y = specimen.inputs("heldout", sigma)[1][0, :n]
    return y, *whole_of(specimen.linearize, y, sigma)


def within(value, error, expected, width=4):
    assert (abs(value - expected) < width * error).all(), (value, error, expected)


# --- derivatives ---


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_jacobian_of_the_wiener_filter_is_its_weight(sigma):
    """T20."""
    specimen = make_specimen("gaussian")
    y, out, found = whole(specimen, sigma)
    torch.testing.assert_close(out, specimen.gaussian(y, sigma))
    weight = specimen.gaussian.weight(sigma).expand_as(found)
    torch.testing.assert_close(found, weight, atol=1e-12, rtol=0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_jacobian_of_the_empirical_denoiser_is_the_posterior_covariance(sigma):
    """T20: symmetric and positive semidefinite as well."""
    specimen = make_specimen("empirical")
    y, out, found = whole(specimen, sigma)
    weights = (-torch.cdist(y, specimen.train).square() / (2 * sigma**2)).softmax(1)
    apart = specimen.train - out[:, None]
    covariance = torch.einsum("pn,pni,pnj->pij", weights, apart, apart)
    torch.testing.assert_close(found, covariance / sigma**2, atol=1e-10, rtol=1e-10)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12


@pytest.mark.parametrize("attention", [False, True])
def test_derivatives_are_those_of_finite_differences(attention):
    """Through casts to float32 and back, and through attention."""
    specimen = wrapped(make_subset(), network(attention=attention))
    y, v = draw_points(9), draw_points(9, seed=5)
    out, along = specimen.linearize(y, v, 0.5)
    torch.testing.assert_close(out, specimen.apply(y, 0.5), atol=1e-6, rtol=0)
    step = 1e-2
    ahead, behind = specimen.apply(y + step * v, 0.5), specimen.apply(y - step * v, 0.5)
    torch.testing.assert_close(along, (ahead - behind) / (2 * step), atol=1e-3, rtol=1e-3)
    assert float(along.abs().max()) > 0.1
    assert not along.requires_grad and not out.requires_grad


def test_row_i_column_j_is_the_derivative_of_output_i_by_input_j():
    matrix = draw_points(6, seed=3)
    found = whole(wrapped(make_subset(), linear(matrix)), 0.5)[2]
    torch.testing.assert_close(found, matrix.expand_as(found))


def test_hutchinson_agrees_with_the_exact_trace_within_its_error():
    specimen = make_specimen("empirical")
    y, _, exact = whole(specimen, 0.5)
    probes = 4000
    v = signs(stream("signs"), probes, 6)
    for point, matrix in zip(y, exact, strict=True):
        found = hutchinson(specimen.linearize, point.expand(probes, 6), v, 0.5)[1]
        symmetric = matrix + matrix.T
        variance = (symmetric.square().sum() - symmetric.diagonal().square().sum()) / 2
        assert float(found.var()) == pytest.approx(float(variance), rel=0.2)
        within(found.mean(), (variance / probes).sqrt(), matrix.trace())


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8, 9])
def test_a_linearisation_never_calls_with_a_single_row(n):
    sizes = []

    def denoiser(y, sigma):
        sizes.append(len(y))
        return 2 * y

    y, v = draw_points(n), draw_points(n, seed=3)
    out, along = wrapped(make_subset(), denoiser, eval_batch=4).linearize(y, v, 0.5)
    assert min(sizes) > 1 and sum(sizes) == n and max(sizes) <= 5
    assert torch.equal(out, 2 * y) and torch.equal(along, 2 * v)


@pytest.mark.parametrize(
    "denoiser", [lambda y, s: y.detach(), torch.inference_mode()(lambda y, s: 2 * y)]
)
def test_a_denoiser_that_hides_its_derivative_is_an_error_and_not_zero(denoiser):
    with pytest.raises(RuntimeError, match="no derivative by its input"):
        jacobian.measure(wrapped(make_subset(), denoiser))


def test_a_derivative_that_is_not_finite_is_an_error():
    specimen = wrapped(make_subset(), lambda y, sigma: y.sign() * y.abs().sqrt() * 1e200 * 1e200)
    with pytest.raises(FloatingPointError, match=r"not finite at sigma 0\.1"):
        jacobian.measure(specimen)


def test_the_transpose_is_that_of_the_jacobian():
    specimen = wrapped(make_subset(), network(attention=True))
    y, _, found = whole(specimen, 0.5)
    u = draw_points(5, seed=8)
    expected = (found.mT @ u[:, :, None])[:, :, 0]
    torch.testing.assert_close(specimen.pull(y, u, 0.5), expected, atol=1e-5, rtol=0)


# --- kernels ---


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_effective_rank_of_a_projection_is_its_rank(rank):
    axes = torch.linalg.qr(draw_points(6, seed=3))[0][:, :rank]
    energy, vectors = left_vectors((axes @ axes.T)[None])
    assert effective_rank(energy).tolist() == [rank]
    inside = vectors[0, :, :rank].T @ axes
    torch.testing.assert_close(torch.linalg.svdvals(inside), torch.ones(rank).double())


def test_the_effective_rank_counts_amplitude_and_zero_has_none():
    energy = torch.tensor([[0.985, 0.015], [0.97, 0.03], [0.0, 0.0]]).double()
    assert effective_rank(energy).tolist() == [1, 2, 0]


def test_left_vectors_are_those_of_the_output():
    matrix = draw_points(6, seed=3)[None]
    energy, vectors = left_vectors(matrix)
    u, s, _ = torch.linalg.svd(matrix)
    torch.testing.assert_close(energy.sqrt(), s)
    cosines = (u.mT @ vectors).diagonal(dim1=1, dim2=2).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (5, 7), (1, 6), (1, 1)])
def test_every_patch_lies_whole_in_the_image_and_holds_its_pixel(h, w):
    sides, masks = patches(h, w)
    assert sides[0] == 1 and sides[-1] == max(h, w) and sides == sorted(set(sides))
    assert masks.diagonal(dim1=1, dim2=2).all()
    for radius, mask in enumerate(masks):
        side = 2 * radius + 1
        assert (mask.sum(1) == min(side, h) * min(side, w)).all()
    assert masks[-1].all()


def test_a_patch_is_centred_inside_and_moved_inwards_at_the_border():
    _, masks = patches(5, 5)
    held = [masks[1, i].view(5, 5).nonzero().tolist() for i in (0, 12)]
    for start, found in zip((0, 1), held, strict=True):
        rows = range(start, start + 3)
        assert found == [[i, j] for i in rows for j in rows]


def image_specimen(denoiser, c=1, side=8):
    d = c * side * side
    points = draw_points(12, d)
    pool = Moments.of_points(points)

    def on_images(y, sigma):
        return denoiser(y.view(-1, c, side, side)).flatten(1)

    shape = (c, side, side)
    return Specimen(points, points, pool, (0.5,), shape, stream, denoiser=on_images)


def blur(images):
    return F.conv2d(images, torch.ones(1, 1, 3, 3).double(), padding=1)


@pytest.mark.parametrize(
    ("denoiser", "c", "sides"),
    [
        (lambda y: 0.4 * y, 1, [1, 1, 1]),
        (lambda y: y.flip(1), 3, [1, 1, 1]),
        (blur, 1, [3, 3, 3]),
        # 25 < 32, 48 <= 49 < 61 of 64 pixels: patches of 7, 7 and the whole image.
        (lambda y: y.mean((2, 3), keepdim=True).expand_as(y), 1, [7, 7, 8]),
    ],
    ids=["scaling", "channels swapped", "3 x 3 blur", "mean"],
)
def test_the_sensitivity_side_is_the_size_of_the_filter(denoiser, c, sides):
    result = jacobian.measure(image_specimen(denoiser, c), points=2, probes=1)
    assert [result[name].item() for name in SIDES] == sides
    assert [result[f"{name}_se"].item() for name in SIDES] == [0, 0, 0]


def test_pixels_without_sensitivity_are_left_out_of_the_side():
    half = torch.zeros(8, 8).double()
    half[:4] = 1
    result = jacobian.measure(image_specimen(lambda y: half * y), points=2, probes=1)
    assert result.sensitivity_side_95.item() == 1
    nothing = jacobian.measure(image_specimen(lambda y: 0 * y), points=2, probes=1)
    assert nothing.sensitivity_side_95.isnull().all() and nothing.jacobian_rank.item() == 0
    assert nothing.jacobian_mode_overlap.isnull().all()
    for depth in (1, 3):
        options = {"points": 2, "probes": 1, "full": 0, "depth": depth}
        sought = jacobian.measure(image_specimen(lambda y: 0 * y), **options)
        for name in ("mode_overlap", "subspace_overlap", "asymmetry"):
            assert sought[f"jacobian_{name}"].isnull().all()


def test_rounding_is_no_sensitivity():
    local = torch.eye(64).double()
    local[5] = 1e-9 * draw_points(64, 1)[:, 0]
    assert sensitivity_sides(local[None], (1, 8, 8), (50, 75, 95)).tolist() == [[1.0]] * 3


def test_the_residual_is_that_of_the_definition_without_the_energy_of_the_noise():
    x, eps, out = (draw_points(30, seed=seed) for seed in range(3))
    y, traces = x + 0.7 * eps, out[:, 0]
    estimate, residual = jacobian.sure(x, y, out, traces, 0.7)
    energy = 0.7**2 * (eps.square().mean(1) - 1)
    loss = (out - x).square().mean(1)
    torch.testing.assert_close(residual, loss - estimate + energy)


# --- measures ---


@pytest.mark.parametrize(
    ("matrix", "asymmetry", "least"),
    [
        (torch.diag(torch.tensor([2.0, 1, 1, 1, 1, -0.5])), 0, -0.5),
        (torch.eye(6).roll(1, 0) - torch.eye(6).roll(-1, 0), 2, 0),
    ],
    ids=["symmetric", "antisymmetric"],
)
def test_symmetry_and_least_eigenvalue_of_a_linear_map(matrix, asymmetry, least):
    result = jacobian.measure(wrapped(make_subset(), linear(matrix.double())))
    assert result.jacobian_asymmetry.values == pytest.approx(asymmetry, abs=1e-12)
    assert result.jacobian_least_eigenvalue.values == pytest.approx(least, abs=1e-12)
    assert result.jacobian_trace.values == pytest.approx(float(matrix.trace()), abs=1e-12)


def test_the_wiener_filter_has_the_trace_rank_and_modes_of_its_reference():
    specimen = make_specimen("gaussian")
    result, reference = jacobian.measure(specimen), jacobian.reference(specimen)
    for name in ("jacobian_trace", "jacobian_rank"):
        assert result[name].values == pytest.approx(reference[f"{name}_gaussian"].values)
        assert result[f"{name}_se"].values == pytest.approx(0, abs=1e-12)
    assert result.jacobian_mode_overlap.values == pytest.approx(1, abs=1e-6)
    assert result.jacobian_subspace_overlap.values == pytest.approx(1, abs=1e-10)
    assert (result.jacobian_least_eigenvalue > 0).all()


def test_the_empirical_denoiser_has_the_trace_of_its_reference():
    specimen = make_specimen("empirical")
    result, reference = jacobian.measure(specimen), jacobian.reference(specimen)
    for tail in ("", "_se"):
        expected = reference[f"jacobian_trace_empirical{tail}"].values
        found = result[f"jacobian_trace{tail}"].values
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert result.jacobian_asymmetry.values == pytest.approx(0, abs=1e-9)


def test_only_as_many_modes_are_compared_as_the_training_points_have():
    result = jacobian.measure(make_specimen("gaussian", n=4))
    assert result.jacobian_mode_overlap.sizes["mode"] == 6
    known = [True] * 3 + [False] * 3
    for name in ("jacobian_mode_overlap", "jacobian_mode_overlap_se"):
        assert result[name].notnull().values.tolist() == [known] * len(SIGMAS)


@pytest.mark.parametrize("oracle", ["gaussian", "empirical", "network"])
def test_the_loss_by_sure_is_the_loss(oracle):
    """T20, on the held-out law, where neither oracle is the optimum."""
    specimen = large("gaussian" if oracle == "network" else oracle)
    if oracle == "network":
        specimen = wrapped(specimen, network())
    result = jacobian.measure(specimen, points=25)
    within(result.sure_residual.values, result.sure_residual_se.values, 0)
    loss = generalization.measure(specimen)
    error = (result.sure_loss_se**2 + loss.heldout_loss_se**2) ** 0.5
    within(result.sure_loss.values, error.values, loss.heldout_loss.values)
    # The term of the trace is far larger than the error of the comparison.
    term = 2 * result.sigma**2 * result.jacobian_trace_hutchinson / 6
    assert (abs(term) > 4 * result.sure_residual_se)[1:].all()


def test_at_the_optimum_the_loss_is_the_noise_variance_times_the_trace():
    """T23: the training points are the law, and D_M its posterior mean."""
    subset = make_subset()
    law = (subset.train, subset.train.repeat(60, 1), subset.pool, SIGMAS, (1, 2, 3), stream)
    specimen = Specimen(*law, denoiser=subset.empirical)
    result = jacobian.measure(specimen, points=40)
    loss = generalization.measure(specimen)
    trace, se = result.jacobian_trace_hutchinson, result.jacobian_trace_hutchinson_se
    error = ((loss.heldout_loss_se * 6) ** 2 + (se * se.sigma**2) ** 2) ** 0.5
    within(loss.heldout_loss.values * 6, error.values, (trace * trace.sigma**2).values)
    assert (error < 0.2 * loss.heldout_loss * 6).sel(sigma=[0.5, 2.0]).all()


def test_both_traces_agree_within_their_errors():
    result = jacobian.measure(large("empirical"), points=200, probes=2)
    error = (result.jacobian_trace_se**2 + result.jacobian_trace_hutchinson_se**2) ** 0.5
    within(result.jacobian_trace.values, error.values, result.jacobian_trace_hutchinson.values)


# --- images that are too large for the whole Jacobian ---

PROBED = ("jacobian_trace_hutchinson", "sure_loss", "sure_residual")
SEARCHED = {"jacobian_asymmetry", "jacobian_subspace_overlap", "jacobian_mode_overlap"}


@pytest.fixture
def few(monkeypatch):
    """Four directions a block, so that a few blocks are not the whole space."""
    monkeypatch.setattr(jacobian, "BLOCK", 4)


def steep(denoiser=None, d=64, n=100, sigmas=(0.5,)):
    """Points whose variances fall as k^-2 from 4, on other axes than the pixels."""
    scales = 2 * torch.arange(1, d + 1).double() ** -1.0
    turn = torch.linalg.qr(draw_points(d, d, seed=6))[0]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2 * n, d, generator=generator).double() * scales @ turn
    train, heldout = points.chunk(2)
    moments = Moments.of_points(points)
    subset = Subset(train, heldout, moments, sigmas, (1, 8, d // 8), stream)
    return wrapped(subset, denoiser or subset.gaussian)


def both_ways(specimen, depth=8):
    """The whole Jacobian, and what few directions say of it."""
    return jacobian.measure(specimen), jacobian.measure(specimen, full=0, depth=depth)


def test_what_a_large_image_lacks_is_missing_and_the_probes_are_the_same():
    small, big = both_ways(make_specimen("empirical"))
    assert big.sizes == small.sizes and set(big) == set(small)
    for name in PROBED:
        for variable in (name, f"{name}_se"):
            xr.testing.assert_identical(big[variable], small[variable])
    known = {name for name, variable in big.items() if variable.notnull().any()}
    expected = {f"{name}{tail}" for name in (*PROBED, *SEARCHED) for tail in ("", "_se")}
    assert known == expected | {"jacobian_mode_error", "jacobian_perturbation"}


def test_a_denoiser_without_derivatives_backwards_has_its_trace_if_that_is_all_one_wants():
    one_way = make_specimen("empirical")
    forward = wrapped(one_way, torch.no_grad()(one_way.denoiser))
    alone = jacobian.measure(forward, full=0, trace_only=True)
    known = {name for name, variable in alone.items() if variable.notnull().any()}
    assert known == {f"{name}{tail}" for name in PROBED for tail in ("", "_se")}
    with pytest.raises(RuntimeError, match="no derivative backwards"):
        jacobian.measure(forward, full=0)


@pytest.mark.parametrize(
    "denoiser", [lambda y, s: y.detach(), lambda y, s: y.detach() + torch.ones(6).requires_grad_()]
)
def test_a_denoiser_that_hides_its_derivative_backwards_is_an_error_and_not_zero(denoiser):
    specimen = wrapped(make_subset(), denoiser)
    with pytest.raises(RuntimeError, match="no derivative backwards"):
        specimen.pull(draw_points(4), draw_points(4), 0.5)


def test_a_large_derivative_that_is_not_finite_is_an_error():
    specimen = wrapped(make_subset(), lambda y, sigma: y.sign() * y.abs().sqrt() * 1e200 * 1e200)
    with pytest.raises(FloatingPointError, match=r"not finite at sigma 0\.1"):
        jacobian.measure(specimen, full=0)


def test_few_directions_find_the_modes_of_the_wiener_filter(few):
    """J = W_G: symmetric, on the principal axes."""
    whole, found = both_ways(steep())
    assert found.jacobian_asymmetry.item() == pytest.approx(0, abs=1e-10)
    assert found.jacobian_subspace_overlap.item() == pytest.approx(1, abs=1e-3)
    overlap, error = (
        found[f"jacobian_mode_{name}"][0, :10].values for name in ("overlap", "error")
    )
    assert (error <= 0.25).all() and (overlap >= (1 - error**2) ** 0.5 - 1e-12).all()
    assert found.jacobian_mode_overlap[0, 10:].isnull().all()
    shown, expected = (each["jacobian_perturbation"].values for each in (found, whole))
    assert shown == pytest.approx(expected, abs=1e-4)


def test_few_directions_find_the_modes_of_the_posterior_covariance(few):
    """J = Cov / sigma^2, another one at each point."""
    whole, found = both_ways(steep(n=100, denoiser=steep().empirical))
    assert found.jacobian_asymmetry.item() == pytest.approx(0, abs=1e-9)
    near = dict(abs=0.02)
    for name in ("jacobian_subspace_overlap", "jacobian_subspace_overlap_se"):
        assert found[name].item() == pytest.approx(whole[name].item(), **near)
    first = (found, whole)
    overlap, expected = (each.jacobian_mode_overlap[0, :3].values for each in first)
    assert overlap == pytest.approx(expected, **near)


def test_the_asymmetry_by_probes_is_that_of_the_whole_within_its_error(few):
    whole, found = both_ways(steep(network(64)), depth=1)
    assert whole.jacobian_asymmetry.item() > 0.1
    expected = whole.jacobian_asymmetry.values
    within(found.jacobian_asymmetry.values, found.jacobian_asymmetry_se.values, expected)


def test_modes_that_cannot_be_told_apart_are_not_given():
    """At small noise all gains of a Wiener filter are nearly 1, and so all singular values."""
    whole, found = both_ways(steep(sigmas=(1e-4,)), depth=2)
    assert whole.jacobian_subspace_overlap.item() == pytest.approx(1)
    assert found.jacobian_subspace_overlap.isnull().all()
    assert found.jacobian_mode_overlap.isnull().all()
    assert found.jacobian_asymmetry.notnull().all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_the_stated_sines_bound_the_angles_to_the_true_modes(seed, depth):
    matrix = torch.linalg.qr(draw_points(60, 60, seed))[0] * torch.arange(1, 61).double() ** -1.0
    matrix = (matrix @ torch.linalg.qr(draw_points(60, 60, seed + 9))[0].T + 0.002)[None]
    start = signs(stream("block", seed), 5, 60).T[None]
    found = leading_modes(lambda v: matrix @ v, lambda u: matrix.mT @ u, matrix @ start, depth, 5)
    error, span = sines(found, 4)
    u = torch.linalg.svd(matrix[0])[0][:, :4]
    cosines = u.T @ found.vectors[0, :, :4]
    apart = (1 - cosines.diagonal().square()).clamp(min=0).sqrt()
    assert (apart <= error[0] + 1e-7).all()
    together = (4 - cosines.square().sum()).clamp(min=0).sqrt()
    assert together <= span[0] + 1e-7
    assert depth < 6 or span[0] < 0.1
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(5).double()[None])


@pytest.mark.parametrize("rank", [1, 3])
def test_a_space_larger_than_the_rank_does_no_harm(rank):
    matrix = draw_points(rank, 20, seed=2).T @ draw_points(rank, 20, seed=3)
    start = signs(stream("block"), 4, 20).T[None]
    found = leading_modes(lambda v: matrix @ v, lambda u: matrix.mT @ u, (matrix @ start), 4, 6)
    s = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(found.energy[0, :6].sqrt(), s[:6], atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(6).double()[None])


def test_the_probed_asymmetry_is_the_ratio_of_norms():
    matrix, probes = draw_points(6, seed=3), 20_000
    v = signs(stream("signs"), probes, 6).T[None]
    found = asymmetry_probed(matrix @ v, matrix.T @ v).item()
    expected = ((matrix - matrix.T).norm() / matrix.norm()).item()
    assert found == pytest.approx(expected, rel=0.02) and expected > 0.5


def test_noise_levels_one_by_one_give_what_they_give_together():
    specimen = make_specimen("empirical")
    for function in (jacobian.measure, jacobian.reference):
        for full in (0, 256):
            alone = [function(specimen.only(sigma), full=full) for sigma in SIGMAS]
            together = function(specimen, full=full)
            xr.testing.assert_identical(xr.concat(alone, "sigma"), together)


@pytest.mark.parametrize("options", [{"points": 1}, {"probes": 0}, {"depth": 0}])
@pytest.mark.parametrize("function", [jacobian.measure, jacobian.reference])
def test_too_few_points_probes_or_blocks_are_an_error(function, options):
    with pytest.raises(ValueError, match="needs `points` >= 2, `probes` >= 1 and `depth` >= 1"):
        function(make_specimen("gaussian"), **options)


def test_perturbations_of_an_affine_denoiser_go_along_its_first_left_singular_vector():
    subset = make_subset()
    matrix = draw_points(6, seed=5)
    specimen = wrapped(subset, lambda y, sigma: y @ matrix.T + 1)
    found = jacobian.measure(specimen)["jacobian_perturbation"]
    u = torch.linalg.svd(matrix)[0][:, 0]
    u = u * u[u.abs().argmax()].sign()
    for sigma in specimen.sigmas:
        y = specimen.inputs("heldout", sigma)[1][0, 0]
        for step in STEPS:
            expected = matrix @ (y + step * sigma * u) + 1
            shown = found.sel(sigma=sigma, step=step).values
            assert shown == pytest.approx(expected.numpy(), abs=1e-5)
