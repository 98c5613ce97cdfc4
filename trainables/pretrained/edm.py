"""Networks of the EDM format (Karras et al. 2022, arXiv 2206.00364), read without executing them.

Such a file pickles a mapping whose `ema` is a preconditioned U-Net, with the source code of its
classes as text. Read are the arguments of the constructors and the weights (`modules`); the
network is then this project's own DDPM++, NCSN++ or ADM with those weights. Tensors are matched
by name, all of them and no others, so that a network of another layout is refused and not guessed.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables import architectures
from trainables.denoiser import PRECONDITIONINGS, Denoiser
from trainables.pretrained.model import Pretrained, digest
from trainables.pretrained.modules import Recorded, read, tensors

__all__ = ["load", "renamed"]

PRECONDITIONS = {
    "EDMPrecond": ("edm", {"model_type": "DhariwalUNet", "sigma_min": 0.0, "sigma_max": math.inf}),
    "VPPrecond": ("vp", {"model_type": "SongUNet"}),
    "VEPrecond": ("ve", {"model_type": "SongUNet", "sigma_min": 0.02, "sigma_max": 100.0}),
}
"""Class of the denoiser -> our preconditioning, and the arguments that it has by default."""
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
    whole = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(whole, Recorded):
        raise ValueError(f"{source}: wanted a mapping with a network under 'ema'")
    if whole.kind not in PRECONDITIONS:
        known = ", ".join(PRECONDITIONS)
        raise ValueError(f"{source}: a denoiser of class {whole.kind!r}; known are {known}")
    try:
        return _built(source, whole, device)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source}: an argument is missing or of another kind: {error}"
        ) from error


def _built(source: str, whole: Recorded, device: torch.device) -> Pretrained:
    kind, usual = PRECONDITIONS[whole.kind]
    told = {**usual, "sigma_data": 0.5, "label_dim": 0, **whole.arguments}
    if told["label_dim"]:
        raise ValueError(
            f"{source}: the network is told {told['label_dim']} classes; images have none"
        )
    network = whole.part("model")
    name, options = _options(source, network)
    size, channels = int(told["img_resolution"]), int(told["img_channels"])
    backbone = architectures.build(name, options.pop("width"), (channels, size, size), **options)
    _fill(source, backbone, dict(tensors(network)), turned=name == "adm")
    n_params = architectures.n_params(backbone)
    denoiser = PRECONDITIONINGS[kind](backbone, float(told["sigma_data"]))
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Pretrained(
        denoise=_single(denoiser, device),
        content=digest([Path(source)]),
        shape=(channels, size, size),
        sigma_min=float(told.get("sigma_min", 0.0)),
        sigma_max=float(told.get("sigma_max", math.inf)),
        about={
            "format": "edm",
            "network": name,
            "preconditioning": kind,
            "n_params": n_params,
        },
    )


def _options(source: str, network: Recorded) -> tuple[str, dict[str, Any]]:
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
    elif network.kind == "DhariwalUNet":
        told, own, name = {**ADM, **network.arguments}, {}, "adm"
    else:
        raise ValueError(
            f"{source}: a network of class {network.kind!r}; known: SongUNet, DhariwalUNet"
        )
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


@torch.no_grad()
def _fill(source: str, backbone: nn.Module, weights: dict[str, Tensor], *, turned: bool) -> None:
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
            raise ValueError(
                f"{source}: no weights for {name}: wanted {names[module]} in the file"
            )
        tensor = weights.pop(found[0])
        if tensor.numel() == parameter.numel():
            tensor = tensor.reshape(parameter.shape)
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"{source}: {found[0]} is {tuple(tensor.shape)}, wanted {tuple(parameter.shape)}"
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
        raise ValueError(f"{source}: no place for {', '.join(sorted(left)[:5])}")


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
