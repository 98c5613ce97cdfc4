"""Networks of the EDM format, built from their equations: weights by the file's names, and D.

A second reading of arXiv 2206.00364 (appendix and table 7), 2011.13456 (appendix H) and 2105.05233
beside `trainables.architectures`: functional, every weight is made where it is first used, and
what the file format says of their order (queries, keys and values interleaved; cosines before
sines in ADM) is taken as it lies there.
"""

import math
import pickle
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SONG = {
    "channel_mult_emb": 4,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
}
NCSN = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}


@dataclass
class Network:
    """One network: the arguments of its constructor, and its weights as they come up."""

    kind: str
    """SongUNet or DhariwalUNet."""
    arguments: dict[str, Any]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __post_init__(self) -> None:
        defaults = SONG if self.kind == "SongUNet" else {"channel_mult_emb": 4}
        self.told = {**defaults, "augment_dim": 0, **self.arguments}
        self.song = self.kind == "SongUNet"
        self.rho = math.sqrt(0.5) if self.song else 1.0
        self.taps = torch.tensor(self.told.get("resample_filter", [1, 1]), dtype=torch.float64)

    # Layers --------------------------------------------------------------------------------------

    def get(self, name, *shape):
        """The weight of that name, drawn when it is first asked for."""
        if name not in self.weights:
            drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
            self.weights[name] = drawn / math.sqrt(math.prod(shape[1:]) or 1)
        assert self.weights[name].shape == shape
        return self.weights[name]

    def conv(self, name, x, outputs, size=3):
        weight = self.get(f"{name}.weight", outputs, x.shape[1], size, size)
        return F.conv2d(x, weight, self.get(f"{name}.bias", outputs), padding=size // 2)

    def linear(self, name, x, outputs):
        return x @ self.get(f"{name}.weight", outputs, x.shape[1]).T + self.get(
            f"{name}.bias", outputs
        )

    def norm(self, name, x):
        n, c, h, w = x.shape
        groups = min(32, c // 4)
        parts = x.reshape(n, groups, -1)
        centred = parts - parts.mean(2, keepdim=True)
        eps = 1e-6 if self.song else 1e-5
        unit = centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()
        weight, bias = self.get(f"{name}.weight", c), self.get(f"{name}.bias", c)
        return unit.reshape(n, c, h, w) * weight[:, None, None] + bias[:, None, None]

    def resampled(self, x, mode):
        """The filter along rows, then columns, with every other pixel left out or put in."""
        taps, pad = self.taps / self.taps.sum(), (len(self.taps) - 1) // 2
        for _ in range(2):
            n, c, h, w = x.shape
            rows = x.reshape(-1, 1, w)
            if mode == "down":
                rows = F.conv1d(F.pad(rows, (pad, pad)), taps.view(1, 1, -1))[..., ::2]
            else:
                spread = torch.zeros(len(rows), 1, 2 * w, dtype=x.dtype)
                spread[..., ::2] = rows
                around = (len(taps) - 1 - pad, pad)
                rows = F.conv1d(F.pad(spread, around), 2 * taps.flip(0).view(1, 1, -1))
            x = rows.reshape(n, c, h, -1).mT
        return x

    def attention(self, name, x):
        n, c, h, w = x.shape
        heads = 1 if self.song else max(1, c // 64)
        mixed = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", x), 3 * c, 1)
        q, k, v = mixed.reshape(n, heads, c // heads, 3, h * w).unbind(3)
        weights = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(c // heads)).softmax(3)
        out = torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(n, c, h, w)
        return (x + self.conv(f"{name}.proj", out, c, 1)) * self.rho

    def block(self, name, x, e, outputs, mode="", *, attends=False):
        def moved(y):
            return self.resampled(y, mode) if mode else y

        h = self.conv(f"{name}.conv0", moved(F.silu(self.norm(f"{name}.norm0", x))), outputs)
        told = self.linear(f"{name}.affine", e, outputs * (1 if self.song else 2))[
            :, :, None, None
        ]
        if self.song:
            h = self.norm(f"{name}.norm1", h + told)
        else:
            scale, shift = told.chunk(2, 1)
            h = shift + self.norm(f"{name}.norm1", h) * (1 + scale)
        h = self.conv(f"{name}.conv1", F.silu(h), outputs)
        skip = moved(x)
        if x.shape[1] != outputs or (mode and self.song):
            skip = self.conv(f"{name}.skip", skip, outputs, 1)
        h = (skip + h) * self.rho
        return self.attention(name, h) if attends else h

    # The whole -----------------------------------------------------------------------------------

    def embedding(self, code):
        told, width = self.told, self.told["model_channels"]
        size = width * told["channel_mult_noise"] if self.song else width
        half = size // 2
        if told.get("embedding_type") == "fourier":
            angles = torch.outer(code, 2 * math.pi * self.get("map_noise.freqs", half))
        else:
            last = half - 1 if self.song else half
            angles = torch.outer(code, 1e-4 ** (torch.arange(half, dtype=torch.float64) / last))
        both = [angles.sin(), angles.cos()]
        e = torch.cat(both if self.song else both[::-1], 1)
        if told["augment_dim"]:
            self.get("map_augment.weight", size, told["augment_dim"])  # of zeros it makes zeros
        e = F.silu(self.linear("map_layer0", e, width * told["channel_mult_emb"]))
        return F.silu(self.linear("map_layer1", e, width * told["channel_mult_emb"]))

    def __call__(self, x, code):
        """F(x, noise code)."""
        told, size = self.told, x.shape[2]
        mult, blocks = told["channel_mult"], told["num_blocks"]
        width, encoder, decoder = (
            told["model_channels"],
            told.get("encoder_type"),
            told.get("decoder_type"),
        )
        e, image, kept = self.embedding(code), x, []
        h = self.conv(f"enc.{size}x{size}_conv", x, width)
        kept.append(h)
        for level, m in enumerate(mult):
            at = f"{size >> level}x{size >> level}"
            attends = size >> level in told["attn_resolutions"]
            if level:
                h = self.block(f"enc.{at}_down", h, e, h.shape[1], "down")
                if encoder == "skip":
                    image = self.resampled(image, "down")
                    h = h + self.conv(f"enc.{at}_aux_skip", image, h.shape[1], 1)
                if encoder == "residual":
                    h = image = (
                        h + self.filtered(f"enc.{at}_aux_residual", image, h.shape[1])
                    ) * self.rho
                kept.append(h)
            for i in range(blocks):
                h = self.block(f"enc.{at}_block{i}", h, e, m * width, attends=attends)
                kept.append(h)
        out = None
        for level, m in reversed(list(enumerate(mult))):
            at = f"{size >> level}x{size >> level}"
            attends = size >> level in told["attn_resolutions"]
            if level == len(mult) - 1:
                h = self.block(f"dec.{at}_in0", h, e, h.shape[1], attends=True)
                h = self.block(f"dec.{at}_in1", h, e, h.shape[1])
            else:
                h = self.block(f"dec.{at}_up", h, e, h.shape[1], "up")
            for i in range(blocks + 1):
                here = attends and (not self.song or i == blocks)
                h = self.block(
                    f"dec.{at}_block{i}", torch.cat([h, kept.pop()], 1), e, m * width, attends=here
                )
            if decoder == "skip" or level == 0:
                out = None if out is None else self.resampled(out, "up")
                names = (
                    (f"dec.{at}_aux_norm", f"dec.{at}_aux_conv")
                    if self.song
                    else ("out_norm", "out_conv")
                )
                made = self.conv(names[1], F.silu(self.norm(names[0], h)), x.shape[1])
                out = made if out is None else out + made
        return out

    def filtered(self, name, x, outputs):
        """A convolution within a wider border, then the filter and every other pixel."""
        pad = (len(self.taps) - 1) // 2
        weight = self.get(f"{name}.weight", outputs, x.shape[1], 3, 3)
        h = F.conv2d(x, weight, self.get(f"{name}.bias", outputs), padding=1 + pad)
        kernel = torch.outer(self.taps, self.taps) / self.taps.sum() ** 2
        return F.conv2d(h, kernel.expand(outputs, 1, -1, -1), stride=2, groups=outputs)


def tiny(**more):
    """A network of few weights, of images of 8 x 8 with one channel."""
    told = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "model_channels": 4}
    told |= {"channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    network = Network("SongUNet", told | more)
    network(torch.zeros(1, 1, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    return network


# The file ----------------------------------------------------------------------------------------


class Persistent:
    """An object that is pickled with the source code of its class."""

    def __init__(self, kind, state):
        self.kind, self.state = kind, state

    def __reduce__(self):
        util, persistence = sys.modules["dnnlib.util"], sys.modules["torch_utils.persistence"]
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('run')",
            "class_name": self.kind,
        }
        return persistence._reconstruct_persistent_obj, (util.EasyDict(meta, state=self.state),)


@contextmanager
def _format_modules():
    """The modules that such a file names, for as long as it is written."""

    def easy(self, *given, **more):
        dict.__init__(self, *given, **more)

    made = {
        name: types.ModuleType(name)
        for name in ("dnnlib", "dnnlib.util", "torch_utils", "torch_utils.persistence")
    }
    made["dnnlib.util"].EasyDict = type(
        "EasyDict", (dict,), {"__module__": "dnnlib.util", "__init__": easy}
    )

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the file was executed")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    made["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


HOOKS = (
    "_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def _state(own, buffers, parts, arguments):
    """What a module holds: torch's own, and numbers of numpy where the format computes with it."""
    return {
        "training": False,
        "_parameters": OrderedDict({"bias": None, **own}),
        "_buffers": OrderedDict({"resample_filter": None, **buffers}),
        "_non_persistent_buffers_set": set(),
        "_is_full_backward_hook": None,
        **{hooks: OrderedDict() for hooks in HOOKS},
        "_modules": parts,
        "_init_args": (),
        "_init_kwargs": arguments,
        "skip_scale": np.sqrt(0.5),
        "adaptive_scale": np.bool_(False),
        "num_heads": np.int64(1),
        "init": {"init_mode": "xavier_uniform", "init_weight": np.sqrt(np.float32(0.2))},
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "resolution": torch.Size((16, 16)),
    }


def _module(tensors, arguments=None, kind="", *, container=None):
    """A module's state out of tensors by dotted name."""
    parts, own, buffers = OrderedDict(), OrderedDict(), OrderedDict()
    for name, tensor in tensors.items():
        head, dot, rest = name.partition(".")
        if dot:
            parts.setdefault(head, {})[rest] = tensor
        elif name in ("freqs", "resample_filter"):
            buffers[name] = tensor
        else:
            own[name] = nn.Parameter(tensor, requires_grad=False)
    made = OrderedDict(
        (
            name,
            _module(
                some, kind="Part", container=nn.ModuleDict if name in ("enc", "dec") else None
            ),
        )
        for name, some in parts.items()
    )
    if container is not None:
        module = container()
        module.__dict__["_modules"] = made
        return module
    arguments = {"skip_scale": np.sqrt(0.5)} if arguments is None else arguments
    return Persistent(kind, _state(own, buffers, made, arguments))


def pickled(
    network, precondition, told, *, dtype=torch.float32, change=None, protocol=4, held=None
):
    """The bytes of a network's file.

    `change` may replace its tensors by name, `held` are attributes of the preconditioned network.
    """
    tensors = {name: w.to(dtype) for name, w in network.weights.items()}
    if change is not None:
        tensors = change(tensors)
    inner = _module(tensors, network.arguments, network.kind)
    outer = _module({}, told, precondition)
    outer.state["_modules"]["model"] = inner
    outer.state |= held or {}
    with _format_modules():
        options = sys.modules["dnnlib.util"].EasyDict(
            class_name="training.dataset.ImageFolderDataset"
        )
        content = {"ema": outer, "loss_fn": Persistent("EDMLoss", {"sigma_data": 0.5})}
        content |= {"augment_pipe": None, "dataset_kwargs": options}
        return pickle.dumps(content, protocol)
