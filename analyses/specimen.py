"""What an analysis receives: a training subset, a denoiser, and its evaluations, shared.

Each (inputs, sigma, draw) is evaluated once, whichever analyses ask for it and in which order.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from analyses.differential import TAPED, jvp, vjp
from analyses.sampler import SIGMA_MAX, Path, dense, edm_grid, states
from analyses.subset import Denoiser, Subset

__all__ = ["Denoiser", "Specimen", "Subset", "calls"]

T = TypeVar("T")


@dataclass(eq=False)
class Specimen(Subset):
    """A subset and the denoiser that was trained on it."""

    denoiser: Denoiser = field(kw_only=True)
    """D(y "n d" float64, sigma) -> "n d"; the caller hides shape, precision and device."""
    eval_batch: int = field(default=512, kw_only=True)
    """Rows of one call of the denoiser; part of what the numbers depend on, to the last bit."""
    labels: Int64[Tensor, " s"] | None = field(default=None, kw_only=True)
    """What the denoiser is told of each sample, if it is told anything: D(y, sigma, labels).

    Such a denoiser has samples alone: other inputs have no labels.
    """
    name: str | None = field(default=None, kw_only=True)
    """The oracle that the denoiser is, if it is one: its outputs are then shared by all cells."""
    memo: dict[Hashable, object] = field(default_factory=dict, repr=False, kw_only=True)
    """What analyses of this specimen share, forgotten with its noise level."""
    kept: dict[Hashable, object] = field(default_factory=dict, repr=False, kw_only=True)
    """What analyses share at all noise levels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_batch < 2:
            raise ValueError(f"Specimen: `eval_batch` must be at least 2, got {self.eval_batch}.")

    @classmethod
    def of(
        cls, subset: Subset, denoiser: Denoiser, eval_batch: int = 512, name: str | None = None
    ) -> "Specimen":
        """`subset` with a denoiser."""
        given = {f.name: getattr(subset, f.name) for f in fields(Subset)}
        specimen = cls(**given, denoiser=denoiser, eval_batch=eval_batch, name=name)
        specimen.levels = subset.levels
        return specimen

    @classmethod
    def of_oracle(cls, subset: Subset, name: str) -> "Specimen":
        """`subset` with one of its own oracles in the place of a network: a bracket."""
        return cls.of(subset, subset.oracle(name), name=name)

    def only(self, sigma: float) -> "Specimen":
        """The same at one noise level: `memo` is empty, `kept` is shared."""
        one = super().only(sigma)
        one.memo = {}
        return one

    def once(self, key: Hashable, build: Callable[[], T]) -> T:
        """`build()`, once per specimen and noise level."""
        if key not in self.memo:
            self.memo[key] = build()
        return self.memo[key]

    def keep(self, key: Hashable, build: Callable[[], T]) -> T:
        """`build()`, once per snapshot; of an oracle, once per process and subset."""
        if self.name:
            return self.shared(("oracle", self.name, key), build)
        if key not in self.kept:
            self.kept[key] = build()
        return self.kept[key]

    @torch.no_grad()
    def apply(
        self, y: Float[Tensor, "n d"], sigma: float, labels: Int64[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n d"]:
        """D(y; sigma) in float64, in calls of `eval_batch` rows, never of a single one.

        A lone remaining row joins the last call: batches of one row alone round differently.
        """
        out = torch.empty_like(y, dtype=torch.float64)
        for rows in calls(len(y), self.eval_batch):
            told = () if labels is None else (labels[rows],)
            out[rows] = self.denoiser(y[rows], sigma, *told)
        return out

    def linearize(
        self, y: Float[Tensor, "n d"], v: Float[Tensor, "n d"], sigma: float
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """D(y; sigma) and J(y) v, the derivative of each row along v, in calls as of `apply`."""
        out, along = (torch.empty_like(y, dtype=torch.float64) for _ in range(2))
        for rows in calls(len(y), self.eval_batch):
            out[rows], along[rows] = jvp(self.denoiser, y[rows], v[rows], sigma)
        return out, along

    def pull(
        self, y: Float[Tensor, "n d"], u: Float[Tensor, "n d"], sigma: float
    ) -> Float[Tensor, "n d"]:
        """J(y)^T u, the derivative of u . D by each row, in calls of few rows."""
        found = torch.empty_like(y, dtype=torch.float64)
        for rows in calls(len(y), min(self.eval_batch, TAPED)):
            found[rows] = vjp(self.denoiser, y[rows], u[rows], sigma)
        return found

    def inputs(
        self, law: str, sigma: float, draws: int = 1
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k m d"]]:
        """As of a `Subset`; of the law `path`, the states of the denoiser's own paths.

        Those are as many draws as there are samples for, and x is where the paths end.
        """
        if law != "path":
            return super().inputs(law, sigma, draws)
        path = self.path()
        m = self.n_points("path")
        k = min(draws, len(path.samples) // m)
        return path.samples[:m], path.at[sigma][: k * m].view(k, m, self.dim)

    def evaluate(
        self, law: str, sigma: float, draws: int = 1
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k m d"], Float[Tensor, "k m d"]]:
        """Clean images "m d", noisy inputs and outputs D(y) "draws m d"; do not edit them.

        Draws are evaluated one by one and kept: the batches, and so the last bits, do not depend
        on how many draws are asked for or in which order.
        """
        x, y = self.inputs(law, sigma, draws)
        if self.name and law != "path":
            return x, y, self.reference(self.name, law, sigma, draws)
        if law == "path" and sigma in self.path().out:
            return x, y, self.path().out[sigma][: y[..., 0].numel()].view_as(y)
        key = ("evaluate", law, sigma)
        known = self.memo.get(key, torch.empty(0, *x.shape, dtype=torch.float64))
        if len(known) < len(y):
            out = torch.empty_like(y)
            out[: len(known)] = known
            for k in range(len(known), len(y)):
                out[k] = self.apply(y[k], sigma)
            self.memo[key] = known = out
        return x, y, known[: len(y)]

    def reference(
        self, name: str, law: str, sigma: float, draws: int = 1
    ) -> Float[Tensor, "k m d"]:
        """Output "draws m d" of an oracle on `inputs`."""
        if law != "path":
            return super().reference(name, law, sigma, draws)
        _, y = self.inputs(law, sigma, draws)
        return torch.stack([self.oracle(name)(draw, sigma) for draw in y])

    def path(self) -> Path:
        """Samples from the common latents and the states of their paths at all noise levels."""

        def build() -> Path:
            n, steps, solver = self.sampler.samples, self.sampler.steps, self.sampler.solver
            start = SIGMA_MAX * self.latents(n)
            denoise = partial(self.apply, labels=self.labels)
            path = dense(states(denoise, start, edm_grid(steps), solver), self.levels)
            broken = int((~path.samples.isfinite().all(1)).sum())
            if broken:
                raise FloatingPointError(f"{broken} of {n} samples are not finite.")
            return path

        return self.keep(("path", self.sampler, self.levels), build)

    def samples(self) -> Float[Tensor, "n d"]:
        """Samples "n d" of the denoiser from the common latents."""
        return self.path().samples


def calls(n: int, most: int) -> list[slice]:
    """The rows of each call of a denoiser: `most`, and one more rather than one alone."""
    starts = list(range(0, n, most))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(*ends) for ends in zip(starts, [*starts[1:], n], strict=True)]
