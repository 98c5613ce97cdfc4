"""What every worker of a run is handed: the sweep, its facts, its fingerprints and its store."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from analyses.sampler import Sampler
from engine.grid import Cell, Subset, Trial
from engine.resolve import Facts, config_of
from engine.spec import Sweep
from engine.store import Store
from trainables.datasets.data import Data
from trainables.denoiser import Denoiser
from trainables.streams import stream
from trainables.train import TrainConfig, build_denoiser

ELSEWHERE = (OSError, MemoryError)
"""What says that the place failed and not the work: it is tried again elsewhere."""
TO_LOWER = (
    "lower resources.concurrency, data.resolution, data.n_heldout or axes.width, or give each"
    " trial more of the machine (resources.cpus_per_trial); then --retry-failed"
)
"""What to do against a lack of memory. Never a smaller batch: that would change the numbers."""


class OutOfMemory(MemoryError):
    """There was not enough memory; the message says what to lower."""


@contextlib.contextmanager
def naming_memory() -> Iterator[None]:
    """Turn every way in which numpy and torch say that memory ran out into `OutOfMemory`."""
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        cuda = isinstance(error, torch.OutOfMemoryError)
        # On CPUs torch raises a bare RuntimeError.
        cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not (cuda or cpu):
            raise
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise OutOfMemory(f"{said}; {TO_LOWER}") from error


@dataclass(frozen=True)
class Job:
    """One run of one sweep, as it travels to the workers (small and picklable)."""

    sweep: Sweep
    facts: Facts
    prints: Mapping[str, Any]
    """Fingerprints (`engine.resolve.fingerprints`)."""
    store: Store

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of training and of the network's evaluations."""
        return getattr(torch, self.sweep.numerics.precision)

    def piece_print(self, at: Cell | Subset, name: str) -> str:
        """The fingerprint that a piece of an analysis must have."""
        return self.prints["pieces" if isinstance(at, Cell) else "subset_pieces"][name]

    @cached_property
    def sampler(self) -> Sampler:
        """How analyses draw samples."""
        return Sampler(**self.sweep.sampler.model_dump())

    def config(self, trial: Trial) -> TrainConfig:
        """Training options of a trial."""
        return config_of(self.sweep, trial)

    def denoiser(self, trial: Trial, device: torch.device) -> Denoiser:
        """The untrained denoiser of a trial, initialised by its seed."""
        return build_denoiser(
            self.sweep.backbone.name,
            trial["width"],
            self.facts.data.shape,
            {**self.sweep.backbone.options, **trial.options("backbone")},
            self.config(trial),
            sigma_data=self.facts.data.sigma_data,
            seed=trial["seed"],
            dtype=self.dtype,
            device=device,
            labels=self._n_labels(trial),
        )

    def _n_labels(self, trial: Trial) -> int:
        """How many labels the denoiser of a trial is told."""
        kind = self.config(trial).labels
        if kind == "unique":
            return trial["n_train"] // self.sweep.data.options.get("copies", 1)
        return 0 if kind == "none" else self.facts.data.n_classes

    def labels(self, data: Data, trial: Trial) -> torch.Tensor | None:
        """The label of each training point; None where the denoiser is told none."""
        kind, subset = self.config(trial).labels, trial.subset
        if kind == "none":
            return None
        chosen = {axis: subset[axis] for axis in ("draw", "split")}
        return torch.from_numpy(data.subset_labels(kind, subset["n_train"], **chosen))

    def drawn_labels(self, data: Data, trial: Trial, n: int) -> torch.Tensor | None:
        """Labels of n samples, each that of a training point drawn at random; None without."""
        labels = self.labels(data, trial)
        if labels is None:
            return None
        points = [
            int(torch.randint(len(labels), (1,), generator=stream("latents", "label", i)))
            for i in range(n)
        ]
        return labels[points]


def clock_of(device: torch.device) -> Callable[[], float]:
    """What counts the seconds that work on a device costs.

    On a CPU those of this process alone: others share its core, and it pays for none.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


def memory_here() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def use_threads(job: Job) -> None:
    """One process, `numerics.threads` threads: a warm worker may come with another number."""
    if torch.get_num_threads() != job.sweep.numerics.threads:
        torch.set_num_threads(job.sweep.numerics.threads)


def training_points(data: Data, subset: Subset) -> np.ndarray:
    """The images of a training set (n c h w), a copy."""
    return data.subset(subset["n_train"], draw=subset["draw"], split=subset["split"])
