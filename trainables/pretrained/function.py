"""A Python callable as a denoiser: `module:function`, called as D(y "n c h w", sigma)."""

import importlib
import re
import sys
from hashlib import blake2b
from pathlib import Path

import torch

from trainables.pretrained.model import Pretrained

__all__ = ["NAME", "load"]

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def load(source: str, device: torch.device) -> Pretrained:
    """The callable named `module:function`; the module is imported, from the working folder too.

    It is the user's own code and runs as such. Its fingerprint is that of the module's file: what
    else its numbers depend on, its author knows.

    Raises:
        ValueError: no such module or attribute, or it cannot be called.
    """
    module_name, _, path = source.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{source}: cannot import {module_name}: {error}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{source}: {module_name} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{source}: wanted a callable D(y, sigma), got {type(found).__name__}")
    file = getattr(module, "__file__", None)
    code = Path(file).read_bytes() if file else module_name.encode()
    content = blake2b(code + path.encode(), digest_size=16).hexdigest()
    return Pretrained(found, content, about={"format": "function", "callable": source})
