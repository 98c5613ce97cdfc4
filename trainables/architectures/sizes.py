"""Sizes of published networks, and what the same configurations have here.

Sources: the labels of figure 7 of arXiv 2410.24060 ("64k, 251k, 992k, 4M, 16M, 64M") are NCSN++ at
64 x 64 pixels by width; the exact numbers are those of Karras et al. 2022 (EDM, arXiv 2206.00364,
table 7), of NCSN++ and DDPM++ with the 9 numbers of an augmentation label, of ADM without labels.
DiT: Peebles & Xie 2023 (arXiv 2212.09748, tables 1 and 4), told 1000 classes or none, where half
of the output is a variance that a denoiser has not. GFLOP are of one forward pass, two per
multiply-add.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trainables.architectures import build, forward_flops, n_params
from trainables.architectures.labelled import tell


@dataclass(frozen=True)
class Published:
    """One configuration that the literature gives the size of."""

    name: str
    resolution: int
    width: int
    parameters: int
    """As published, exact unless `rounding` says otherwise."""
    gflop: float | None = None
    """As published, to the digits given."""
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 3
    labels: int = 0
    """Classes that the network is told."""
    rounding: int = 1
    """Unit to which the published number of parameters is rounded."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images (c, h, w)."""
        return self.channels, self.resolution, self.resolution

    def ours(self, *, count_flops: bool = True) -> tuple[int, float]:
        """Parameters here, and GFLOP of a forward pass (nan if not counted)."""
        with torch.device("meta"):
            backbone = build(self.name, self.width, self.shape, **self.options)
            flops = forward_flops(backbone, self.shape) if count_flops else float("nan")
            if self.labels:
                tell(backbone, self.labels)
        return n_params(backbone), flops / 1e9


def _by_width(
    name: str, resolution: int, parameters: tuple[int, ...], gflop: Mapping[int, float]
) -> Iterator[Published]:
    for width, size in zip((4, 8, 16, 32, 64, 128), parameters, strict=True):
        yield Published(name, resolution, width, size, gflop.get(width))


PUBLISHED = (
    *_by_width(
        "ncsnpp",
        64,
        (64_583, 251_531, 992_531, 3_942_947, 15_717_443, 62_761_091),
        {4: 0.097, 8: 0.36, 16: 1.38, 32: 5.39, 64: 21.3, 128: 84.9},
    ),
    *_by_width(
        "ddpmpp",
        64,
        (63_491, 247_491, 977_027, 3_882_243, 15_477_251, 61_805_571),
        {128: 83.7},
    ),
    *_by_width(
        "ncsnpp",
        32,
        (58_179, 226_307, 892_419, 3_544_067, 14_125_059, 56_397_827),
        {4: 0.054, 8: 0.19, 16: 0.71, 32: 2.75, 64: 10.8, 128: 42.8},
    ),
    Published("adm", 64, 192, 295_131_267, 219.0),
    *(
        Published(
            "dit",
            32,
            width,
            millions * 10**6,
            2 * multiply_adds,
            options={"depth": depth, "heads": heads},
            channels=4,
            labels=1001,
            rounding=10**6,
        )
        for width, depth, heads, millions, multiply_adds in (
            (384, 12, 6, 33, 6.06),
            (768, 12, 12, 130, 23.01),
            (1024, 24, 16, 458, 80.71),
            (1152, 28, 16, 675, 118.64),
        )
    ),
)
