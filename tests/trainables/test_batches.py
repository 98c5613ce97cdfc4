"""What a step sees: which images, which noise levels, which noise."""

from dataclasses import replace

import pytest
import torch

from trainables.batches import Batches
from trainables.config import TrainConfig
from trainables.streams import stream

X = torch.arange(20.0).view(5, 1, 2, 2)
CONFIG = TrainConfig(batch=64)
FULL = TrainConfig(batch=5, sampling="full")


def batches(config=CONFIG, images=X, **options):
    return Batches(images, config, seed=3, draw=1, **options)


def which(x):
    """The index of each image of a batch."""
    return (x[:, 0, 0, 0] / 4).long()


def test_the_stream_of_a_step_serves_every_density():
    z = torch.randn(64, generator=stream("noise", 3, 7))
    _, lognormal, eps = batches()(7)
    _, uniform, same = batches(replace(CONFIG, noise="loguniform"))(7)
    assert torch.equal(eps, same)
    torch.testing.assert_close(lognormal, torch.exp(-1.2 + 1.2 * z))
    torch.testing.assert_close(uniform, 0.02 * (5000 ** torch.special.ndtr(z)))


def test_a_full_batch_is_every_image_once_with_new_noise_every_step():
    (x, _, first), (again, _, second) = batches(FULL)(0), batches(FULL)(1)
    assert torch.equal(x, X) and torch.equal(again, X) and not torch.equal(first, second)


@pytest.mark.parametrize("batch", [4, 6])
def test_a_full_batch_of_another_size_is_an_error_naming_both(batch):
    with pytest.raises(ValueError, match=f"must be the 5 training images, got {batch}"):
        batches(replace(FULL, batch=batch))


def test_with_fixed_draws_an_image_meets_no_other_noise_and_all_of_its_own():
    noise = batches(replace(CONFIG, noise_draws=3))
    met = {i: set() for i in range(5)}
    for step in range(4):
        x, sigma, eps = noise(step)
        for i, level, image in zip(which(x).tolist(), sigma.tolist(), eps, strict=True):
            met[i].add((level, *image.flatten().tolist()))
    assert all(len(noises) == 3 for noises in met.values())
    assert len(set().union(*met.values())) == 15


def test_the_fixed_draws_of_an_image_are_the_first_of_more_and_those_of_a_larger_set():
    few = batches(replace(CONFIG, noise_draws=2), X[:3])._table
    many = batches(replace(CONFIG, noise_draws=4))._table
    for small, large in zip(few, many, strict=True):
        assert torch.equal(small, large[:3, :2])


def test_fixed_draws_leave_the_images_of_a_step_as_they_are():
    assert torch.equal(batches()(5)[0], batches(replace(CONFIG, noise_draws=1))(5)[0])


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, noise_draws=2)])
def test_the_shares_of_two_workers_are_the_whole_batch(config):
    whole = batches(config)(2)
    parts = [batches(config, share=slice(32 * r, 32 * (r + 1)))(2) for r in (0, 1)]
    for together, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(together, torch.cat(shares))


def test_fixed_draws_are_lognormal_levels_and_standard_noise():
    config = replace(CONFIG, noise_draws=200)
    normals, eps = batches(config, torch.zeros(20, 1, 2, 2))._table
    for values in (normals, eps):
        assert values.mean().item() == pytest.approx(0, abs=0.06)
        assert values.std().item() == pytest.approx(1, abs=0.05)
