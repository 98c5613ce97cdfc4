"""What every worker of a run is handed: the sweep, its facts, its fingerprints and its store."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from analyses.sampler import Sampler
from engine.grid import Subset, Trial
from engine.resolve import Facts, config_of
from engine.spec import Sweep
from engine.store import Store
from trainables.datasets.data import Data
from trainables.denoiser import Denoiser
from trainables.train import TrainConfig, build_denoiser

ELSEWHERE = (OSError, MemoryError)
"""What says that the place failed and not the work: it is tried again elsewhere."""


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
        )


def use_threads(job: Job) -> None:
    """One process, `numerics.threads` threads: a warm worker may come with another number."""
    if torch.get_num_threads() != job.sweep.numerics.threads:
        torch.set_num_threads(job.sweep.numerics.threads)


def training_points(data: Data, subset: Subset) -> np.ndarray:
    """The images of a training set (n c h w), a copy."""
    return data.subset(subset["n_train"], draw=subset["draw"], split=subset["split"])
