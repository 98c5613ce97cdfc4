import math

import numpy as np
import pytest
import torch
import xarray as xr

from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser
from analyses.pairs import (
    Side,
    agreement,
    centred_cosine,
    compare,
    measure_pair,
    median_ratio,
    nearest_sample,
    output_distance,
    predicted_mse,
)
from analyses.relations import RELATIONS
from analyses.sampler import Sampler
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import draw_points, make_subset, stream

D = 64
SPECTRUM = 2.8 * torch.arange(1, D + 1, dtype=torch.float64) ** -1.3
SCALE = SPECTRUM.sqrt()


def normal(n, d=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def twins(oracle, n=12, samples=60, **options):
    """Both sides and the subset of the first: disjoint sets of one law, common latents."""
    pool = draw_points(400, seed=1)
    first = make_subset(n=n, samples=samples, **options)
    second = Subset(
        pool[n : 2 * n], first.heldout, first.pool, first.sigmas, first.shape, stream,
        Sampler(samples),
    )  # fmt: skip
    return first, *(pieces(Specimen.of_oracle(subset, oracle)) for subset in (first, second))


def pieces(specimen, n=8):
    """What a cell stores."""
    outputs = [specimen.evaluate("heldout", sigma)[2][0, :n] for sigma in specimen.sigmas]
    return xr.Dataset(
        {
            "samples": (("sample", "pixel"), specimen.samples().float().numpy()),
            "outputs": (("sigma", "input", "pixel"), torch.stack(outputs).float().numpy()),
        }
    )


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_cell_agrees_with_itself(relation):
    subset, own, _ = twins("empirical")
    found = measure_pair(relation, own, own, subset)
    for name in ("mse", "mse_se", "flow_distance", "flow_distance_se", "to_train_ratio"):
        assert float(found[f"{relation}_{name}"]) == 0
    assert (found[f"{relation}_denoiser_mse"] == 0).all()
    for name in ("cosine", "reproducibility", "reproducibility_pixel"):
        assert float(found[f"{relation}_{name}"]) == pytest.approx(1)
    assert 0.9 < float(found[f"{relation}_reproducibility_low"]) < 1
    assert float(found[f"{relation}_reproducibility_high"]) == 1
    assert set(found.data_vars) >= {f"{relation}_mse", f"{relation}_denoiser_mse_se"}


def test_denoisers_that_memorize_disjoint_sets_are_as_far_apart_as_their_points():
    """Each sample is a training point, so the distance between cells is one between points, and
    that to the training set nearly 0."""
    subset, own, other = twins("empirical")
    found = measure_pair("twin", own, other, subset)
    assert float(found.twin_to_train_ratio) > 1e3
    assert float(found.twin_to_train_ratio_low) > 1e3
    assert float(found.twin_mse) > 0.05
    apart = torch.cdist(subset.train, draw_points(400, seed=1)[12:24])
    assert float(found.twin_flow_distance) > float(apart.min())
    # Every point that was drawn is nearer to its own samples than to the other cell's.
    drawn = nearest_sample(subset.train, torch.from_numpy(own.samples.values).double()) < 1e-4
    closeness = torch.from_numpy(found.twin_point_closeness.values)
    assert int(drawn.sum()) > 3 and (closeness[drawn] < -float(apart.min()) / 2).all()


def test_gaussian_denoisers_of_disjoint_sets_agree_better_than_memorizing_ones():
    gaussian, memory = (
        measure_pair("twin", *(twins(name, n=60)[i] for i in (1, 2, 0)))
        for name in ("gaussian", "empirical")
    )
    for name in ("mse", "to_train_ratio", "flow_distance"):
        assert float(gaussian[f"twin_{name}"]) < float(memory[f"twin_{name}"]) / 2
    for name in ("cosine", "reproducibility", "reproducibility_pixel"):
        assert float(gaussian[f"twin_{name}"]) > float(memory[f"twin_{name}"])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("n", [32, 128])
def test_gaussian_denoisers_of_disjoint_sets_differ_by_what_is_predicted(n, sigma):
    """T16, with estimated means: 40 pairs of sets of n points, d = 64, lam ~ k^-1.3."""
    pool = Moments(torch.full((D,), 0.3, dtype=torch.float64), SPECTRUM, torch.eye(D).double())
    y = 0.3 + normal(64, seed=1) * SCALE + sigma * normal(64, seed=2)
    found = []
    for seed in range(40):
        a, b = (
            GaussianDenoiser(Moments.of_points(0.3 + normal(n, seed=100 + 2 * seed + i) * SCALE))
            for i in (0, 1)
        )
        found.append(float((a(y, sigma) - b(y, sigma)).square().mean()))
    mean, error = np.mean(found), np.std(found) / math.sqrt(40)
    predicted = float(predicted_mse(pool, n, sigma, y).mean())
    assert abs(predicted - mean) < 0.05 * mean + 2.5 * error
    assert error < 0.05 * mean


def test_the_prediction_stands_beside_what_is_measured_on_the_same_inputs():
    n, m = 128, 32
    mean = torch.zeros(D, dtype=torch.float64)
    pool = Moments(mean, SPECTRUM, torch.eye(D, dtype=torch.float64))
    heldout = normal(m, seed=3) * SCALE
    subsets = [
        Subset(normal(n, seed=seed) * SCALE, heldout, pool, (0.3, 1.0), (1, 8, 8), stream)
        for seed in (4, 5)
    ]
    own, other = (
        Side(
            normal(8, seed=6),
            torch.stack(
                [subset.gaussian(subset.inputs("heldout", s)[1][0], s) for s in (0.3, 1.0)]
            ),
        )
        for subset in subsets
    )
    found = compare(own, other, subsets[0], "twin")
    ratio = found.twin_denoiser_mse / found.twin_denoiser_mse_predicted
    assert ratio.values == pytest.approx(1, abs=0.3)
    y = subsets[0].inputs("heldout", 1.0)[1][0]
    expected = float(predicted_mse(pool, n, 1.0, y).mean())
    assert found.twin_denoiser_mse_predicted.sel(sigma=1.0).item() == pytest.approx(expected)


def test_the_prediction_of_one_mode_is_that_of_a_sample_variance():
    """d = 1, y at the mean: only the means differ, by 2 lam/n (1 - W)^2 on average."""
    pool = Moments(torch.zeros(1).double(), torch.ones(1).double(), torch.eye(1).double())
    n, sigma = 10_000, 1.0
    found = float(predicted_mse(pool, n, sigma, torch.zeros(1, 1).double()))
    assert found == pytest.approx(2 / n / 4, rel=1e-3)
    # At distance y, the delta method on lam/(lam+1): 2 y^2 var(lam) / (lam+1)^4, var(lam) = 2/n.
    far = float(predicted_mse(pool, n, sigma, 30 * torch.ones(1, 1).double()))
    assert far == pytest.approx(2 / n / 4 + 2 * 900 * 2 / n / 16, rel=1e-3)


def test_hand_made_samples_have_the_agreement_of_their_definitions():
    xa = torch.tensor([[1.0, 0, 0, -1], [1, 0, 0, -1], [0, 0, 0, 0.4]], dtype=torch.float64)
    xb = torch.tensor([[2.0, 0, 0, -2], [-1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.float64) + 0.5
    to_train = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    found = agreement(xa, xb, to_train)
    squares = np.array([2.25 + 0.75, 2.25 + 0.5 + 6.25, 0.76])
    assert float(found["mse"]) == pytest.approx(squares.mean() / 4)
    assert float(found["flow_distance"]) == pytest.approx(math.sqrt(squares.mean()))
    assert float(found["mse_se"]) == pytest.approx(squares.std(ddof=1) / math.sqrt(3) / 4)
    assert float(found["to_train_ratio"]) == pytest.approx(math.sqrt(np.median(squares)))
    # The third image of b is constant: no cosine. The others have 1 and -1.
    assert float(found["cosine"]) == pytest.approx(0)
    assert float(found["reproducibility"]) == pytest.approx(1 / 2)
    assert float(found["reproducibility_pixel"]) == 0


def test_pixels_are_near_below_fifteen_levels_of_the_range():
    xa = torch.zeros(2, 4, dtype=torch.float64)
    xb = torch.tensor([[14.9 / 127.5], [15.1 / 127.5]], dtype=torch.float64).expand(2, 4)
    found = agreement(xa, xb, torch.ones(2, dtype=torch.float64))
    assert float(found["reproducibility_pixel"]) == 0.5
    assert math.isnan(found["cosine"]) and math.isnan(found["reproducibility"])


def test_the_cosine_ignores_brightness_and_contrast_but_not_sign():
    x = draw_points(5)
    assert centred_cosine(x, 2 * x + 0.7).tolist() == pytest.approx([1] * 5)
    assert centred_cosine(x, 3 - x).tolist() == pytest.approx([-1] * 5)


def test_the_interval_of_a_ratio_of_medians_covers_it():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        a, b = rng.exponential(size=60), rng.exponential(2, size=60)
        _, low, high = median_ratio(a, b, resamples=200)
        covered += low <= 0.5 <= high
    assert 0.9 < covered / 200 <= 0.99


def test_items_are_resampled_together():
    a = np.random.default_rng(1).exponential(size=50)
    assert median_ratio(3 * a, a) == pytest.approx((3, 3, 3))


def test_a_median_of_zero_gives_no_ratio():
    assert all(map(math.isnan, median_ratio(np.ones(5), np.zeros(5))))


def test_outputs_are_compared_input_by_input():
    a = normal(2 * 10 * 3, 1).view(2, 10, 3)
    shift = torch.arange(10, dtype=torch.float64)[None, :, None]
    found = output_distance(a, a + shift)
    squares = np.arange(10.0) ** 2
    assert found["denoiser_mse"].tolist() == pytest.approx([squares.mean()] * 2)
    assert found["denoiser_mse_se"].tolist() == pytest.approx(
        [squares.std(ddof=1) / math.sqrt(10)] * 2
    )


def test_a_copy_lies_at_distance_zero():
    points = 100 + draw_points(7)
    assert nearest_sample(points, torch.cat([draw_points(30, seed=3), points])).tolist() == [0] * 7


def test_the_reference_is_the_first_training_set_only():
    """Which cell is `own` decides what the distance to the training set is."""
    subset, own, other = twins("empirical")
    there, back = (measure_pair("rerun", *sides, subset) for sides in ((own, other), (other, own)))
    assert float(there.rerun_mse) == pytest.approx(float(back.rerun_mse))
    assert float(there.rerun_to_train_ratio) > 100 * float(back.rerun_to_train_ratio)


def test_what_disjoint_sets_allow_belongs_to_twins_alone():
    subset, own, other = twins("gaussian")
    assert "twin_point_closeness" in measure_pair("twin", own, other, subset)
    rerun = measure_pair("rerun", own, other, subset)
    assert not {"rerun_point_closeness", "rerun_denoiser_mse_predicted"} & set(rerun)


def test_without_stored_outputs_only_samples_are_compared():
    subset, own, other = twins("gaussian")
    found = measure_pair("twin", own.drop_vars("outputs"), other, subset)
    assert "twin_mse" in found and "twin_denoiser_mse" not in found


def test_every_variable_says_what_it_is():
    subset, own, other = twins("gaussian")
    for relation in RELATIONS:
        for name, variable in measure_pair(relation, own, other, subset).variables.items():
            assert name == "sigma" or str(name).startswith(relation)
            assert variable.attrs["long_name"]
            assert variable.attrs["units"] in ("1", "pixel", "pixel2")


def test_the_same_two_cells_give_the_same_numbers_twice():
    subset, own, other = twins("empirical")
    first, second = (measure_pair("twin", own, other, subset) for _ in range(2))
    xr.testing.assert_identical(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.isel(sample=slice(5)), "both cells need as many samples"),
        (lambda p: p.isel(input=slice(5)), "both cells need as many outputs"),
        (lambda p: p.drop_vars("samples"), "needs `samples`, got outputs"),
    ],
)
def test_pieces_that_do_not_match_are_refused(change, message):
    subset, own, other = twins("gaussian")
    with pytest.raises(ValueError, match=message):
        measure_pair("twin", own, change(other), subset)


def test_an_unknown_relation_is_an_error_that_lists_the_choices():
    subset, own, other = twins("gaussian")
    with pytest.raises(ValueError, match="Unknown relation 'sibling': choose from twin, rerun"):
        measure_pair("sibling", own, other, subset)


def test_the_noise_levels_of_outputs_are_those_of_the_subset():
    subset, own, other = twins("gaussian")
    fewer = (pieces.isel(sigma=slice(2)) for pieces in (own, other))
    with pytest.raises(ValueError, match="`outputs` has 2 noise levels, the subset 3"):
        measure_pair("twin", *fewer, subset)


def test_memorizing_denoisers_retrieve_points_of_their_own_sets():
    """At small noise D_M returns training points, whatever the input."""
    subset, own, other = twins("empirical", sigmas=(0.01,))
    found = measure_pair("twin", own, other, subset)
    y = subset.inputs("heldout", 0.01)[1][0, :8]
    second = EmpiricalDenoiser(draw_points(400, seed=1)[12:24])
    expected = (subset.empirical(y, 0.01) - second(y, 0.01)).square().mean()
    assert found.twin_denoiser_mse.item() == pytest.approx(float(expected), rel=1e-5)
