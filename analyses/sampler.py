r"""Deterministic samples of any denoiser along the probability flow, and the states on the way.

:math:`\frac{dy}{d\sigma} = \frac{y - D(y;\sigma)}{\sigma}`, from :math:`\sigma_{max} z` down to 0
on the grid of EDM, with Euler or Heun steps (arXiv:2206.00364, Algorithm 1 and equation 5).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

__all__ = [
    "DEFAULT",
    "SIGMA_MAX",
    "SIGMA_MIN",
    "SOLVERS",
    "Path",
    "Sampler",
    "State",
    "dense",
    "edm_grid",
    "sample",
    "states",
]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
SOLVERS = ("heun", "euler")
Denoise = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn: one setting for all analyses of a sweep, so that they share them."""

    samples: int = 512
    """Samples from the common latents."""
    steps: int = 18
    """Noise levels of the grid."""
    solver: str = "heun"
    """`heun` (2 steps - 1 evaluations) or `euler` (steps)."""

    def __post_init__(self) -> None:
        """ValueError names the field, its value and what is allowed."""
        if self.samples < 4:
            raise ValueError(f"Sampler: `samples` must be at least 4, got {self.samples}.")
        if self.steps < 2:
            raise ValueError(f"Sampler: `steps` must be at least 2, got {self.steps}.")
        if self.solver not in SOLVERS:
            raise ValueError(
                f"Sampler: unknown solver {self.solver!r}, choose from {', '.join(SOLVERS)}."
            )

    @property
    def evaluations(self) -> int:
        """Denoiser evaluations of one sample."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps


DEFAULT = Sampler()


class State(NamedTuple):
    """Where the paths stand at one noise level of the grid, and what the denoiser says there."""

    sigma: float
    y: Float[Tensor, "n d"]
    out: Float[Tensor, "n d"]

    @property
    def slope(self) -> Float[Tensor, "n d"]:
        """dy/dsigma."""
        return (self.y - self.out) / self.sigma


class Path(NamedTuple):
    """Samples and the states of their paths at some noise levels."""

    samples: Float[Tensor, "n d"]
    at: dict[float, Float[Tensor, "n d"]]
    """y at each level, by dense output."""
    out: dict[float, Float[Tensor, "n d"]]
    """D(y) at those levels that are on the sampler's own grid."""


def edm_grid(
    steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = 7
) -> tuple[float, ...]:
    r"""The noise levels :math:`(\sigma_{max}^{1/\rho} + \frac{i}{n-1} (\sigma_{min}^{1/\rho} -
    \sigma_{max}^{1/\rho}))^\rho`, i = 0..n-1, without the final 0.

    >>> [round(sigma, 3) for sigma in edm_grid(4)]
    [80.0, 9.723, 0.47, 0.002]
    """
    if steps < 1:
        raise ValueError(f"edm_grid: `steps` must be at least 1, got {steps}.")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"edm_grid: needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}."
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    grid = [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)]
    # The ends exactly: roots and powers would leave them an ulp away from the levels asked for.
    grid[0] = sigma_max
    if steps > 1:
        grid[-1] = sigma_min
    return tuple(grid)


def states(
    denoiser: Denoise, y: Float[Tensor, "n d"], grid: Sequence[float], solver: str = "heun"
) -> Iterator[State]:
    """The state at every level of the decreasing `grid`, from `y` at its first level.

    The step from the last level to noise 0 is an Euler step, which returns the denoised output
    itself: the sample is the last state's `out`.
    """
    if solver not in SOLVERS:
        raise ValueError(f"sample: unknown solver {solver!r}, choose from {', '.join(SOLVERS)}.")
    y = y.double()
    for sigma, after in pairwise(grid):
        state = State(sigma, y, denoiser(y, sigma))
        yield state
        slope = state.slope
        ahead = y + (after - sigma) * slope
        if solver == "heun":
            slope = (slope + (ahead - denoiser(ahead, after)) / after) / 2
            ahead = y + (after - sigma) * slope
        y = ahead
    yield State(grid[-1], y, denoiser(y, grid[-1]))


def sample(
    denoiser: Denoise,
    latents: Float[Tensor, "n d"],
    steps: int = 18,
    solver: str = "heun",
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> Float[Tensor, "n d"]:
    """Samples "n d" from standard normal `latents` "n d", in float64.

    Heun evaluates the denoiser 2 steps - 1 times, Euler `steps` times.
    """
    grid = edm_grid(steps, sigma_min, sigma_max)
    for state in states(denoiser, sigma_max * latents.double(), grid, solver):
        last = state
    return last.out


def dense(visited: Iterable[State], levels: Sequence[float]) -> Path:
    """Samples, and the paths at `levels` between the visited ones, at no further evaluation.

    Between two levels the path is the cubic through both states with both known slopes (Hermite
    interpolation, of fourth order in the step); beyond the ends it is the tangent.
    """
    at: dict[float, Tensor] = {}
    out: dict[float, Tensor] = {}
    before = None
    for state in visited:
        for level in levels:
            if level == state.sigma:
                at[level], out[level] = state.y, state.out
            elif level > state.sigma and level not in at:
                at[level] = _between(before, state, level)
        before = state
    for level in levels:
        if level not in at:
            at[level] = before.y + (level - before.sigma) * before.slope
    return Path(before.out, at, out)


def _between(before: State | None, after: State, level: float) -> Float[Tensor, "n d"]:
    """The path at `level` >= after.sigma."""
    if before is None:
        return after.y + (level - after.sigma) * after.slope
    h = after.sigma - before.sigma
    t = (level - before.sigma) / h
    return (
        (1 + 2 * t) * (1 - t) ** 2 * before.y
        + t * (1 - t) ** 2 * h * before.slope
        + t**2 * (3 - 2 * t) * after.y
        + t**2 * (t - 1) * h * after.slope
    )
