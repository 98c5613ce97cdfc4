"""Laws of every analysis of the registry, on denoisers whose answers are known."""

import inspect
import math

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.datasets import load_digits
from torch.autograd import forward_ad

from analyses.cache import SHARED
from analyses.differential import PRODUCT
from analyses.evaluations import Size
from analyses.moments import Moments
from analyses.registry import ANALYSES, measure_all, options_of, reference_all, rows_of
from analyses.sampler import Sampler
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import (
    SIGMAS,
    draw_points,
    make_specimen,
    make_subset,
    stream,
    wrapped,
)

SMALL = {
    "linear_fit": {"draws": 4},
    "gaussian": {"draws": 4},
    "trajectories": {"draws": 4},
}
NO_MEAN = {
    "weight_distance_bound",
    "subspace_overlap",
    "weight_asymmetry",
    "kappa",
    "linearity_dropped",
    "mixing_dropped",
}
NO_MEAN |= {"weight_singular_value", "singular_vector_cosine", "principal_cosine"}
NO_MEAN |= {"singular_correlation", "outputs", "outputs_noise", "trajectory"}
NO_MEAN |= {"jacobian_perturbation", "jacobian_mode_error"}
"""Sigma-resolved numbers that are no means over images or pairs."""
DERIVATIVES = ("jacobian", "lid")
"""Analyses that repeat their inputs by construction, once for every direction."""
EVALUATING = [name for name in ANALYSES if name not in DERIVATIVES]


def small(names):
    return {name: SMALL.get(name, {}) for name in names}


@pytest.fixture(params=ANALYSES)
def name(request):
    return request.param


@pytest.fixture(params=["gaussian", "empirical"])
def specimen(request):
    return make_specimen(request.param)


def both(name, specimen):
    """What an analysis says of a specimen, and what its reference says of the subset."""
    options = small([name])
    return [
        *measure_all(specimen, options).values(),
        *reference_all(specimen, options).values(),
    ]


def test_an_analysis_gives_the_same_numbers_twice(name, specimen):
    first = both(name, specimen)
    SHARED.clear()
    again = Specimen.of(specimen, specimen.denoiser)
    for one, other in zip(first, both(name, again), strict=True):
        xr.testing.assert_identical(one, other)


def test_an_analysis_leaves_its_specimen_unchanged(name, specimen):
    inputs = [specimen.inputs(law, 0.5, 4) for law in ("train", "heldout")]
    arrays = [specimen.train, specimen.heldout, specimen.latents(20), *sum(inputs, ())]
    before = [array.clone() for array in arrays]
    both(name, specimen)
    assert all(map(torch.equal, arrays, before))


def test_every_variable_says_what_it_is(name, specimen):
    for dataset in both(name, specimen):
        for variable in [*dataset.variables.values()]:
            assert variable.attrs["long_name"]
            assert variable.attrs["units"] in ("1", "pixel", "pixel2")


def test_every_mean_that_is_resolved_in_sigma_has_its_standard_error(name, specimen):
    for dataset in both(name, specimen):
        for key, variable in dataset.data_vars.items():
            raw = {"image", "pair"} & set(variable.dims)
            stem = key.removesuffix("_empirical").removesuffix("_gaussian")
            count = variable.dtype.kind == "i"
            if "sigma" not in variable.dims or raw or count or stem in NO_MEAN:
                continue
            if not key.endswith("_se"):
                assert dataset[f"{key}_se"].dims == variable.dims
            else:
                assert float(variable.fillna(0).min()) >= 0


def test_measure_and_reference_take_the_same_options(name):
    reference = ANALYSES[name].reference
    if reference is not None:
        parameters = inspect.signature(reference).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert defaults == options_of(name)


def test_noise_levels_one_by_one_give_what_they_give_together(name, specimen):
    together = ANALYSES[name].measure(specimen, **SMALL.get(name, {}))
    alone = measure_all(Specimen.of(specimen, specimen.denoiser), small([name]))[name]
    xr.testing.assert_identical(together, alone)


def test_company_does_not_change_an_analysis(name, specimen):
    alone = measure_all(Specimen.of(specimen, specimen.denoiser), small([name]))[name]
    together = measure_all(specimen, small(reversed(ANALYSES)))[name]
    xr.testing.assert_identical(together, alone)


def test_the_variables_of_analyses_do_not_collide(specimen):
    seen = set()
    for results in (measure_all, reference_all):
        for dataset in results(specimen, small(ANALYSES)).values():
            names = set(map(str, dataset.data_vars))
            assert not names & seen
            seen |= names


def counted(n, sigmas, names):
    """Rows that the analyses evaluate together on a small specimen, and the size of each call."""
    rows, calls = [], []
    subset = make_subset(n=n, sigmas=sigmas, samples=50)

    def counting(y, sigma):
        calls.append(len(y))
        rows.extend((sigma, *row) for row in y.tolist())
        return subset.gaussian(y, sigma)

    measure_all(wrapped(subset, counting, eval_batch=7), small(names))
    return rows, calls


@pytest.mark.parametrize("n", [6, 10, 24, 30])
def test_no_row_is_ever_evaluated_twice(n):
    """Over every analysis together, at noise levels of the sampler's own grid too."""
    rows, calls = counted(n, (0.002, 0.5, 80.0), EVALUATING)
    assert len(set(rows)) == len(rows)
    assert min(calls) > 1


def test_the_evaluations_that_a_plan_shows_are_those_that_are_made():
    size = Size(6, 24, 3, Sampler(50))
    rows, _ = counted(10, SIGMAS, EVALUATING)
    assert sum(rows_of(size, small(EVALUATING)).values()) == len(rows)


@pytest.mark.parametrize("name", EVALUATING)
def test_an_analysis_alone_makes_the_evaluations_it_declares(name):
    rows, _ = counted(10, SIGMAS, [name])
    declared = rows_of(Size(6, 24, 3, Sampler(50)), small([name]))
    assert declared[name] == len(rows)


@pytest.mark.parametrize(
    ("name", "more"),
    [("jacobian", {"depth": 2}), ("jacobian", {"trace_only": True}), ("lid", {})],
)
@pytest.mark.parametrize("full", [5, 6])
def test_a_derivative_counts_as_the_evaluations_it_costs(name, more, full):
    sizes, costs = [], []
    subset = make_subset()

    def counting(y, sigma):
        sizes.append(len(y))
        derivative = forward_ad.unpack_dual(y).tangent is not None or y.requires_grad
        costs.append(len(y) * (PRODUCT if derivative else 1))
        return subset.gaussian(y, sigma)

    options = {"points": 5, "probes": 3, "full": full, **more}
    ANALYSES[name].measure(wrapped(subset, counting, eval_batch=7), **options)
    size = Size(dim=6, inputs=24, levels=len(SIGMAS), sampler=subset.sampler)
    assert ANALYSES[name].rows(size, **options) == {name: sum(costs)}
    assert min(sizes) > 1


# --- what is known of the two oracles ---


@pytest.fixture(scope="module")
def wiener():
    """D_G of its points under all analyses."""
    specimen = make_specimen("gaussian")
    options = small(ANALYSES)
    return xr.merge(measure_all(specimen, options).values(), compat="no_conflicts")


def test_a_gaussian_denoiser_is_exactly_linear_about_the_mean(wiener):
    assert wiener.linearity_cosine_centred.values == pytest.approx(1, abs=1e-10)
    assert wiener.linearity_nmse_centred.values == pytest.approx(0, abs=1e-10)
    assert (wiener.linearity_dropped == 0).all()


def test_a_gaussian_denoiser_is_not_linear_about_zero(wiener):
    assert float(wiener.linearity_cosine.min()) < 1 - 1e-4


def test_a_gaussian_denoiser_is_its_own_affine_fit(wiener):
    assert wiener.affine_r2.values == pytest.approx(1, abs=1e-10)
    assert wiener.weight_distance.values == pytest.approx(0, abs=1e-8)
    assert wiener.subspace_overlap.values == pytest.approx(1, abs=1e-8)
    assert wiener.weight_asymmetry.values == pytest.approx(0, abs=1e-8)


def test_a_gaussian_denoiser_has_no_distance_to_itself(wiener):
    own = wiener.sel(reference=["gaussian", "linear"])
    assert own.denoiser_rmse.values == pytest.approx(0, abs=1e-8)
    assert own.denoiser_nmse.values == pytest.approx(0, abs=1e-8)
    assert own.score_explained_variance.values == pytest.approx(1, abs=1e-10)
    assert (wiener.denoiser_rmse.sel(reference="empirical", sigma=0.1) > 0.01).all()


def test_an_empirical_denoiser_memorizes_every_sample():
    specimen = make_specimen("empirical", samples=50)
    result = ANALYSES["memorization"].measure(specimen)
    assert float(result.memorized_fraction) == 1
    assert float(result.generalization_score) < 1e-6
    nearest = specimen.train[result.nearest_index.values]
    torch.testing.assert_close(nearest, specimen.samples(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_any_affine_denoiser_is_linear_about_the_mean(scale):
    subset = make_subset()
    matrix = torch.eye(6, dtype=torch.float64) + scale * draw_points(6, seed=5)
    specimen = wrapped(subset, lambda y, sigma: y @ matrix + 3 * scale)
    result = measure_all(specimen, small(["linearity", "linear_fit"]))
    assert result["linearity"].linearity_cosine_centred.values == pytest.approx(1, abs=1e-10)
    # The paths of an arbitrary map run off along one direction: they do not span the space.
    r2 = result["linear_fit"].affine_r2.sel(inputs=["train", "heldout", "noise"])
    assert r2.values == pytest.approx(1, abs=1e-10)


def test_the_affine_fit_of_a_memorizing_denoiser_is_the_wiener_filter_on_its_own_law_only():
    """T4: on the training law the fit of any posterior mean is W_G, however nonlinear it is."""
    result = ANALYSES["linear_fit"].measure(
        make_specimen("empirical", n=30, m=300, sigmas=(0.3,)), draws=64
    )
    distance, error = result.weight_distance[0], result.weight_distance_se[0]
    assert float(distance.sel(inputs="train")) < 1.5 * float(error.sel(inputs="train"))
    assert float(distance.sel(inputs="train")) < 0.02
    assert float(distance.sel(inputs="heldout")) > 0.1
    assert float(result.affine_r2.sel(inputs="train")[0]) < 0.98


def test_one_minus_the_mean_ratio_is_the_integral_of_the_memorized_fraction():
    """T18."""
    specimen = make_specimen("gaussian", samples=200)
    result = ANALYSES["memorization"].measure(specimen)
    ratio = np.sort(result.nearest_ratio.values.astype(float))
    thresholds = np.linspace(0, 1, 100_001)
    share = np.searchsorted(ratio, thresholds) / len(ratio)
    assert float(result.memorization_auc) == pytest.approx(
        np.trapezoid(share, thresholds), abs=1e-4
    )


# --- digits ---

DIGITS = torch.tensor(load_digits().data / 8 - 1)[
    torch.randperm(1797, generator=torch.Generator().manual_seed(0))
]


def digits(n, m=256, sigmas=(0.5,)):
    pool = Moments.of_points(DIGITS[m:])
    return Subset(DIGITS[m : m + n], DIGITS[:m], pool, sigmas, (1, 8, 8), stream)


def copies(n_images, n_copies, noise=0.05):
    chosen = torch.arange(n_copies) % n_images
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(n_copies, 64, generator=generator, dtype=torch.float64)
    return DIGITS[256:][chosen] + noise * z / 8


class Fixed(Specimen):
    """A specimen whose samples are given."""

    def samples(self):
        return copies(256, 200)


@pytest.mark.parametrize("repeats", [1, 2])
def test_copies_are_found_even_where_every_training_image_has_a_duplicate(repeats):
    """T24: without removing duplicates the second nearest point is as near as the first."""
    subset = digits(256)
    train = subset.train.repeat(repeats, 1)
    fixed = (train, subset.heldout, subset.pool, (0.5,), (1, 8, 8), stream)
    result = ANALYSES["memorization"].measure(Fixed(*fixed, denoiser=subset.gaussian))
    assert float(result.memorized_fraction) == 1
    assert result.nearest_index.values.tolist() == list(range(200))


def test_an_untrained_network_is_linear_and_has_copied_nothing():
    """T25: with a zero last layer D = c_skip y."""
    sd = 0.752
    specimen = wrapped(digits(64), lambda y, sigma: sd**2 / (sigma**2 + sd**2) * y)
    linearity = ANALYSES["linearity"].measure(specimen)
    assert linearity.linearity_cosine.values == pytest.approx(1, abs=1e-12)
    assert linearity.linearity_cosine_centred.values == pytest.approx(1, abs=1e-12)
    memorization = ANALYSES["memorization"].measure(specimen)
    assert float(memorization.memorized_fraction) == 0


@pytest.mark.parametrize(("n", "ratio"), [(16, 0.886), (64, 0.887), (256, 0.905)])
def test_held_out_digits_are_rarely_called_memorized(n, ratio):
    null = ANALYSES["memorization"].reference(digits(n, m=512))
    assert float(null.memorized_fraction_null) < 0.01
    assert float(null.memorized_fraction_null_gaussian) < 0.05
    assert float(null.nearest_ratio_null.median()) == pytest.approx(ratio, abs=0.03)


def test_training_images_are_all_called_memorized():
    subset = digits(64)
    as_heldout = Subset(subset.train, subset.train, subset.pool, (0.5,), (1, 8, 8), stream)
    null = ANALYSES["memorization"].reference(as_heldout)
    assert float(null.memorized_fraction_null) == 1
    assert (null.nearest_distance_null == 0).all()
    assert null.nearest_index_null.values.tolist() == list(range(64))


def test_the_measured_numbers_on_digits_are_found_again():
    """Distances of D_M to D_G and the centred linearity of D_M on held-out digits at sigma .5."""
    subset = digits(256, m=512)
    gaussian = ANALYSES["gaussian"].reference(subset)
    distance = gaussian.empirical_gaussian_rmse.sel(inputs="heldout").item()
    assert distance == pytest.approx(0.323, abs=0.02)
    linearity = ANALYSES["linearity"].reference(subset)
    centred = linearity.linearity_cosine_centred_empirical.sel(inputs="heldout").item()
    assert centred == pytest.approx(0.78, abs=0.03)
    assert gaussian.kappa.item() / 0.25 == pytest.approx(1.08, abs=0.02)
    assert math.isclose(linearity.linearity_cosine_centred_gaussian.min().item(), 1, abs_tol=1e-10)


def test_what_a_process_has_computed_before_does_not_change_an_analysis():
    """Bit for bit, at a size where matrix products do depend on the number of rows."""
    subset = digits(64)
    options = {"gaussian": {"draws": 4}, "linear_fit": {"draws": 4}}
    SHARED.clear()
    fresh = measure_all(wrapped(subset, subset.gaussian_pool), options)
    SHARED.clear()
    reference_all(subset, {"linear_fit": {"draws": 6}, "linearity": {}})
    later = measure_all(wrapped(subset, subset.gaussian_pool), options)
    for name in options:
        xr.testing.assert_identical(fresh[name], later[name])
