"""Trainings in processes of their own, where nothing checks shapes: those are not to be compiled.

python -m tests.trainables.elsewhere compiled FOLDER
python -m tests.trainables.elsewhere rank FOLDER RANK WORLD
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.backbones import OPTIONS
from trainables.config import TrainConfig
from trainables.train import build_denoiser, train

SHAPE = (1, 4, 4)
CONFIG = TrainConfig(batch=4, lr=1e-3, warmup_kimg=0.0, ema_halflife_kimg=0.01)


def started(*arguments):
    """The process of one of the lines above."""
    command = [sys.executable, "-m", "tests.trainables.elsewhere", *map(str, arguments)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def perceptron(config=CONFIG, **how):
    """The last snapshot of a small MLP's training."""
    images = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))
    denoiser = build_denoiser("mlp", 16, SHAPE, {"depth": 1}, config, 0.5)
    return list(train(denoiser, images, config, (0.012,), seed=0, draw=0, **how))[-1]


def told_network(kimg=0.02, **how):
    """That of a small NCSN++ in float64, that is told labels and computes its blocks again."""
    config = replace(CONFIG, checkpointing=True, labels="class")
    images = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))
    denoiser = build_denoiser(
        "ncsnpp", 4, SHAPE, OPTIONS["ncsnpp"], config, 0.5, dtype=torch.float64, labels=3
    )
    labels = torch.arange(6) % 3
    steps = train(denoiser, images, config, (kimg,), seed=0, draw=0, labels=labels, **how)
    return list(steps)[-1]


def compiled(folder):
    """A compiled training, whole and cut after its first step."""
    config, states = replace(CONFIG, compile=True), []
    whole = perceptron(config, on_step=lambda training: states.append(training.state()))
    cut = perceptron(config, state=states[0])
    torch.save([whole.raw, cut.raw], folder / "weights.pt")


def rank(folder, number, world):
    """One rank of a data-parallel training."""
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", meeting, rank=number, world_size=world)
    found = told_network(wrap=DistributedDataParallel, rank=number, world=world)
    torch.save([found.raw, found.ema], folder / f"weights-{number}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    name, folder, *numbers = sys.argv[1:]
    {"compiled": compiled, "rank": rank}[name](Path(folder), *map(int, numbers))
