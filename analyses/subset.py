r"""The points of one training subset, its noise levels, common random numbers and oracles.

Noisy inputs are :math:`y = x + \sigma\epsilon`, where the noise of image i and draw k comes from
its own stream: the same for training and held-out images and for every cell, so that differences
between cells are paired. What depends on the points alone is computed once per process.
"""

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cache import SHARED, digest
from analyses.labels import INPUTS
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser, KappaDenoiser
from analyses.sampler import DEFAULT, SIGMA_MAX, Sampler

__all__ = ["Denoiser", "Subset"]

T = TypeVar("T")
Denoiser = Callable[..., Tensor]


@dataclass(eq=False)
class Subset:
    """The points of one (data set, n_train, draw, split) and the noise levels to look at."""

    train: Float[Tensor, "n d"]
    """Training points, cast to float64."""
    heldout: Float[Tensor, "m d"]
    """Held-out points, as `train`; their number m >= 4 is the number of inputs of either law."""
    pool: Moments
    """Moments of everything training points are drawn from (exact ones if known)."""
    sigmas: tuple[float, ...]
    """Noise levels, positive and distinct, in pixels."""
    shape: tuple[int, ...]
    """(c, h, w) with c h w = d."""
    stream: Callable[..., torch.Generator]
    """stream(purpose, *key) -> generator; a pure function, the source of all randomness."""
    sampler: Sampler = DEFAULT
    """How samples of denoisers are drawn."""
    subspaces: tuple[Float[Tensor, "d _k"], ...] = ()
    """Orthonormal bases of the subspaces that the data consist of, where they are known."""

    def __post_init__(self) -> None:
        self.levels = self.sigmas
        self.train, self.heldout = self.train.double(), self.heldout.double()
        sizes = {
            self.train.shape[1],
            self.heldout.shape[1],
            self.pool.dim,
            int(np.prod(self.shape)),
        }
        if len(sizes) > 1:
            raise ValueError(
                f"Subset: `train`, `heldout`, `pool` and `shape` must agree on the number of "
                f"pixels, got {self.train.shape[1]}, {self.heldout.shape[1]}, {self.pool.dim} "
                f"and {self.shape}."
            )
        if len(self.train) < 2 or len(self.heldout) < 4:
            raise ValueError(
                f"Subset: needs at least 2 training and 4 held-out points, got "
                f"{len(self.train)} and {len(self.heldout)}."
            )
        if not self.sigmas or min(self.sigmas) <= 0 or len(set(self.sigmas)) < len(self.sigmas):
            raise ValueError(f"Subset: `sigmas` must be positive and distinct, got {self.sigmas}.")

    @classmethod
    def of_images(
        cls,
        train: Float[np.ndarray, "n c h w"],
        heldout: Float[np.ndarray, "m c h w"],
        pool: Moments,
        sigmas: tuple[float, ...],
        stream: Callable[..., torch.Generator],
        sampler: Sampler = DEFAULT,
    ) -> "Subset":
        """The subset of training and held-out images as arrays, flattened in CHW order."""
        rows = (torch.tensor(images).flatten(1) for images in (train, heldout))
        return Subset(*rows, pool, sigmas, train.shape[1:], stream, sampler)

    @cached_property
    def key(self) -> tuple[Hashable, ...]:
        """Content of the data (not only its size) and the source of randomness."""
        return digest(self.train), digest(self.heldout), self.pool.digest, self.stream

    @cached_property
    def moments(self) -> Moments:
        """Moments of the training points."""
        return self.shared(("moments",), lambda: Moments.of_points(self.train))

    @cached_property
    def gaussian(self) -> GaussianDenoiser:
        """D_G of the training points."""
        return GaussianDenoiser(self.moments)

    @cached_property
    def gaussian_pool(self) -> GaussianDenoiser:
        """D_G of the pool."""
        return GaussianDenoiser(self.pool)

    @cached_property
    def kappa(self) -> KappaDenoiser:
        """D_kappa: the expected D_G of n_train points of the pool."""
        return KappaDenoiser(self.pool, len(self.train))

    @cached_property
    def empirical(self) -> EmpiricalDenoiser:
        """D_M of the training points."""
        return EmpiricalDenoiser(self.train)

    @cached_property
    def surrogate(self) -> Float[Tensor, "s d"]:
        """Samples of D_G by its exact flow from the common latents: as many as of any denoiser,
        and copies of nothing."""

        def build() -> Tensor:
            start = SIGMA_MAX * self.latents(self.sampler.samples)
            return self.gaussian.flow(start, SIGMA_MAX, 0.0)

        return self.shared(("surrogate", self.sampler.samples), build)

    @property
    def dim(self) -> int:
        """d, the number of pixels."""
        return self.train.shape[1]

    @property
    def n_inputs(self) -> int:
        """m, the number of inputs of either law."""
        return len(self.heldout)

    def n_points(self, law: str) -> int:
        """Distinct images among the inputs of `law`: input i shows point i mod this."""
        if law == "path":
            return min(self.sampler.samples, self.n_inputs)
        return self.n_inputs if law == "noise" else min(len(self._points(law)), self.n_inputs)

    def only(self, sigma: float) -> "Subset":
        """The same at one noise level (`levels` keeps them all), with empty memos."""
        if sigma not in self.sigmas:
            raise ValueError(f"only: sigma {sigma} is not one of {self.sigmas}.")
        one = copy.copy(self)
        one.sigmas = (sigma,)
        return one

    def shared(
        self, name: tuple[Hashable, ...], build: Callable[[], T], enough: Callable | None = None
    ) -> T:
        """`build()`, once per process for every subset of equal content (see `analyses.cache`)."""
        return SHARED.get((*self.key, *name), build, enough)

    def oracle(self, name: str) -> Denoiser:
        """The oracle called gaussian, gaussian_pool, kappa or empirical."""
        if name not in ("gaussian", "gaussian_pool", "kappa", "empirical"):
            raise ValueError(
                f"Unknown oracle {name!r}: choose from gaussian, gaussian_pool, kappa, empirical."
            )
        return getattr(self, name)

    def inputs(
        self, law: str, sigma: float, draws: int = 1
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k m d"]]:
        """Clean images "m d" of the law and their noisy versions "draws m d"; do not edit them.

        Of the law `noise` the clean image is 0. The law `path` is a denoiser's own: `Specimen`.
        """
        if draws < 1:
            raise ValueError(f"inputs: `draws` must be at least 1, got {draws}.")
        if law == "path":
            raise ValueError("inputs: the law 'path' needs a denoiser, a Subset has none.")
        if law == "noise":
            x = torch.zeros_like(self.heldout)
            return x, sigma * self._noise(sigma, draws)
        points, m = self._points(law), self.n_inputs
        x = points[torch.arange(m) % len(points)]
        # The held-out inputs are those of every subset: their key leaves the training points out.
        key = ("inputs", self.key[INPUTS.index(law)], self.stream, law, m, sigma.hex())
        y = SHARED.get(
            key, lambda: x + sigma * self._noise(sigma, draws), lambda y: len(y) >= draws
        )
        return x, y[:draws]

    def latents(self, n: int) -> Float[Tensor, "n d"]:
        """Standard normal latents "n d" that all cells share; the first of them never change."""
        if n < 1:
            raise ValueError(f"latents: `n` must be at least 1, got {n}.")
        d, stream = self.dim, self.stream
        z = SHARED.get(
            ("latents", stream, d),
            lambda: torch.stack([_normal(stream("latents", i), d) for i in range(n)]),
            lambda z: len(z) >= n,
        )
        return z[:n]

    def reference(
        self, name: str, law: str, sigma: float, draws: int = 1
    ) -> Float[Tensor, "k m d"]:
        """Output "draws m d" of an oracle on `inputs`, once per process and subset."""

        def build() -> Tensor:
            # Draw by draw, so that the last bits do not depend on how many draws come along.
            _, y = self.inputs(law, sigma, draws)
            return torch.stack([self.oracle(name)(draw, sigma) for draw in y])

        key = ("reference", name, law, sigma.hex())
        return self.shared(key, build, lambda out: len(out) >= draws)[:draws]

    def _points(self, law: str) -> Float[Tensor, "n d"]:
        if law not in INPUTS:
            raise ValueError(f"Unknown input law {law!r}: choose from {', '.join(INPUTS)}.")
        if law in ("noise", "path"):
            raise ValueError(f"The input law {law!r} has no points.")
        return self.train if law == "train" else self.heldout

    def _noise(self, sigma: float, draws: int) -> Float[Tensor, "k m d"]:
        m, d, stream = self.n_inputs, self.dim, self.stream

        def build() -> Tensor:
            rows = [
                _normal(stream("probe", sigma.hex(), i, k), d)
                for k in range(draws)
                for i in range(m)
            ]
            return torch.stack(rows).view(draws, m, d)

        return SHARED.get(
            ("noise", stream, m, d, sigma.hex()), build, lambda noise: len(noise) >= draws
        )[:draws]


def _normal(generator: torch.Generator, d: int) -> Float[Tensor, " d"]:
    return torch.randn(d, generator=generator, dtype=torch.float64)
