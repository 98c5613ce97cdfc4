"""What an analysis receives: a training subset, a denoiser, and its evaluations, shared.

Each (inputs, sigma, draw) is evaluated once, whichever analyses ask for it and in which order.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.sampler import sample
from analyses.subset import Denoiser, Subset

__all__ = ["Denoiser", "Specimen", "Subset"]

T = TypeVar("T")


@dataclass(eq=False)
class Specimen(Subset):
    """A subset and the denoiser that was trained on it."""

    denoiser: Denoiser
    """D(y "n d" float64, sigma) -> "n d"; the caller hides shape, precision and device."""
    eval_batch: int = 512
    """Rows of one call of the denoiser; part of what the numbers depend on, to the last bit."""
    memo: dict[Hashable, object] = field(default_factory=dict, repr=False)
    """What analyses of this specimen share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_batch < 2:
            raise ValueError(f"Specimen: `eval_batch` must be at least 2, got {self.eval_batch}.")

    @classmethod
    def of(cls, subset: Subset, denoiser: Denoiser, eval_batch: int = 512) -> "Specimen":
        """`subset` with a denoiser."""
        return cls(
            subset.train,
            subset.heldout,
            subset.pool,
            subset.sigmas,
            subset.shape,
            subset.stream,
            denoiser,
            eval_batch,
        )

    def only(self, sigma: float) -> "Specimen":
        """The same at one noise level, with empty memos."""
        one = super().only(sigma)
        one.memo = {}
        return one

    def once(self, key: Hashable, build: Callable[[], T]) -> T:
        """`build()`, once per specimen."""
        if key not in self.memo:
            self.memo[key] = build()
        return self.memo[key]

    @torch.no_grad()
    def apply(self, y: Float[Tensor, "n d"], sigma: float) -> Float[Tensor, "n d"]:
        """D(y; sigma) in float64, in calls of `eval_batch` rows, never of a single one.

        A lone remaining row joins the last call: batches of one row alone round differently.
        """
        out = torch.empty_like(y, dtype=torch.float64)
        starts = list(range(0, len(y), self.eval_batch))
        if len(starts) > 1 and len(y) - starts[-1] == 1:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], len(y)], strict=True):
            out[start:stop] = self.denoiser(y[start:stop], sigma)
        return out

    def evaluate(
        self, law: str, sigma: float, draws: int = 1
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k m d"], Float[Tensor, "k m d"]]:
        """Clean images "m d", noisy inputs and outputs D(y) "draws m d"; do not edit them.

        Draws are evaluated one by one and kept: the batches, and so the last bits, do not depend
        on how many draws are asked for or in which order.
        """
        x, y = self.inputs(law, sigma, draws)
        key = ("evaluate", law, sigma)
        known = self.memo.get(key, torch.empty(0, *x.shape, dtype=torch.float64))
        if len(known) < draws:
            out = torch.empty_like(y)
            out[: len(known)] = known
            for k in range(len(known), draws):
                out[k] = self.apply(y[k], sigma)
            self.memo[key] = known = out
        return x, y, known[:draws]

    def samples(self, n: int, steps: int = 18, solver: str = "heun") -> Float[Tensor, "n d"]:
        """Samples "n d" of the denoiser from the common latents."""

        def build() -> Tensor:
            samples = sample(self.apply, self.latents(n), steps, solver)
            broken = int((~samples.isfinite().all(1)).sum())
            if broken:
                raise FloatingPointError(f"{broken} of {n} samples are not finite.")
            return samples

        return self.once(("samples", n, steps, solver), build)
