"""Networks of the EDM format (Karras et al. 2022, arXiv 2206.00364), read without executing them.

Such a file pickles a mapping whose `ema` is a preconditioned U-Net, with the source code of its
classes as text. Read are the arguments of the constructors and the weights (`modules`); the
network is then this project's own DDPM++, NCSN++ or ADM with those weights. Tensors are matched
by name, all of them and no others, so that a network of another layout is refused and not guessed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables import architectures
from trainables.denoiser import PRECONDITIONINGS, VP, Denoiser
from trainables.pretrained.model import Pretrained, digest
from trainables.pretrained.modules import Recorded, read, tensors

__all__ = ["load", "renamed"]


def _vp_level(t: float) -> float:
    """Noise level of the VP preconditioning at time t."""
    return math.sqrt(math.expm1(VP.BETA_D * t**2 / 2 + VP.BETA_MIN * t))


PRECONDITIONS = {
    "EDMPrecond": ("edm", {"sigma_min": 0.0, "sigma_max": math.inf}),
    "VPPrecond": ("vp", {"sigma_min": _vp_level(1e-5), "sigma_max": _vp_level(1.0)}),
    "VEPrecond": ("ve", {"sigma_min": 0.02, "sigma_max": 100.0}),
}
"""Class of the denoiser -> our preconditioning, and what it knows and has by default."""
FIXED = {"beta_d": VP.BETA_D, "beta_min": VP.BETA_MIN, "M": 1000}
"""Constants of the VP preconditioning, which ours has no others of."""
TAPS = 16
"""Of a resampling filter, at most: each block has its own."""
SONG = {
    "augment_dim": 0,
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": [16],
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
}
ADM = {
    "augment_dim": 0,
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "channel_mult_emb": 4,
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
}
BLOCK = {
    "norm0": "norm0",
    "conv0": "conv0",
    "affine": "embed",
    "norm1": "norm1",
    "conv1": "conv1",
    "skip": "skip",
    "norm2": "attention.norm",
    "qkv": "attention.qkv",
    "proj": "attention.out",
}
"""Layers of a residual block: the file's name -> ours."""


def load(source: str, device: torch.device) -> Pretrained:
    """The denoiser in a network pickle: its `ema`, in float32.

    Raises:
        ValueError: not readable, of another kind, or its tensors are not those of our network.
    """
    content = read(source)
    try:
        return _built(Path(source), _whole(content), device)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    except (KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(
            f"{source}: an argument is missing or of another kind: {error}"
        ) from error


def _whole(content: object) -> Recorded:
    """The preconditioned network of a file's content."""
    whole = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(whole, Recorded):
        raise ValueError("wanted a mapping with a network under 'ema'")
    if whole.kind not in PRECONDITIONS:
        known = ", ".join(PRECONDITIONS)
        raise ValueError(f"a denoiser of class {whole.kind!r}; known are {known}")
    return whole


def _built(source: Path, whole: Recorded, device: torch.device) -> Pretrained:
    kind, usual = PRECONDITIONS[whole.kind]
    told = {**usual, "sigma_data": 0.5, "label_dim": 0, **whole.arguments}
    _check(told, whole.state)
    network = whole.part("model")
    name, options = _options(network)
    size, channels = int(told["img_resolution"]), int(told["img_channels"])
    if min(size, channels) < 1:
        raise ValueError(f"images of {channels} channels, {size} pixels wide: wanted at least 1")
    if 2 * _least(channels, options) > source.stat().st_size:
        raise ValueError("its network would have more weights than the file")
    backbone = architectures.build(name, options.pop("width"), (channels, size, size), **options)
    _fill(backbone, dict(tensors(network)), turned=name == "adm")
    n_params = architectures.n_params(backbone)
    denoiser = PRECONDITIONINGS[kind](backbone, told["sigma_data"])
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Pretrained(
        denoise=_single(denoiser, device),
        content=digest([source]),
        shape=(channels, size, size),
        sigma_min=float(told["sigma_min"]),
        sigma_max=float(told["sigma_max"]),
        about={
            "format": "edm",
            "network": name,
            "preconditioning": kind,
            "n_params": n_params,
        },
    )


def _check(told: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """ValueError where the arguments, or what became of them, make no denoiser of ours."""
    if told["label_dim"]:
        raise ValueError(f"the network is told {told['label_dim']} classes; images have none")
    for name, value in FIXED.items():
        for found in (told.get(name, value), held.get(name, value)):
            if found != value:
                raise ValueError(f"{name} {found!r}: the VP denoiser is known for {value} alone")
    low, high = told["sigma_min"], told["sigma_max"]
    if not 0 <= low < high or not 0 < told["sigma_data"] < math.inf:
        raise ValueError(
            f"noise levels from {low} to {high} with sigma_data {told['sigma_data']}:"
            " wanted increasing ones and a positive number"
        )


def _options(network: Recorded) -> tuple[str, dict[str, Any]]:
    """Our architecture and its options for a network's constructor arguments."""
    if network.kind == "SongUNet":
        told = {**SONG, **network.arguments}
        own = {
            "features": told["embedding_type"],
            "encoder": told["encoder_type"],
            "decoder": told["decoder_type"],
            "taps": list(told["resample_filter"]),
            "mult_noise": told["channel_mult_noise"],
        }
        name = "ncsnpp"
        if len(own["taps"]) > TAPS:
            raise ValueError(f"a filter of {len(own['taps'])} taps; wanted at most {TAPS}")
    elif network.kind == "DhariwalUNet":
        told, own, name = {**ADM, **network.arguments}, {}, "adm"
    else:
        raise ValueError(f"a network of class {network.kind!r}; known: SongUNet, DhariwalUNet")
    size, mult = int(told["img_resolution"]), list(told["channel_mult"])
    heights = [size >> level for level in range(len(mult))]
    return name, own | {
        "width": int(told["model_channels"]),
        "mult": mult,
        "blocks": told["num_blocks"],
        "attention": [h for h in heights if h in told["attn_resolutions"]],
        "mult_emb": told["channel_mult_emb"],
        "augment_dim": told["augment_dim"],
    }


def _least(channels: int, options: Mapping[str, Any]) -> int:
    """Weights that a network has at least: known before any memory is taken for them."""
    width = options["width"]
    features = options.get("mult_noise", 1) * width
    embedding = options["mult_emb"] * width
    blocks = sum(2 * options["blocks"] * 9 * (m * width) ** 2 for m in options["mult"])
    told = embedding * (embedding + features) + features * options["augment_dim"]
    return blocks + told + 9 * channels * width


@torch.no_grad()
def _fill(backbone: nn.Module, weights: dict[str, Tensor], *, turned: bool) -> None:
    """Put the file's weights into our network; ValueError unless each has its place.

    `turned`: the file's noise features are cosines, then sines, where ours begin with the sines.
    """
    names: dict[str, list[str]] = {}
    for ours, theirs in renamed(backbone):
        names.setdefault(ours, []).append(theirs)
    for name, parameter in backbone.named_parameters():
        module, _, leaf = name.rpartition(".")
        leaf = "freqs" if leaf == "frequencies" else leaf
        found = [f"{n}.{leaf}" for n in names[module] if f"{n}.{leaf}" in weights]
        if len(found) != 1:
            raise ValueError(f"no weights for {name}: wanted {names[module]} in the file")
        tensor = weights.pop(found[0])
        if not tensor.is_floating_point():
            raise ValueError(f"{found[0]} is of {tensor.dtype}, wanted floating-point numbers")
        if tensor.numel() == parameter.numel():
            tensor = tensor.reshape(parameter.shape)
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"{found[0]} is {tuple(tensor.shape)}, wanted {tuple(parameter.shape)}"
            )
        if module.endswith(".qkv"):
            tensor = _by_part(tensor, backbone.get_submodule(module.removesuffix(".qkv")).heads)
        if turned and name == "embed.layer0.weight":
            tensor = torch.cat(tensor.chunk(2, 1)[::-1], 1)
        if turned and name == "embed.augment.weight":
            tensor = torch.cat(tensor.chunk(2, 0)[::-1], 0)
        parameter.copy_(tensor)
    left = [name for name in weights if not name.endswith("resample_filter")]
    if left:
        raise ValueError(f"no place for {', '.join(sorted(left)[:5])}")


def _by_part(tensor: Tensor, heads: int) -> Tensor:
    """Rows (head, channel, part) in the order (part, head, channel); parts: query, key, value."""
    rows = len(tensor) // (3 * heads)
    return tensor.view(heads, rows, 3, *tensor.shape[1:]).movedim(2, 0).reshape(tensor.shape)


def _single(denoiser: Denoiser, device: torch.device) -> Callable[[Tensor, float], Tensor]:
    """The denoiser in its own precision, for images of any."""

    def denoise(y: Tensor, sigma: float) -> Tensor:
        return denoiser(y.to(device, torch.float32), sigma).to(y.device, y.dtype)

    return denoise


def renamed(backbone: nn.Module) -> Iterator[tuple[str, str]]:
    """Module of our network, module of the file: for every one that may have weights."""
    mult, size = backbone.layout.mult, backbone.layout.shape[1]
    yield "embed.features", "map_noise"
    yield "embed.augment", "map_augment"
    yield "embed.layer0", "map_layer0"
    yield "embed.layer1", "map_layer1"
    yield "input", f"enc.{size}x{size}_conv"
    for i, level in enumerate(backbone.encoder):
        here = f"enc.{size >> i}x{size >> i}"
        yield from _block(f"encoder.{i}.enter", f"{here}_down")
        yield f"encoder.{i}.image.conv", f"{here}_aux_residual"
        yield f"encoder.{i}.image", f"{here}_aux_skip"
        for k in range(len(level.blocks)):
            yield from _block(f"encoder.{i}.blocks.{k}", f"{here}_block{k}")
    lowest = size >> (len(mult) - 1)
    for k in range(2):
        yield from _block(f"bottom.{k}", f"dec.{lowest}x{lowest}_in{k}")
    for j, level in enumerate(backbone.decoder):
        rows = size >> (len(mult) - 1 - j)
        here = f"dec.{rows}x{rows}"
        yield from _block(f"decoder.{j}.enter", f"{here}_up")
        for k in range(len(level.blocks)):
            yield from _block(f"decoder.{j}.blocks.{k}", f"{here}_block{k}")
        yield f"decoder.{j}.output.0", f"{here}_aux_norm"
        yield f"decoder.{j}.output.2", f"{here}_aux_conv"
    yield f"decoder.{len(mult) - 1}.output.0", "out_norm"
    yield f"decoder.{len(mult) - 1}.output.2", "out_conv"


def _block(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for their_part, our_part in BLOCK.items():
        yield f"{ours}.{our_part}", f"{theirs}.{their_part}"
