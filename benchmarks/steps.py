"""Training steps of our backbones beside a UNet2DModel of diffusers of about equal FLOPs.

Forward, loss and backward on random images, one after the other in one process; what is compared
is images per second times GFLOP of a forward pass, so that sizes need not be equal to the last
digit. Without the optimiser, which is the same for both.
"""

import argparse
import os
import time

import torch

from trainables.architectures import build, forward_flops
from trainables.denoiser import PRECONDITIONINGS, loss

SHAPE = (3, 32, 32)
BATCH = 16


def ours(name, width, **options):
    """A denoiser of ours and GFLOP of its forward pass."""
    backbone = build(name, width, SHAPE, **options)
    with torch.device("meta"):
        flops = forward_flops(build(name, width, SHAPE, **options), SHAPE)
    return PRECONDITIONINGS["edm"](backbone, 0.5).train(), flops / 1e9


def theirs(channels, layers):
    """A UNet2DModel behind the same preconditioning, and GFLOP of its forward pass."""
    from diffusers import UNet2DModel

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = UNet2DModel(
                sample_size=32,
                block_out_channels=(channels, 2 * channels, 2 * channels),
                layers_per_block=layers,
                norm_num_groups=8,
                down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            )

        def forward(self, x, c_noise):
            return self.network(x, 1000 * c_noise, return_dict=False)[0]

    wrapped = Wrapped()
    return PRECONDITIONINGS["edm"](wrapped, 0.5).train(), forward_flops(wrapped, SHAPE) / 1e9


def images_per_second(denoiser, spent):
    """Of steps taken for `spent` seconds."""
    x, eps = torch.randn(2, BATCH, *SHAPE)
    sigma = torch.full((BATCH,), 0.5)

    def step():
        loss(denoiser, x, sigma, eps).mean().backward()
        for p in denoiser.parameters():
            p.grad = None

    step()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < spent:
        step()
        done += BATCH
    return done / (time.perf_counter() - start)


def main():
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="does it run at all?")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    cases = {
        "diffusers UNet2DModel": theirs(16 if quick else 64, 1 if quick else 2),
        "ddpmpp": ours("ddpmpp", 8 if quick else 32),
        "ncsnpp": ours("ncsnpp", 8 if quick else 32),
        "adm": ours("adm", 8 if quick else 32),
    }
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" {torch.get_num_threads()} threads\n"
    )
    print(
        "| | GFLOP a forward | images/s | images/s x GFLOP | ratio |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    base = None
    rounds = {name: [] for name in cases}
    for _ in range(1 if quick else 3):  # in turn, so that a slow minute is everyone's
        for name, (denoiser, _) in cases.items():
            rounds[name].append(images_per_second(denoiser, 0.2 if quick else 5.0))
    for name, (_, gflop) in cases.items():
        rate = max(rounds[name])
        base = base or rate * gflop
        print(
            f"| {name} | {gflop:.2f} | {rate:.1f} | {rate * gflop:.1f} |"
            f" {rate * gflop / base:.2f} |"
        )


if __name__ == "__main__":
    main()
