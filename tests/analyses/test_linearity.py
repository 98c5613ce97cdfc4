import math

import pytest
import torch

from analyses import linearity
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


@pytest.mark.parametrize("n_points", [2, 3, 5, 16, 64, 100, 255, 256, 257, 511, 512])
@pytest.mark.parametrize("n_inputs", [5, 24, 511, 512])
def test_a_pair_is_two_different_images(n_inputs, n_points):
    n_points = min(n_points, n_inputs)
    first, second = linearity.pair_up(n_inputs, n_points)
    assert len(first) == len(second) == n_inputs // 2
    assert (first % n_points != second % n_points).all()
    assert int(first.max()) < n_inputs // 2 <= int(second.min())
    assert int(second.max()) < n_inputs


@pytest.mark.parametrize("n_points", [2, 16, 64, 256, 512])
def test_an_input_is_in_one_pair_only_where_images_fill_the_halves_evenly(n_points):
    first, second = linearity.pair_up(512, n_points)
    assert len({*first.tolist(), *second.tolist()}) == 512


def test_few_images_meet_in_many_combinations():
    first, second = linearity.pair_up(512, 8)
    assert len(set(zip((first % 8).tolist(), (second % 8).tolist(), strict=True))) == 8 * 7


def test_images_that_do_not_repeat_are_paired_across_the_halves():
    first, second = linearity.pair_up(24, 24)
    assert (second - first == 12).all()


def test_the_scores_of_a_hand_made_pair():
    """D(mix) at a right angle to the mix of D has score 0; at the same angle and twice as long,
    score 1 and error 1/2."""
    e = torch.eye(2, dtype=torch.float64)
    pair = linearity.Pairs(e[:1], e[:1], e[:1], e[:1], 1)
    raw, centred = e[1:], 2 * math.sqrt(2) * e[:1]
    zero = torch.zeros(2, dtype=torch.float64)
    scores, by_pair = linearity.linearity(pair, torch.cat([raw, centred]), zero, zero)
    assert float(scores["linearity_cosine"]) == 0
    assert float(scores["linearity_cosine_centred"]) == pytest.approx(1)
    assert float(scores["linearity_nmse"]) == pytest.approx(math.sqrt(1 + 2))
    assert float(scores["linearity_nmse_centred"]) == pytest.approx(0.5)
    assert by_pair.tolist() == pytest.approx([1])


def test_the_cosine_has_no_sign():
    a = draw_points(5)
    assert linearity.cosine(a, -3 * a).tolist() == pytest.approx([1] * 5)


def test_pairs_without_a_direction_are_dropped_and_counted():
    """A denoiser that returns the mean everywhere but in one half-space."""
    subset = make_subset(sigmas=(0.5,))
    mean = subset.moments.mean

    def denoiser(y, sigma):
        return torch.where(y[:, :1] > mean[0] + 0.5, y, mean)

    result = linearity.measure(wrapped(subset, denoiser))
    dropped = result.linearity_dropped.sel(inputs="heldout").item()
    pairs = result.linearity_cosine_centred_pair[0]
    assert 0 < dropped < 12 and int(pairs.isnull().sum()) == dropped
    mean_of_kept = pairs.mean().item()
    cosine = result.linearity_cosine_centred.sel(inputs="heldout").item()
    assert mean_of_kept == pytest.approx(cosine, abs=1e-6)


def test_a_constant_denoiser_has_no_centred_score():
    specimen = wrapped(make_subset(), lambda y, sigma: torch.ones_like(y))
    result = linearity.measure(specimen)
    # 12 pairs of the 24 inputs of a law, 10 of the 20 samples.
    assert (result.linearity_dropped == [12, 12, 12, 10]).all()
    assert result.linearity_cosine_centred.isnull().all()
    assert result.linearity_cosine.values == pytest.approx(1)


def test_the_reference_holds_the_scores_of_both_oracles():
    result = linearity.measure(make_specimen("kappa"))
    bracket = linearity.reference(make_subset())
    low = bracket.linearity_cosine_centred_empirical.sel(sigma=0.5)
    high = bracket.linearity_cosine_centred_gaussian.sel(sigma=0.5)
    assert (low < 0.95).all()
    assert high.values == pytest.approx(1, abs=1e-10)
    own = linearity.measure(make_specimen("empirical")).linearity_cosine_centred
    assert own.sel(sigma=0.5).values == pytest.approx(low.values, abs=1e-12)
    assert result.linearity_cosine_centred.values == pytest.approx(1, abs=1e-10)
