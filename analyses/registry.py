"""The analyses by name, and how several of them look at one specimen.

Adding one is a module with `measure(specimen, **options)` and a line in `ANALYSES`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from analyses import (
    flows,
    gaussian,
    generalization,
    jacobian,
    lid,
    linear_fit,
    linearity,
    memorization,
    mixing,
    novelty,
    outputs,
    points,
    posterior,
    quality,
    samples,
    spectrum,
    teleportation,
    trajectories,
    weight_modes,
)
from analyses.evaluations import Rows, Size, of_samples, total
from analyses.labels import concat_sigma
from analyses.relations import RELATIONS
from analyses.specimen import Specimen, Subset

__all__ = ["ANALYSES", "Analysis", "lookup", "measure_all", "options_of", "reference_all"]

Options = Mapping[str, Mapping[str, Any]]
OF_POINTS = ("key", "moments")
"""What a subject finds out about its points alone, at whichever noise level it is first wanted."""


def no_rows(size: Size, **options: object) -> Rows:
    """An analysis that evaluates nothing of its own."""
    return {}


def sample_rows(size: Size, **options: object) -> Rows:
    """An analysis that looks at the samples alone."""
    return of_samples(size)


@dataclass(frozen=True)
class Analysis:
    """One analysis: what to call, and how it may be scheduled."""

    measure: Callable[..., xr.Dataset]
    """measure(specimen, **options): what depends on the denoiser."""
    reference: Callable[..., xr.Dataset] | None
    """reference(subset, **options): what depends on the training subset alone; None if nothing."""
    per_sigma: bool
    """Noise levels are independent, so that one can be evaluated and freed before the next."""
    rows: Callable[..., Rows] = no_rows
    """rows(size, **options): denoiser evaluations of one snapshot, by what is evaluated."""
    samples: bool = False
    """Whether its numbers depend on how samples are drawn (the input law `path` does anyway)."""
    levels: bool = False
    """Whether one that is not `per_sigma` looks at all noise levels together."""
    version: int = 2
    """Raised whenever its numbers change."""
    group: str = "snapshot"
    """Analyses of one group run in one task and share evaluations. Only schedules."""

    @property
    def of_samples(self) -> bool:
        """Whether it evaluates the denoiser on the paths of samples alone."""
        return self.rows is sample_rows

    @property
    def sees_sigmas(self) -> bool:
        """Whether its numbers depend on which noise levels are analysed."""
        return self.per_sigma or self.levels


ANALYSES = {
    "linearity": Analysis(linearity.measure, linearity.reference, True, linearity.rows),
    "mixing": Analysis(mixing.measure, mixing.reference, True, mixing.rows),
    "linear_fit": Analysis(
        linear_fit.measure, linear_fit.reference, True, linear_fit.rows, version=3
    ),
    "weight_modes": Analysis(weight_modes.measure, None, True, weight_modes.rows),
    "gaussian": Analysis(gaussian.measure, gaussian.reference, True, gaussian.rows, version=3),
    "generalization": Analysis(
        generalization.measure, generalization.reference, True, generalization.rows
    ),
    "jacobian": Analysis(jacobian.measure, jacobian.reference, True, jacobian.rows, version=4),
    "lid": Analysis(lid.measure, lid.reference, True, lid.rows),
    "outputs": Analysis(outputs.measure, outputs.reference, True, outputs.rows),
    "memorization": Analysis(
        memorization.measure, memorization.reference, False, sample_rows, True
    ),
    "novelty": Analysis(novelty.measure, novelty.reference, False, sample_rows, True),
    "points": Analysis(points.measure, points.reference, False, sample_rows, True),
    "samples": Analysis(samples.measure, None, False, sample_rows, True),
    "quality": Analysis(quality.measure, quality.reference, False, sample_rows, True),
    "spectrum": Analysis(spectrum.measure, spectrum.reference, False, sample_rows, True),
    "flows": Analysis(flows.measure, flows.reference, False, sample_rows, True),
    "posterior": Analysis(
        posterior.measure, posterior.reference, False, sample_rows, True, levels=True
    ),
    "trajectories": Analysis(
        trajectories.measure, None, False, trajectories.rows, True, levels=True
    ),
    "teleportation": Analysis(teleportation.measure, None, False, teleportation.rows, True),
}


@dataclass(frozen=True)
class Pair:
    """A comparison of two cells through what is stored of them: `analyses.pairs.measure_pair`."""

    needs: tuple[str, ...]
    """Analyses whose pieces it compares."""
    uses: tuple[str, ...] = ()
    """Analyses whose pieces it compares too where the sweep has them."""
    version: int = 1
    """Raised whenever its numbers change."""


PAIRS = {name: Pair(("samples",), ("outputs",)) for name in RELATIONS}


def lookup(name: str) -> Analysis:
    """The analysis called `name`, or an error that lists the choices."""
    if name not in ANALYSES:
        raise ValueError(f"Unknown analysis {name!r}: choose from {', '.join(ANALYSES)}.")
    return ANALYSES[name]


def options_of(name: str) -> dict[str, Any]:
    """Options of an analysis and their defaults."""
    parameters = inspect.signature(lookup(name).measure).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


Call = Callable[..., xr.Dataset | None]
"""call(name, function, subject, **options) -> what the function returns, None if it failed."""


def directly(
    name: str, function: Callable[..., xr.Dataset], subject: Subset, **options: object
) -> xr.Dataset:
    """An analysis that raises ends them all."""
    return function(subject, **options)


def measure_all(
    specimen: Specimen, options: Options, call: Call = directly
) -> dict[str, xr.Dataset]:
    """The analyses that `options` names (name -> options), each as if it ran alone.

    Those that allow it go noise level by noise level, so that at most one level's evaluations are
    in memory; the same level's evaluations are shared by all of them. `call` makes every call:
    what is shared is spent in the first that asks for it, and an analysis for which it returns
    None is left out while the others go on.
    """
    functions = {name: lookup(name).measure for name in options}
    return _run(specimen, options, functions, call)


def rows_of(size: Size, options: Options) -> dict[str, int]:
    """Evaluations that each analysis adds to those of the analyses before it."""
    known: Rows = {}
    added = {}
    for name in options:
        mine = lookup(name).rows(size, **options[name])
        together = total([known, mine])
        added[name] = sum(together.values()) - sum(known.values())
        known = together
    return added


def reference_all(
    subset: Subset, options: Options, call: Call = directly
) -> dict[str, xr.Dataset]:
    """The reference of each analysis that has one, once for all cells of a training subset."""
    functions = {name: lookup(name).reference for name in options}
    functions = {name: f for name, f in functions.items() if f is not None}
    return _run(subset, options, functions, call)


def _run(
    subject: Subset,
    options: Options,
    functions: Mapping[str, Callable[..., xr.Dataset]],
    call: Call,
) -> dict[str, xr.Dataset]:
    for name in options:
        _check(name, options[name])
    by_level = [name for name in functions if ANALYSES[name].per_sigma]
    levels: dict[str, list[xr.Dataset]] = {name: [] for name in by_level}
    for sigma in subject.sigmas if by_level else ():
        one = subject.only(sigma)
        for name in list(levels):
            found = call(name, functions[name], one, **options[name])
            if found is None:
                del levels[name]
            else:
                levels[name].append(found)
        # Not left to the cache: at d = 12,288 a basis may be more than it keeps.
        vars(subject).update({name: vars(one)[name] for name in OF_POINTS if name in vars(one)})
    whole = {
        name: call(name, function, subject, **options[name])
        for name, function in functions.items()
        if name not in by_level
    }
    found = {name: concat_sigma(parts) for name, parts in levels.items()} | whole
    return {name: found[name] for name in functions if found.get(name) is not None}


def _check(name: str, options: Mapping[str, Any]) -> None:
    allowed = options_of(name)
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"Analysis {name!r} has no option {option!r}: "
                f"choose from {', '.join(allowed) or 'none'}."
            )
