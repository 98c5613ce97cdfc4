import math

import pytest
import torch
import xarray as xr

from analyses import linearity, mixing
from analyses.evaluations import Size
from tests.analyses.specimens import draw_points, make_specimen, make_subset, wrapped


def bent(y, sigma):
    return torch.tanh(2 * y) + 0.1 * y.flip(-1)


def test_an_even_mix_has_the_scores_of_linearity():
    specimen = wrapped(make_subset(), bent)
    even = mixing.measure(specimen).sel(alpha2=0.5)
    known = linearity.measure(specimen).sel(inputs="heldout")
    for score in ("cosine", "cosine_se", "cosine_centred", "cosine_centred_se"):
        assert (even[f"mixing_{score}"].values == known[f"linearity_{score}"].values).all()


def test_no_row_is_evaluated_for_both_linearity_and_mixing():
    rows, subset = [], make_subset(sigmas=(0.5,))

    def counting(y, sigma):
        rows.extend(map(tuple, y.tolist()))
        return subset.gaussian(y, sigma)

    specimen = wrapped(subset, counting)
    linearity.measure(specimen, laws=("train", "heldout"))
    before = len(rows)
    mixing.measure(specimen)
    # Four uneven alpha^2, two mixes of each of 12 pairs.
    assert len(rows) - before == 4 * 2 * 12
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("alpha2", [(0.5,), (0.9, 0.7), (0.9, 0.5)])
def test_the_evaluations_are_those_that_are_announced(alpha2):
    count, subset = [], make_subset(m=25)
    specimen = wrapped(subset, lambda y, sigma: count.append(len(y)) or bent(y, sigma))
    mixing.measure(specimen, alpha2=alpha2)
    announced = mixing.rows(Size(6, 25, 3, subset.sampler), alpha2=alpha2)
    assert sum(count) == sum(announced.values())


@pytest.mark.parametrize("first", ["linearity", "mixing"])
def test_the_order_of_linearity_and_mixing_does_not_matter(first):
    specimen = wrapped(make_subset(), bent)
    alone = mixing.measure(wrapped(make_subset(), bent))
    if first == "linearity":
        linearity.measure(specimen, laws=("train",))
    xr.testing.assert_identical(mixing.measure(specimen), alone)


def test_an_affine_denoiser_is_linear_at_every_mix():
    matrix = torch.eye(6, dtype=torch.float64) + draw_points(6, seed=5)
    found = mixing.measure(wrapped(make_subset(), lambda y, sigma: y @ matrix + 3))
    assert found.mixing_cosine_centred.values == pytest.approx(1, abs=1e-10)
    assert float(found.mixing_cosine.min()) < 1 - 1e-4
    assert (found.mixing_dropped == 0).all()


def test_a_memorizing_denoiser_is_least_linear_at_the_even_mix():
    """The further the mix from both inputs, the more training points it can fall between."""
    found = mixing.measure(make_specimen("empirical", n=40, m=600, sigmas=(0.3,)))
    score = found.mixing_cosine_centred[0]
    assert score.sel(alpha2=0.99).item() > score.sel(alpha2=0.745).item() > score[-1].item()


def test_the_scores_of_an_uneven_mix_are_those_of_its_definition():
    """|cos| of D(mu + a u1 + b u2) - D(mu) and a (D(y1) - D(mu)) + b (D(y2) - D(mu))."""
    specimen = wrapped(make_subset(sigmas=(0.5,)), bent)
    y = specimen.inputs("heldout", 0.5)[1][0]
    mu, a, b = specimen.moments.mean, math.sqrt(0.745), math.sqrt(0.255)
    centre = bent(mu, 0.5)
    one, two = y[:12], y[12:]
    mixed = bent(mu + a * (one - mu) + b * (two - mu), 0.5) - centre
    summed = a * (bent(one, 0.5) - centre) + b * (bent(two, 0.5) - centre)
    expected = torch.nn.functional.cosine_similarity(mixed, summed).abs().mean()
    found = mixing.measure(specimen).mixing_cosine_centred.sel(alpha2=0.745).item()
    assert found == pytest.approx(float(expected), abs=1e-12)


def test_the_reference_holds_both_oracles():
    bracket = mixing.reference(make_subset(), alpha2=(0.8,))
    own = mixing.measure(make_specimen("empirical"), alpha2=(0.8,))
    low = bracket.mixing_cosine_centred_empirical.values
    assert low == pytest.approx(own.mixing_cosine_centred.values, abs=1e-12)
    assert bracket.mixing_cosine_centred_gaussian.values == pytest.approx(1, abs=1e-10)


def test_noise_levels_and_shares_are_coordinates():
    found = mixing.measure(make_specimen("gaussian"), alpha2=(0.9, 0.5))
    assert found.alpha2.values.tolist() == [0.9, 0.5]
    assert found.mixing_cosine.dims == ("sigma", "alpha2")


@pytest.mark.parametrize("alpha2", [(), (1.0,), (0.0, 0.5), (0.5, 0.5)])
def test_a_mix_that_is_no_mix_is_refused(alpha2):
    with pytest.raises(ValueError, match=r"`alpha2` must be distinct and inside \(0, 1\)"):
        mixing.measure(make_specimen("gaussian"), alpha2=alpha2)
