import pytest
import torch

from analyses.cache import SHARED
from analyses.moments import Moments
from analyses.specimen import Specimen, Subset
from tests.analyses.specimens import (
    SHAPE,
    SIGMAS,
    draw_points,
    make_specimen,
    make_subset,
    stream,
    wrapped,
)


def test_training_points_repeat_to_as_many_inputs_as_held_out_images():
    subset = make_subset(n=10, m=24)
    x, _ = subset.inputs("train", 0.5)
    assert torch.equal(x, subset.train[torch.arange(24) % 10])
    assert (subset.n_points("train"), subset.n_points("heldout")) == (10, 24)
    assert make_subset(n=30, m=24).n_points("train") == 24


def test_both_laws_share_their_noise():
    subset = make_subset()
    (a, noisy_a), (b, noisy_b) = (subset.inputs(law, 0.5, 3) for law in ("train", "heldout"))
    torch.testing.assert_close(noisy_a - a, noisy_b - b)


def test_the_noise_has_the_level_asked_for_and_is_new_at_each_draw_and_level():
    subset = make_subset(m=200)
    x, y = subset.inputs("heldout", 2.0, 4)
    noise = (y - x) / 2.0
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.1
    _, other = subset.inputs("heldout", 0.5, 4)
    assert abs(float(((other - x) * noise).mean())) < 0.05


def test_images_and_draws_that_are_added_leave_the_others_as_they_were():
    SHARED.clear()
    subset = make_subset(m=24)
    half = Subset(subset.train, subset.heldout[:12], subset.pool, SIGMAS, SHAPE, stream)
    few = half.inputs("heldout", 0.5, 2)[1].clone()
    many = subset.inputs("heldout", 0.5, 5)[1]
    assert torch.equal(many[:2, :12], few)
    z = make_subset().latents(3).clone()
    assert torch.equal(make_subset().latents(9)[:3], z)


def test_subsets_of_equal_size_do_not_share_oracle_outputs():
    one, other = make_subset(), make_subset()
    other = Subset(draw_points(10, seed=8), one.heldout, one.pool, SIGMAS, SHAPE, stream)
    first = one.reference("empirical", "heldout", 0.5)
    assert not torch.allclose(first, other.reference("empirical", "heldout", 0.5))
    torch.testing.assert_close(
        other.reference("empirical", "heldout", 0.5)[0],
        other.empirical(other.inputs("heldout", 0.5)[1][0], 0.5),
    )


def test_subsets_of_equal_content_share_oracle_outputs():
    one, other = make_subset(), make_subset()
    first = one.reference("kappa", "train", 0.5)
    assert first.data_ptr() == other.reference("kappa", "train", 0.5).data_ptr()


def test_an_evaluation_is_the_denoiser_at_the_inputs():
    specimen = make_specimen("gaussian", eval_batch=7)
    _, y, out = specimen.evaluate("train", 0.5, 3)
    expected = torch.stack([specimen.gaussian(draw, 0.5) for draw in y])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [(1, 4, 2), (4, 1, 2), (2, 4, 1)])
def test_more_draws_evaluate_only_the_new_ones(order):
    rows = []

    def denoiser(y, sigma):
        rows.append(len(y))
        # Depends on its batch as a real network does in the last bits, only visibly.
        return y * len(y)

    specimen = wrapped(make_subset(), denoiser, eval_batch=10)
    found = {draws: specimen.evaluate("heldout", 0.5, draws)[2] for draws in order}
    assert sum(rows) == 4 * 24
    assert all(torch.equal(found[draws], found[4][:draws]) for draws in order)
    fresh = wrapped(make_subset(), denoiser, eval_batch=10).evaluate("heldout", 0.5, 4)[2]
    assert torch.equal(fresh, found[4])


@pytest.mark.parametrize("n", range(2, 24))
def test_no_call_has_a_single_row_and_every_row_is_evaluated(n):
    sizes = []

    def denoiser(y, sigma):
        sizes.append(len(y))
        return (2 * y).float()

    y = draw_points(n)
    out = wrapped(make_subset(), denoiser, eval_batch=4).apply(y, 0.5)
    assert min(sizes) > 1 and sum(sizes) == n and max(sizes) <= 5
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, 2 * y, atol=1e-6, rtol=1e-6)


def test_evaluation_records_no_gradient():
    weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
    out = wrapped(make_subset(), lambda y, sigma: y * weight).evaluate("train", 0.5)[2]
    assert not out.requires_grad


def test_one_noise_level_forgets_the_evaluations_of_the_others():
    specimen = make_specimen("gaussian")
    specimen.evaluate("train", 0.5)
    one = specimen.only(0.5)
    assert (one.sigmas, one.memo) == ((0.5,), {})
    assert specimen.sigmas == SIGMAS and specimen.memo
    with pytest.raises(ValueError, match=r"sigma 0\.7 is not one of"):
        specimen.only(0.7)


def test_images_become_rows_in_float64():
    subset = make_subset()
    train, heldout = (
        points.numpy().astype("float32").reshape(-1, *SHAPE)
        for points in (subset.train, subset.heldout)
    )
    again = Subset.of_images(train, heldout, subset.pool, (0.5, 1.0), stream)
    assert again.train.dtype == again.heldout.dtype == torch.float64
    assert again.shape == SHAPE
    torch.testing.assert_close(again.train, subset.train, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again.heldout, subset.heldout, rtol=1e-6, atol=1e-6)


def test_a_sample_that_is_not_finite_is_an_error():
    specimen = wrapped(make_subset(), lambda y, sigma: y / 0)
    with pytest.raises(FloatingPointError, match="20 of 20 samples are not finite"):
        specimen.samples()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": draw_points(1)}, "at least 2 training and 4 held-out points, got 1 and 24"),
        ({"heldout": draw_points(3)}, "at least 2 training and 4 held-out points, got 10 and 3"),
        ({"sigmas": ()}, "`sigmas` must be positive and distinct"),
        ({"sigmas": (0.1, 0.1)}, "`sigmas` must be positive and distinct"),
        ({"sigmas": (0.0, 0.1)}, "`sigmas` must be positive and distinct"),
        ({"shape": (1, 2, 2)}, "must agree on the number of pixels, got 6, 6, 6"),
        ({"pool": Moments.of_points(draw_points(9, d=5))}, "must agree on the number of pixels"),
        ({"eval_batch": 1}, "`eval_batch` must be at least 2, got 1"),
    ],
)
def test_a_bad_specimen_says_what_is_wrong(change, message):
    subset = make_subset()
    fields = {name: getattr(subset, name) for name in ("train", "heldout", "pool", "sigmas")}
    fields |= {"shape": SHAPE, "stream": stream, "denoiser": subset.gaussian} | change
    with pytest.raises(ValueError, match=message):
        Specimen(**fields)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.inputs("test", 0.5), "Unknown input law 'test': choose from train, heldout"),
        (lambda s: s.inputs("train", 0.5, 0), "`draws` must be at least 1, got 0"),
        (lambda s: s.latents(0), "`n` must be at least 1, got 0"),
        (lambda s: s.oracle("wiener"), "Unknown oracle 'wiener': choose from gaussian, "),
    ],
)
def test_a_bad_request_says_what_to_choose_from(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_subset())


def test_each_sample_is_drawn_under_its_own_label():
    """D(y, sigma, label) = point of that label: every path ends there, whatever the batches."""
    subset = make_subset(samples=20)
    labels = torch.arange(20) % 7

    def told(y, sigma, label):
        return subset.train[label]

    specimen = Specimen.of(subset, told, eval_batch=6)
    specimen.labels = labels
    torch.testing.assert_close(specimen.samples(), subset.train[labels])
