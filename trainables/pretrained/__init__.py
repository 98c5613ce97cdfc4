"""Denoisers trained elsewhere, by the format they come in: each a function load(source, device).

No format executes what it reads: weights come from safetensors, or from pickles whose every name
is a stand-in. The one exception says so: a Python callable is the user's own.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from trainables.pretrained import diffusers, edm, function
from trainables.pretrained.model import Pretrained

__all__ = ["FORMATS", "Pretrained", "format_of", "load"]

FORMATS: dict[str, Callable[[str, torch.device], Pretrained]] = {
    "diffusers": diffusers.load,
    "edm": edm.load,
    "function": function.load,
}


def format_of(source: str) -> str:
    """The format that a source looks like; ValueError names what is known if none.

    >>> format_of("package.module:denoise")
    'function'
    """
    path = Path(source)
    if path.is_dir() and any((path / name).is_file() for name in diffusers.CONFIGS):
        return "diffusers"
    if path.is_file() and path.suffix == ".pkl":
        return "edm"
    if not path.exists() and function.NAME.fullmatch(source):
        return "function"
    raise ValueError(
        f"{source}: not a denoiser that can be read; wanted a snapshot of a sweep (.safetensors),"
        f" a diffusers folder ({' or '.join(diffusers.CONFIGS)} in it), a network of EDM (.pkl),"
        " or module:function"
    )


def load(source: str, device: torch.device) -> Pretrained:
    """The denoiser behind a source.

    Raises:
        ValueError: it is not there, not readable, or not a denoiser of images.
    """
    return FORMATS[format_of(source)](source, device)
