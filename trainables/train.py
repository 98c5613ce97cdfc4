r"""Training one denoiser: a generator of snapshots that can be resumed at any step, bit for bit.

Nothing depends on the horizon: the learning rate is constant after a warm-up, the average's
half-life follows the images seen so far, every batch has the same size, and what is drawn at step
t is a function of t alone. So the snapshot at 64 kimg is the same bits whether (64,) or
(16, 64, 256) was asked for. Settings: Karras et al. 2022 (EDM, arXiv 2206.00364), table 1, app. F.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainables import architectures, ema, noise
from trainables.config import TrainConfig
from trainables.denoiser import EDM, PRECONDITIONINGS, loss
from trainables.registry import lookup
from trainables.streams import seed_of, stream

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class Snapshot:
    """The weights at one training time, on the CPU, apart from the training that goes on."""

    kimg: int | float
    """The training time asked for, in thousands of images."""
    step: int
    """Optimiser steps taken."""
    images_seen: int
    """Images seen, step x batch: at least 1000 kimg."""
    stream_loss: float
    """Moving average of the weighted training loss per pixel, as the optimiser saw it."""
    ema: dict[str, Tensor]
    """The averaged weights: what is analysed."""
    raw: dict[str, Tensor]
    """The weights the optimiser holds."""


def steps_at(kimg: int | float, batch: int) -> int:
    """The first step after which `kimg` thousand images have been seen: ceil(1000 kimg / batch).

    >>> steps_at(1, 512), steps_at(0.512, 512)
    (2, 1)
    """
    # Rounded to a millionth of an image: 1000 x .001 kimg must not become one step too many.
    return math.ceil(round(1000 * kimg, 6) / batch)


def build_denoiser(
    backbone_name: str,
    width: int,
    shape: tuple[int, int, int],
    options: Mapping[str, Any],
    config: TrainConfig,
    sigma_data: int | float,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> EDM:
    """An untrained denoiser whose weights depend on `seed` and the architecture alone.

    `sigma_data` is the data's measured one; the config's takes its place if it is not None. The
    weights are drawn in float32 on the CPU and then cast; the global generator is left as it was.
    """
    precondition = lookup("preconditioning", config.preconditioning, PRECONDITIONINGS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("init", seed))
        backbone = architectures.build(backbone_name, width, shape, **options)
    scale = sigma_data if config.sigma_data is None else config.sigma_data
    return precondition(backbone, scale).to(device=device, dtype=dtype)


class Training:
    """One training in progress: `advance` takes a step, `state` is all that a resume needs."""

    def __init__(
        self,
        denoiser: EDM,
        images: Float[Tensor, "n c h w"],
        config: TrainConfig,
        *,
        seed: int,
        draw: int,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`denoiser` is trained in place; see `train` for the arguments."""
        if config.batch % world or not 0 <= rank < world:
            raise ValueError(
                f"`batch` must be a multiple of the {world} workers and `rank` one of them, "
                f"got batch {config.batch} and rank {rank}."
            )
        self.raw: dict[str, Tensor] = dict(denoiser.named_parameters())
        extra = denoiser.state_dict().keys() - self.raw.keys()
        if extra:
            raise ValueError(f"A backbone may keep no state but parameters, got {sorted(extra)}.")
        first = next(iter(self.raw.values()))
        self.device, self.dtype = first.device, first.dtype
        self.images = images.to(device=self.device, dtype=self.dtype)
        self.denoiser, self.config, self.seed, self.draw = denoiser, config, seed, draw
        self.module = wrap(denoiser) if wrap else denoiser
        self.share = slice(rank * config.batch // world, (rank + 1) * config.batch // world)
        self.ema = {name: p.detach().clone() for name, p in self.raw.items()}
        self.adam = torch.optim.Adam(
            denoiser.parameters(), lr=config.lr, fused=self.device.type in ("cpu", "cuda")
        )
        self.step = 0
        self._weights = [p.detach() for p in self.raw.values()]
        self._averages = list(self.ema.values())
        self._loss = torch.zeros((), dtype=torch.float64, device=self.device)

    @property
    def images_seen(self) -> int:
        """Images seen by all workers together."""
        return self.step * self.config.batch

    @property
    def stream_loss(self) -> float:
        """Moving average of this worker's weighted loss per pixel; nan before the first step."""
        return self._loss.item() if self.step else math.nan

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's images, noise levels and noise of the next step.

        Every worker draws the whole batch and takes its slice, on the CPU: the numbers depend on
        neither the number of workers nor the device.
        """
        n, shape = self.config.batch, self.images.shape[1:]
        chosen = stream("batch", self.seed, self.draw, self.step)
        index = torch.randint(len(self.images), (n,), generator=chosen)[self.share]
        noises = stream("noise", self.seed, self.step)
        normals = torch.randn(n, dtype=self.dtype, generator=noises)[self.share]
        eps = torch.randn(n, *shape, dtype=self.dtype, generator=noises)[self.share]
        sigma = noise.lognormal(normals, self.config.p_mean, self.config.p_std)
        x = self.images.index_select(0, index.to(self.device))
        return x, sigma.to(self.device), eps.to(self.device)

    def advance(self) -> None:
        """One step. Raises FloatingPointError if a recent loss was not finite."""
        x, sigma, eps = self._draw()
        value = loss(self.module, x, sigma, eps).mean()
        self.adam.zero_grad(set_to_none=True)
        value.backward()
        for p in self.raw.values():
            if p.grad is not None:
                torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)
        # The ramp counts the step's own images: a first step at rate 0 would only be lost.
        ramp = (self.images_seen + self.config.batch) / max(1000 * self.config.warmup_kimg, 1)
        self.adam.param_groups[0]["lr"] = self.config.lr * min(ramp, 1.0)
        self.adam.step()
        self._average(value.detach() / x[0].numel())
        self.step += 1
        if self.step % CHECK_EVERY == 0:
            self.check()

    def _average(self, value: Tensor) -> None:
        """The moving averages of weights and loss take in the step just made."""
        c = self.config
        beta = ema.beta(c.batch, self.images_seen, c.ema_halflife_kimg, c.ema_rampup)
        ema.update(self._averages, self._weights, beta)
        # Not lerp: at beta = 0 it would carry an earlier nan along, and a resume would not.
        self._loss = value.double() if beta == 0 else beta * self._loss + (1 - beta) * value

    def check(self) -> None:
        """FloatingPointError if a loss was not finite: the average of the losses keeps a nan."""
        if self.step and not math.isfinite(self.stream_loss):
            kimg = self.images_seen / 1000
            raise FloatingPointError(
                f"The training loss is not finite at step {self.step} ({kimg:g} kimg) "
                f"or in the {CHECK_EVERY} steps before: lower `lr` {self.config.lr:g}?"
            )

    def state(self) -> dict[str, Tensor]:
        """All that a resume needs, as copies: weights, averages, moments, step and mean loss.

        No generator state: what a step draws is keyed by the step.
        """
        tensors = {f"raw.{name}": p for name, p in self.raw.items()}
        tensors |= {f"ema.{name}": p for name, p in self.ema.items()}
        for name, p in self.raw.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                value = self.adam.state[p][moment] if self.step else torch.zeros_like(p)
                tensors[f"adam.{moment}.{name}"] = value
        tensors |= {"step": torch.tensor(self.step), "stream_loss": self._loss}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken. ValueError if it belongs to another denoiser."""
        mine = {name: tensor.shape for name, tensor in self.state().items()}
        theirs = {name: tensor.shape for name, tensor in state.items()}
        if mine != theirs:
            differ = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
            raise ValueError(f"The state is of another denoiser: {', '.join(differ[:3])} differ.")
        self.step = int(state["step"])
        self._loss = state["stream_loss"].to(self.device).clone()
        for name, p in self.raw.items():
            p.copy_(state[f"raw.{name}"])
            self.ema[name].copy_(state[f"ema.{name}"])
            if self.step:
                self.adam.state[p] = {
                    "step": torch.tensor(float(self.step), device=self.device),
                    "exp_avg": state[f"adam.exp_avg.{name}"].to(p, copy=True),
                    "exp_avg_sq": state[f"adam.exp_avg_sq.{name}"].to(p, copy=True),
                }

    def snapshot(self, kimg: int | float) -> Snapshot:
        """The weights now, called the snapshot at `kimg`."""
        self.check()
        ema, raw = (
            {name: p.detach().cpu().clone() for name, p in weights.items()}
            for weights in (self.ema, self.raw)
        )
        return Snapshot(kimg, self.step, self.images_seen, self.stream_loss, ema, raw)


def train(
    denoiser: EDM,
    images: Float[Tensor, "n c h w"],
    config: TrainConfig,
    kimg: Sequence[int | float],
    *,
    seed: int,
    draw: int,
    state: Mapping[str, Tensor] | None = None,
    on_step: Callable[[Training], None] | None = None,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Snapshot]:
    """Train `denoiser` in place on `images` and yield a snapshot at each time in `kimg`.

    `seed` chooses batches and noise, `draw` is the data's permutation (it enters the batches).
    With the `state` of an earlier training the rest is done: times before it are left out, its
    own time is yielded at once. `on_step` is called after every step: the place to checkpoint.
    `wrap` makes the module data-parallel; each of `world` ranks takes its slice of every batch.
    Raises ValueError at the call, FloatingPointError while training if the loss is not finite.
    """
    times = [(k, steps_at(k, config.batch)) for k in kimg]
    steps = [step for _, step in times]
    if steps != sorted(set(steps)) or any(k < 0 for k in kimg):
        raise ValueError(f"`kimg` must increase by at least a batch each, got {list(kimg)}.")
    training = Training(
        denoiser, images, config, seed=seed, draw=draw, wrap=wrap, rank=rank, world=world
    )
    if state is not None:
        training.load_state(state)
    return _snapshots(training, times, on_step)


def _snapshots(
    training: Training,
    times: Sequence[tuple[int | float, int]],
    on_step: Callable[[Training], None] | None,
) -> Iterator[Snapshot]:
    for kimg, step in times:
        if step < training.step:
            continue
        while training.step < step:
            training.advance()
            if on_step:
                on_step(training)
        yield training.snapshot(kimg)
