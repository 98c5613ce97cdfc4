r"""Training one denoiser: a generator of snapshots that can be resumed at any step, bit for bit.

Nothing depends on the horizon: the learning rate is constant after a warm-up, the average's
half-life follows the images seen so far, every batch has the same size, and what is drawn at step
t is a function of t alone. So the snapshot at 64 kimg is the same bits whether (64,) or
(16, 64, 256) was asked for. Settings: Karras et al. 2022 (EDM, arXiv 2206.00364), table 1, app. F.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from trainables import architectures, ema, optimizers
from trainables.architectures.blocks import Checkpointed
from trainables.architectures.labelled import tell
from trainables.augmentation import LABEL
from trainables.batches import Batches
from trainables.config import TrainConfig
from trainables.denoiser import PRECONDITIONINGS, Denoiser, loss
from trainables.registry import lookup
from trainables.streams import seed_of

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
    labels: int = 0,
) -> Denoiser:
    """An untrained denoiser whose weights depend on `seed` and the architecture alone.

    `sigma_data` is the data's measured one; the config's takes its place if it is not None. The
    weights are drawn in float32 on the CPU and then cast; the global generator is left as it was.
    `labels` is the number of labels that the denoiser is told, 0 if none.
    Raises ValueError for a backbone that is a denoiser itself under another preconditioning than
    "none".
    """
    precondition = lookup("preconditioning", config.preconditioning, PRECONDITIONINGS)
    if backbone_name in architectures.DENOISERS and config.preconditioning != "none":
        raise ValueError(
            f"The backbone {backbone_name!r} is a denoiser itself: `preconditioning` must be "
            f"'none', got {config.preconditioning!r}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("init", seed))
        backbone = architectures.build(backbone_name, width, shape, **options)
    if labels:
        tell(backbone, labels)
    scale = sigma_data if config.sigma_data is None else config.sigma_data
    return precondition(backbone, scale).to(device=device, dtype=dtype).eval()


def prepare(denoiser: Denoiser, config: TrainConfig) -> None:
    """Set how `denoiser` computes while it trains; ValueError for a backbone that cannot."""
    backbone = denoiser.backbone
    if config.checkpointing:
        if not isinstance(backbone, Checkpointed):
            raise ValueError(
                f"`checkpointing`: a backbone of kind {type(backbone).__name__} has no blocks that"
                " could be computed again; wanted false."
            )
        backbone.checkpointing = True
    if config.channels_last:
        backbone.to(memory_format=torch.channels_last)
    if config.augment and getattr(backbone, "augment_dim", 0) != LABEL:
        raise ValueError(
            f"`augment` {config.augment:g}: the backbone is not told of it and would learn to draw"
            f" augmented images; wanted one with `augment_dim` {LABEL}, or `xflip` alone."
        )
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA is first used
    torch.use_deterministic_algorithms(config.deterministic)
    denoiser.autocast = None if config.autocast == "none" else getattr(torch, config.autocast)
    denoiser.train()
    if config.compile:
        denoiser.compile()


def _copy(tensor: Tensor) -> Tensor:
    """A copy on the CPU, in the usual layout whatever that of the training."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


class Training:
    """One training in progress: `advance` takes a step, `state` is all that a resume needs."""

    def __init__(
        self,
        denoiser: Denoiser,
        images: Float[Tensor, "n c h w"],
        config: TrainConfig,
        *,
        seed: int,
        draw: int,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        rank: int = 0,
        world: int = 1,
        width: int | None = None,
        labels: Int64[Tensor, " n"] | None = None,
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
        share = slice(rank * config.batch // world, (rank + 1) * config.batch // world)
        images = images.to(device=self.device, dtype=self.dtype)
        labels = None if labels is None else labels.to(self.device)
        self.batches = Batches(images, config, seed=seed, draw=draw, share=share, labels=labels)
        self.config, self.rate = config, config.rate(width)
        prepare(denoiser, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.autocast == "float16")
        drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in denoiser.modules())
        self._dropout = ("dropout", seed, rank) if drops else None
        self.module = wrap(denoiser) if wrap else denoiser
        self.ema = {name: p.detach().clone() for name, p in self.raw.items()}
        self.optimizer = optimizers.build(config, denoiser.parameters(), self.device)
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

    def advance(self) -> None:
        """One step. Raises FloatingPointError if a recent loss was not finite."""
        x, sigma, eps = self.batches(self.step)
        with self._random():
            told = self.batches.labels(self.step), self.batches.augment(self.step)
            value = loss(self.module, x, sigma, eps, *told).mean()
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(value).backward()
        self.scaler.unscale_(self.optimizer)
        for p in self.raw.values():
            if p.grad is not None:
                torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)
        # The ramp counts the step's own images: a first step at rate 0 would only be lost.
        ramp = (self.images_seen + self.config.batch) / max(1000 * self.config.warmup_kimg, 1)
        self.optimizer.param_groups[0]["lr"] = self.rate * min(ramp, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average(value.detach() / x[0].numel())
        self.step += 1
        if self.step % CHECK_EVERY == 0:
            self.check()

    @contextmanager
    def _random(self) -> Iterator[None]:
        """Where a backbone drops features: which ones is a function of the step, too."""
        if self._dropout is None:
            yield
            return
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed_of(*self._dropout, self.step))
            yield

    def _average(self, value: Tensor) -> None:
        """The moving averages of weights and loss take in the step just made."""
        c = self.config
        beta = ema.beta(c.batch, self.images_seen, c.ema_halflife_kimg, c.ema_rampup)
        ema.update(self._averages, self._weights, beta)
        # Not lerp: at beta = 0 it would carry an earlier nan along, and a resume would not.
        self._loss = value.double() if beta == 0 else beta * self._loss + (1 - beta) * value

    def _trained(self) -> list[tuple[str, Tensor]]:
        """The weights that the optimiser moves: frozen ones are stored beside them."""
        return [(name, p) for name, p in self.raw.items() if p.requires_grad]

    def check(self) -> None:
        """FloatingPointError if a loss was not finite: the average of the losses keeps a nan."""
        if self.step and not math.isfinite(self.stream_loss):
            kimg = self.images_seen / 1000
            raise FloatingPointError(
                f"The training loss is not finite ({self.stream_loss}) at step {self.step} "
                f"({kimg:g} kimg) or in the {CHECK_EVERY} steps before: lower `lr` {self.rate:g}?"
            )

    def state(self) -> dict[str, Tensor]:
        """All that a resume needs, as copies: weights, averages, moments, step and mean loss.

        No generator state: what a step draws is keyed by the step.
        """
        tensors = {f"raw.{name}": p for name, p in self.raw.items()}
        tensors |= {f"ema.{name}": p for name, p in self.ema.items()}
        for name, p in self._trained():
            for moment in optimizers.moments(self.config):
                # A scaled gradient may have overflowed in every step so far.
                value = self.optimizer.state[p].get(moment, torch.zeros_like(p))
                tensors[f"{self.config.optimizer}.{moment}.{name}"] = value
        tensors |= {"step": torch.tensor(self.step), "stream_loss": self._loss}
        tensors |= self._scaled()
        return {name: _copy(tensor) for name, tensor in tensors.items()}

    def _scaled(self) -> dict[str, Tensor]:
        """Of a scaled loss: the scale, the steps since it grew, and the steps really taken."""
        if not self.scaler.is_enabled():
            return {}
        _, first = self._trained()[0]
        scaler = self.scaler.state_dict()
        return {
            "scaler.scale": torch.tensor(scaler["scale"]),
            "scaler.growth": torch.tensor(scaler["_growth_tracker"]),
            "scaler.steps": torch.as_tensor(self.optimizer.state[first].get("step", 0.0)),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken.

        ValueError if it belongs to another denoiser or optimiser.
        """
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
        steps = float(state.get("scaler.steps", self.step))
        for name, p in self._trained():
            if self.step:
                # In the weights' own layout, which may have channels last.
                self.optimizer.state[p] = {
                    moment: torch.empty_like(p).copy_(
                        state[f"{self.config.optimizer}.{moment}.{name}"]
                    )
                    for moment in optimizers.moments(self.config)
                }
                if self.config.optimizer == "adam":
                    self.optimizer.state[p]["step"] = torch.tensor(steps, device=self.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(
                self.scaler.state_dict()
                | {
                    "scale": float(state["scaler.scale"]),
                    "_growth_tracker": int(state["scaler.growth"]),
                }
            )

    def snapshot(self, kimg: int | float) -> Snapshot:
        """The weights now, called the snapshot at `kimg`."""
        self.check()
        ema, raw = (
            {name: _copy(p) for name, p in weights.items()} for weights in (self.ema, self.raw)
        )
        return Snapshot(kimg, self.step, self.images_seen, self.stream_loss, ema, raw)


def train(
    denoiser: Denoiser,
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
    width: int | None = None,
    labels: Int64[Tensor, " n"] | None = None,
) -> Iterator[Snapshot]:
    """Train `denoiser` in place on `images` and yield a snapshot at each time in `kimg`.

    `seed` chooses batches and noise, `draw` is the data's permutation (it enters the batches).
    With the `state` of an earlier training the rest is done: times before it are left out, its
    own time is yielded at once. `on_step` is called after every step: the place to checkpoint.
    `wrap` makes the module data-parallel; each of `world` ranks takes its slice of every batch.
    `width` is the backbone's, which a config with `lr_width` needs for its rate. `labels`: what
    the denoiser is told of each image.
    Raises ValueError at the call, FloatingPointError while training if the loss is not finite.
    """
    times = [(k, steps_at(k, config.batch)) for k in kimg]
    steps = [step for _, step in times]
    if steps != sorted(set(steps)) or any(k < 0 for k in kimg):
        raise ValueError(f"`kimg` must increase by at least a batch each, got {list(kimg)}.")
    training = Training(
        denoiser,
        images,
        config,
        seed=seed,
        draw=draw,
        wrap=wrap,
        rank=rank,
        world=world,
        width=width,
        labels=labels,
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
