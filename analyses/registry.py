"""The analyses by name, and how several of them look at one specimen.

Adding one is a module with `measure(specimen, **options)` and a line in `ANALYSES`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from analyses import gaussian, generalization, linear_fit, linearity, memorization, samples
from analyses.labels import concat_sigma
from analyses.specimen import Specimen, Subset

__all__ = ["ANALYSES", "Analysis", "lookup", "measure_all", "options_of", "reference_all"]

Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Analysis:
    """One analysis: what to call, and how it may be scheduled."""

    measure: Callable[..., xr.Dataset]
    """measure(specimen, **options): what depends on the denoiser."""
    reference: Callable[..., xr.Dataset] | None
    """reference(subset, **options): what depends on the training subset alone; None if nothing."""
    per_sigma: bool
    """Noise levels are independent, so that one can be evaluated and freed before the next."""
    group: str
    """Analyses that share evaluations: `evaluations` or `samples`. Only schedules."""
    version: int
    """Raised whenever its numbers change."""


ANALYSES = {
    "linearity": Analysis(linearity.measure, linearity.reference, True, "evaluations", 1),
    "linear_fit": Analysis(linear_fit.measure, linear_fit.reference, True, "evaluations", 1),
    "gaussian": Analysis(gaussian.measure, gaussian.reference, True, "evaluations", 1),
    "generalization": Analysis(
        generalization.measure, generalization.reference, True, "evaluations", 1
    ),
    "memorization": Analysis(memorization.measure, memorization.reference, False, "samples", 1),
    "samples": Analysis(samples.measure, None, False, "samples", 1),
}


def lookup(name: str) -> Analysis:
    """The analysis called `name`, or an error that lists the choices."""
    if name not in ANALYSES:
        raise ValueError(f"Unknown analysis {name!r}: choose from {', '.join(ANALYSES)}.")
    return ANALYSES[name]


def options_of(name: str) -> dict[str, Any]:
    """Options of an analysis and their defaults."""
    parameters = inspect.signature(lookup(name).measure).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def measure_all(specimen: Specimen, options: Options) -> dict[str, xr.Dataset]:
    """The analyses that `options` names (name -> options), each as if it ran alone.

    Those that allow it go noise level by noise level, so that at most one level's evaluations are
    in memory; the same level's evaluations are shared by all of them.
    """
    return _run(specimen, options, {name: lookup(name).measure for name in options})


def reference_all(subset: Subset, options: Options) -> dict[str, xr.Dataset]:
    """The reference of each analysis that has one, once for all cells of a training subset."""
    functions = {name: lookup(name).reference for name in options}
    return _run(subset, options, {name: f for name, f in functions.items() if f is not None})


def _run(
    subject: Subset, options: Options, functions: Mapping[str, Callable[..., xr.Dataset]]
) -> dict[str, xr.Dataset]:
    for name in options:
        _check(name, options[name])
    levels: dict[str, list[xr.Dataset]] = {}
    by_level = {name: f for name, f in functions.items() if ANALYSES[name].per_sigma}
    for sigma in subject.sigmas if by_level else ():
        one = subject.only(sigma)
        for name, function in by_level.items():
            levels.setdefault(name, []).append(function(one, **options[name]))
    return {
        name: concat_sigma(levels[name]) if name in levels else function(subject, **options[name])
        for name, function in functions.items()
    }


def _check(name: str, options: Mapping[str, Any]) -> None:
    allowed = options_of(name)
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"Analysis {name!r} has no option {option!r}: "
                f"choose from {', '.join(allowed) or 'none'}."
            )
