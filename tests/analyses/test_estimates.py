import pytest
import torch

from analyses.estimates import by_point, mean_se, ratio_se

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_without_repeats_the_error_of_a_mean_is_the_usual_one():
    values = normal(3, 50)
    mean, se = mean_se(values, 50)
    torch.testing.assert_close(mean, values.mean(1))
    torch.testing.assert_close(se, values.std(1) / 50**0.5)


@pytest.mark.parametrize("n", [7, 8, 9, 13])
def test_sums_by_point_collect_all_repeats(n):
    values = normal(n)
    expected = torch.stack([values[i::4].sum() for i in range(4)])
    torch.testing.assert_close(by_point(values, 4), expected)


def test_repeating_every_image_does_not_shrink_the_error():
    values = normal(20)
    once, repeated = mean_se(values, 20), mean_se(values.repeat(30), 20)
    torch.testing.assert_close(once, repeated)


def test_the_error_of_a_ratio_is_its_spread_over_repetitions():
    b = 2 + normal(4000, 50).abs()
    a = 0.5 * b + 0.3 * normal(4000, 50)
    ratio, se = ratio_se(a, b, 50)
    assert float(se.mean()) == pytest.approx(float(ratio.std()), rel=0.05)


def test_values_left_out_do_not_count():
    values = normal(10)
    keep = torch.arange(10) % 3 > 0
    spoiled = torch.where(keep, values, torch.nan)
    torch.testing.assert_close(mean_se(spoiled, 10, keep), mean_se(values[keep], 6))


def test_a_mean_of_nothing_is_missing_and_one_value_has_no_error():
    values = normal(4)
    mean, se = mean_se(values, 4, torch.zeros(4, dtype=torch.bool))
    assert mean.isnan() and se.isnan()
    mean, se = mean_se(values, 4, torch.arange(4) == 1)
    assert mean == values[1] and se.isnan()
