"""Denoisers trained elsewhere: the change of variables, and what is refused."""

import json

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from analyses.differential import jvp
from trainables.pretrained import format_of, load
from trainables.pretrained.diffusers import DDPM

CPU = torch.device("cpu")
VARIANCE = 0.7
"""Of the isotropic Gaussian whose best denoiser is (v / (v + sigma^2)) y."""


@pytest.fixture
def network():
    """A small random UNet2DModel."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


@pytest.fixture
def pipeline(network, tmp_path):
    """Its pipeline's folder."""
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


def exact(kind, levels):
    """What the best network of that kind predicts for white Gaussian data."""

    def network(x, t):
        sigma = float(levels[t])
        share = VARIANCE / (VARIANCE + sigma**2)
        y = x * (1 + sigma**2) ** 0.5
        clean = share * y
        noise = (y - clean) / sigma
        scale = (1 + sigma**2) ** 0.5
        return {
            "sample": clean,
            "epsilon": noise,
            "v_prediction": noise / scale - clean * sigma / scale,
        }[kind]

    return network


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_of_the_best_network_makes_the_wiener_filter(kind):
    levels = torch.logspace(-2, 2, 200, dtype=torch.float64)
    denoise = DDPM(exact(kind, levels), levels, kind)
    y = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in (0, 77, 199):
        sigma = float(levels[step])
        expected = VARIANCE / (VARIANCE + sigma**2) * y
        torch.testing.assert_close(denoise(y, sigma), expected, rtol=1e-12, atol=1e-12)


def test_a_level_between_two_steps_is_told_as_the_nearest_one():
    levels = torch.tensor([0.1, 1.0, 10.0])
    denoise = DDPM(lambda x, t: torch.full_like(x, t), levels, "sample")
    y = torch.zeros(1, 1, 2, 2)
    assert [float(denoise(y, s).mean()) for s in (0.01, 0.3, 0.33, 3.0, 3.3, 99.0)] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_second_half_of_the_channels_is_a_variance_and_no_image():
    denoise = DDPM(lambda x, t: torch.cat([x, x + 9], 1), torch.tensor([1.0]), "sample")
    y = torch.ones(2, 3, 2, 2)
    torch.testing.assert_close(denoise(y, 1.0), y / 2**0.5)


def test_a_pipeline_on_disk_is_the_denoiser_of_its_network(pipeline, network):
    found = load(str(pipeline), CPU)
    scheduler = DDPMScheduler()
    share = scheduler.alphas_cumprod.double()
    assert found.shape == (1, 8, 8)
    assert found.sigma_max == pytest.approx(float(((1 - share[-1]) / share[-1]).sqrt()))
    t = 500
    sigma = float(((1 - share[t]) / share[t]).sqrt())
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = x / share[t].sqrt()
    with torch.no_grad():
        noise = network.eval()(x, t).sample
        expected = (x - (1 - share[t]).sqrt() * noise) / share[t].sqrt()
        torch.testing.assert_close(
            found.denoise(y.double(), sigma), expected.double(), rtol=1e-4, atol=1e-4
        )


def test_a_network_alone_finds_its_scheduler_beside_it_or_says_what_is_missing(pipeline):
    assert load(str(pipeline / "unet"), CPU).about["steps"] == 1000
    (pipeline / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"no scheduler_config\.json in it"):
        load(str(pipeline / "unet"), CPU)


def test_equal_weights_have_one_fingerprint_and_others_another(pipeline, network, tmp_path):
    again = tmp_path / "again"
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(again)
    assert load(str(again), CPU).content == load(str(pipeline), CPU).content
    with torch.no_grad():
        next(network.parameters()).add_(1)
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(again)
    assert load(str(again), CPU).content != load(str(pipeline), CPU).content


def _edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "conditional and latent"),
        ("unet/config.json", {"num_class_embeds": 10}, "wants class labels"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "wanted positional"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "a unet and a scheduler"),
        ("scheduler/scheduler_config.json", {"_class_name": "Nothing"}, "unknown scheduler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "is not known"),
        ("model_index.json", {"unet": []}, "a unet and a scheduler"),
        ("unet/config.json", {"sample_size": None}, "sample_size None .* set its sample_size in"),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, r"sample_size \[8, 8, 8\] and in_chann"),
        ("unet/config.json", {"in_channels": 0}, "in_channels 0: wanted whole numbers from 1"),
        ("unet/config.json", {"out_channels": 3}, "it makes 3 channels of 1"),
        ("unet/config.json", {"block_out_channels": [2**20, 16]}, "more weights than its files"),
        ("unet/config.json", {"layers_per_block": "2"}, "layers_per_block '2' .* whole numbers"),
        ("unet/config.json", {"add_attention": False}, "no weights or no place for mid_"),
        ("unet/config.json", {"down_block_types": ["No"]}, "unet: ValueError: Must provide"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "x"}, "NotImplementedError: x "),
        ("scheduler/scheduler_config.json", {"beta_start": 0}, "do not rise from above 0"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "wanted 1 to 100000"),
        ("scheduler/scheduler_config.json", {"_class_name": "NoScheduler"}, "NoScheduler: Attri"),
    ],
)
def test_what_is_no_denoiser_of_images_alone_is_refused(pipeline, file, changes, message):
    _edit(pipeline / file, **changes)
    with pytest.raises(ValueError, match=message):
        load(str(pipeline), CPU)


def test_a_network_for_any_size_is_of_the_size_that_its_configuration_is_given(pipeline):
    _edit(pipeline / "unet" / "config.json", sample_size=[16, 8])
    found = load(str(pipeline), CPU)
    assert found.shape == (1, 16, 8)
    assert found.denoise(torch.zeros(2, 1, 16, 8), 1.0).shape == (2, 1, 16, 8)


def test_the_forward_derivative_of_a_network_with_attention_is_its_slope(pipeline):
    denoise = load(str(pipeline), CPU).denoise
    generator = torch.Generator().manual_seed(1)
    y, v = (torch.randn(2, 1, 8, 8, generator=generator) for _ in range(2))
    _, along = jvp(
        lambda y, s: denoise(y.view(2, 1, 8, 8), s).flatten(1), y.flatten(1), v.flatten(1), 3.0
    )
    slope = (denoise(y + 2e-3 * v, 3.0) - denoise(y - 2e-3 * v, 3.0)) / 4e-3
    assert (slope - v).norm() > 0.01 * v.norm()
    torch.testing.assert_close(along.view_as(v), slope.double(), rtol=0, atol=5e-3)


def test_weights_that_are_missing_are_not_drawn_at_random(pipeline):
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if k != "conv_in.bias"}, file)
    with pytest.raises(ValueError, match=r"no weights or no place for conv_in\.bias"):
        load(str(pipeline), CPU)


def test_pickled_weights_of_a_pipeline_are_never_loaded(pipeline):
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="pickled weights are never loaded"):
        load(str(pipeline), CPU)


def test_a_source_of_no_known_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="wanted a snapshot of a sweep"):
        format_of(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:f", "cannot import no_such_module"),
        ("math:nothing", "has no 'nothing'"),
        ("math:pi", "wanted a callable"),
    ],
)
def test_a_name_that_is_no_callable_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        load(source, CPU)
