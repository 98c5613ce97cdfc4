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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.pretrained.model import Pretrained, digest

__all__ = ["CONFIGS", "DDPM", "load"]

CONFIGS = ("model_index.json", "config.json")
SCHEDULER = "scheduler_config.json"
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DDPM:
    """A network of discrete steps as a denoiser D(y; sigma)."""

    def __init__(
        self, network: Callable[[Tensor, int], Tensor], levels: Tensor, prediction: str
    ) -> None:
        """`network(x, t)` predicts one of `PREDICTIONS`; `levels` are sigma_t, rising with t."""
        if prediction not in PREDICTIONS:
            raise ValueError(
                f"prediction_type {prediction!r} is not known: wanted {', '.join(PREDICTIONS)}"
            )
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
    levels, prediction = _schedule(scheduler_file)
    network = _network(network_folder, device)
    size, channels = config["sample_size"], config["in_channels"]
    height, width = (size, size) if isinstance(size, int) else size
    files = [network_folder / "config.json", scheduler_file, *weights]
    return Pretrained(
        denoise=DDPM(network, levels, prediction),
        content=digest(files),
        shape=(channels, height, width),
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
        parts = {k for k, v in index.items() if isinstance(v, list) and v[0] is not None}
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
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted a JSON object, got {type(found).__name__}")
    return found


def _schedule(path: Path) -> tuple[Tensor, str]:
    """Noise level of each step, in pixels, and what the network predicts."""
    import diffusers

    config = _json(path)
    name = config.get("_class_name", "")
    kind = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if kind is None:
        raise ValueError(f"{path}: unknown scheduler {name!r}")
    scheduler = kind.from_config(config)
    share = getattr(scheduler, "alphas_cumprod", None)
    if share is None:
        raise ValueError(f"{path}: {name} has no alphas_cumprod: wanted the schedule of a DDPM")
    share = share.double()
    share = share[share > 0]  # at zero signal-to-noise there is no level
    return ((1 - share) / share).sqrt(), scheduler.config.get("prediction_type", "epsilon")


def _network(folder: Path, device: torch.device) -> torch.nn.Module:
    from diffusers import UNet2DModel

    try:
        network = UNet2DModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{folder}: {error}") from error
    network = network.to(device).eval().requires_grad_(False)

    class Whole(torch.nn.Module):
        """The network without its wrapping of outputs, in its own precision."""

        def forward(self, x: Tensor, step: int) -> Tensor:
            out = network(x.to(device, network.dtype), step, return_dict=False)[0]
            return out.to(x.device, x.dtype)

    whole = Whole()
    whole.network = network
    return whole
