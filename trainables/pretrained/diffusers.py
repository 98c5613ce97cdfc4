r"""Unconditional UNet2DModels of the `diffusers` library, as they lie on disk.

A DDPM sees :math:`x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon`. With
:math:`\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}` and :math:`y = x_t/\sqrt{\bar\alpha_t}`
that is :math:`y = x_0 + \sigma_t\epsilon`, so that its prediction makes a denoiser

- of the noise: :math:`D(y;\sigma) = y - \sigma\,\epsilon_\theta(y/\sqrt{1+\sigma^2}, t)`,
- of the velocity :math:`v = \sqrt{\bar\alpha}\,\epsilon - \sqrt{1-\bar\alpha}\,x_0`:
  :math:`D = y/(1+\sigma^2) - \sigma/\sqrt{1+\sigma^2}\,v_\theta`,
- of the image: :math:`D = x_\theta`,

where t is the step whose :math:`\ln\sigma_t` is nearest to :math:`\ln\sigma`: the network knows
whole steps alone. Ho et al. 2020 (2006.11239), Salimans & Ho 2022 (2202.00512), Karras et al. 2022
(2206.00364, appendix C).
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.pretrained.model import Pretrained, digest
from trainables.registry import is_int

__all__ = ["CONFIGS", "DDPM", "load"]

CONFIGS = ("model_index.json", "config.json")
SCHEDULER = "scheduler_config.json"
PREDICTIONS = ("epsilon", "v_prediction", "sample")
STEPS = 100_000
"""Of a schedule, at most."""


class DDPM:
    """A network of discrete steps as a denoiser D(y; sigma)."""

    def __init__(
        self, network: Callable[[Tensor, int], Tensor], levels: Tensor, prediction: str
    ) -> None:
        """`network(x, t)` predicts one of `PREDICTIONS`; `levels` are sigma_t, rising with t."""
        self.network, self.prediction = network, prediction
        self.log_levels = levels.double().log()

    def step(self, sigma: float) -> int:
        """The trained step nearest to `sigma`."""
        return int((self.log_levels - math.log(sigma)).abs().argmin())

    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        """D(y "n c h w"; sigma)."""
        total = math.sqrt(1 + sigma**2)
        out = self.network(y / total, self.step(sigma))[:, : y.shape[1]]  # the rest: a variance
        if self.prediction == "epsilon":
            return y - sigma * out
        if self.prediction == "v_prediction":
            return y / total**2 - sigma / total * out
        return out


def load(source: str, device: torch.device) -> Pretrained:
    """The denoiser in a pipeline's or a network's folder; weights from safetensors alone.

    Raises:
        ValueError: not an unconditional pixel-space UNet2DModel, no scheduler, no safetensors.
        ImportError: the library is not installed.
    """
    folder = Path(source)
    network_folder, scheduler_file = _parts(folder)
    config = _json(network_folder / "config.json")
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(
            f"{network_folder}: wanted a UNet2DModel, got {config.get('_class_name')!r}:"
            " conditional and latent networks have no denoiser of images alone"
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise ValueError(f"{network_folder}: the network wants class labels, which no image has")
    if config.get("time_embedding_type", "positional") != "positional":
        raise ValueError(
            f"{network_folder}: its steps are told as {config['time_embedding_type']!r};"
            " wanted positional ones, of a DDPM"
        )
    weights = sorted(network_folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(
            f"{network_folder}: no .safetensors there, and pickled weights are never loaded;"
            " convert with UNet2DModel.save_pretrained(folder, safe_serialization=True)"
        )
    shape = _shape(network_folder, config)
    if 2 * _least(network_folder, config, shape[0]) > sum(file.stat().st_size for file in weights):
        raise ValueError(f"{network_folder}: its network would have more weights than its files")
    levels, prediction = _schedule(scheduler_file)
    network = _network(network_folder, device)
    files = [network_folder / "config.json", scheduler_file, *weights]
    return Pretrained(
        denoise=DDPM(network, levels, prediction),
        content=digest(files),
        shape=shape,
        sigma_min=float(levels[0]),
        sigma_max=float(levels[-1]),
        about={
            "format": "diffusers",
            "network": "UNet2DModel",
            "n_params": sum(p.numel() for p in network.parameters()),
            "prediction": prediction,
            "steps": len(levels),
        },
    )


def _parts(folder: Path) -> tuple[Path, Path]:
    """Where the network and its scheduler lie in a pipeline's folder, or in a network's."""
    if (folder / "model_index.json").is_file():
        index = _json(folder / "model_index.json")
        parts = {k for k, v in index.items() if isinstance(v, list) and v and v[0] is not None}
        if parts != {"unet", "scheduler"}:
            raise ValueError(
                f"{folder}: wanted a pipeline of a unet and a scheduler, got"
                f" {', '.join(sorted(parts))}: only networks of images alone are denoisers"
            )
        return folder / "unet", folder / "scheduler" / SCHEDULER
    for file in (folder / SCHEDULER, *(p / "scheduler" / SCHEDULER for p in _around(folder))):
        if file.is_file():
            return folder, file
    raise ValueError(
        f"{folder}: no {SCHEDULER} in it, in scheduler/, or beside it: the noise of its steps is"
        " not known; put the scheduler's configuration there"
    )


def _around(folder: Path) -> tuple[Path, Path]:
    return folder, folder.resolve().parent


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted a JSON object, got {type(found).__name__}")
    return found


def _shape(folder: Path, config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(c, h, w) of the images."""
    size, channels = config.get("sample_size"), config.get("in_channels", 3)
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(is_int(n, 1) for n in (*sides, channels)):
        raise ValueError(
            f"{folder}: images of sample_size {size!r} and in_channels {channels!r}: wanted whole"
            " numbers from 1; where a network is made for any size, set its sample_size in"
            " config.json to that of the data"
        )
    made = config.get("out_channels", 3)
    if made not in (channels, 2 * channels):
        raise ValueError(
            f"{folder}: it makes {made!r} channels of {channels}: wanted as many, or a variance"
            " beside each"
        )
    return channels, *sides


def _least(folder: Path, config: Mapping[str, Any], channels: int) -> int:
    """Weights that a network has at least: known before any memory is taken for them."""
    widths, layers = config.get("block_out_channels", []), config.get("layers_per_block", 2)
    told = config.get("time_embedding_dim") or 0
    whole = isinstance(widths, list) and all(is_int(n, 1) for n in (*widths, layers))
    if not whole or not is_int(told, 0):
        raise ValueError(
            f"{folder}: block_out_channels {widths!r}, layers_per_block {layers!r} and"
            f" time_embedding_dim {told!r}: wanted whole numbers"
        )
    blocks = sum(2 * layers * 9 * width**2 for width in widths)
    return blocks + 9 * channels * sum(widths[:1]) + told**2


def _schedule(path: Path) -> tuple[Tensor, str]:
    """Noise level of each step, in pixels, and what the network predicts."""
    config = _json(path)
    name, steps = config.get("_class_name"), config.get("num_train_timesteps", 1000)
    if not isinstance(name, str) or not name.endswith("Scheduler"):
        raise ValueError(f"{path}: unknown scheduler {name!r}")
    if not is_int(steps, 1) or steps > STEPS:
        raise ValueError(f"{path}: num_train_timesteps {steps!r}: wanted 1 to {STEPS}")
    share, prediction = _told(path, name, config)
    share = share[share > 0]  # at zero signal-to-noise there is no level
    levels = ((1 - share) / share).sqrt()
    if not len(levels) or not levels[0] > 0 or not (levels.diff() > 0).all():
        raise ValueError(f"{path}: its noise levels do not rise from above 0 to a finite one")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"{path}: prediction_type {prediction!r} is not known: wanted {', '.join(PREDICTIONS)}"
        )
    return levels, prediction


def _told(path: Path, name: str, config: dict[str, Any]) -> tuple[Tensor, object]:
    """What a scheduler of the library makes of its configuration: abar_t and the prediction."""
    import diffusers

    try:
        scheduler = getattr(diffusers, name).from_config(config)
        share = scheduler.alphas_cumprod.double()
    except Exception as error:  # the library checks few of the options that it is given
        raise ValueError(
            f"{path}: wanted the schedule of a DDPM, but {name}: {type(error).__name__}: {error}"
        ) from error
    return share, scheduler.config.get("prediction_type", "epsilon")


def _network(folder: Path, device: torch.device) -> torch.nn.Module:
    from diffusers import UNet2DModel

    try:
        network, how = UNet2DModel.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # as above: whatever its options make it raise
        raise ValueError(f"{folder}: {type(error).__name__}: {error}") from error
    wrong = [*how["missing_keys"], *how["unexpected_keys"]]
    if wrong:  # the library would leave them random
        raise ValueError(f"{folder}: no weights or no place for {', '.join(sorted(wrong)[:5])}")
    network = network.to(device).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(_contiguous)

    class Whole(torch.nn.Module):
        """The network without its wrapping of outputs, in its own precision."""

        def forward(self, x: Tensor, step: int) -> Tensor:
            out = network(x.to(device, network.dtype), step, return_dict=False)[0]
            return out.to(x.device, x.dtype)

    whole = Whole()
    whole.network = network
    return whole


def _contiguous(norm: torch.nn.GroupNorm, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """The forward derivative of a norm, unlike the norm, cannot read what attention leaves."""
    return (inputs[0].contiguous(),)
