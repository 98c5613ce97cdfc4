"""The self-check: every law with a closed form, measured on this installation.

Identifiers are those of the table of laws: T for oracles, L for quantitative laws. Nothing here
needs a data set or a network; all together take seconds on one core.
"""

from collections.abc import Sequence
from time import perf_counter

from analyses.laws import copies, finite_sample, learning, linearity, oracles, posterior, sampling
from analyses.laws.check import Check, Number, Result

__all__ = ["SELF_CHECKS", "Check", "Number", "Result", "run_self_checks"]

_CHECKS = (
    Check(
        "T1",
        "D_G is the mean at the mean and under huge noise, a projection without noise",
        oracles.gaussian_limits,
    ),
    Check(
        "T2",
        "D_M is the nearest point without noise and D_G under huge noise",
        oracles.empirical_limits,
    ),
    Check("T3", "the affine fit of D_G is D_G", linearity.fit_of_a_filter),
    Check(
        "T4",
        "the affine fit of D_M is W_G on its own training law only",
        linearity.fit_of_a_memory,
    ),
    Check("T5", "the centred linearity score of every affine denoiser is 1", linearity.scores),
    Check(
        "T6",
        "at huge noise the raw linearity error of D_G is (sqrt2 - 1)/sqrt2 or sqrt2 - 1",
        linearity.bias_alone,
    ),
    Check("T7", "Heun nears the exact flow of D_G at second order", sampling.convergence),
    Check("T8", "ten Euler steps shrink each mode by a known factor", sampling.few_steps),
    Check(
        "T8b", "so do forty Euler steps, and eighteen Heun steps stretch it", sampling.more_steps
    ),
    Check("T9", "a sample is the last denoised output", sampling.last_step),
    Check("T10", "copies have a generalization score of 0", copies.scores_of_copies),
    Check("T11", "N points span N - 1 directions, the floor of the distance to D_G", oracles.rank),
    Check("T12", "the singular values of W_G are lam/(lam + sigma^2)", oracles.weight),
    Check(
        "T13",
        "gradient descent of a linear net is W* + (W0 - W*)(I - 2 eta (Sigma + sigma^2 I))^tau",
        learning.descent,
    ),
    Check("T14", "small steps follow the gradient flow, to first order", learning.flow),
    Check("T15", "the mean gain of N-point filters is lam/(lam + kappa)", finite_sample.gains),
    Check("T15b", "it is not lam/(lam + sigma^2)", finite_sample.naive_gains),
    Check(
        "T16",
        "the distance of filters of disjoint draws follows from the spectrum",
        finite_sample.split_error,
    ),
    Check(
        "T17",
        "the mean KL of a Gaussian from its fit to N points is known exactly",
        finite_sample.fit_divergence,
    ),
    Check("T17b", "for many points it is d(d + 3)/4N", finite_sample.fit_divergence_large),
    Check("T18", "the integral of f_mem over thresholds is 1 - mean(r)", copies.threshold_free),
    Check("T19", "the local dimension of a rank-7 Gaussian tends to 7", posterior.local_dimension),
    Check(
        "T20",
        "the Jacobian of a posterior mean is Cov[x|y]/sigma^2, and SURE holds",
        oracles.posterior_jacobians,
    ),
    Check(
        "T21",
        "a Gaussian cluster collapses at sigma_C^2 = s^2/(N^(2/d) - 1)",
        posterior.collapse_of_a_cluster,
    ),
    Check(
        "T22",
        "KL(p, p_theta) is at most the integral of the excess error over sigma^3",
        posterior.bound_on_divergence,
    ),
    Check(
        "T23",
        "the squared error of the optimum is sigma^2 E tr J",
        posterior.error_without_clean_images,
    ),
    Check("T24", "a copy of a duplicate is found once duplicates are removed", copies.duplicates),
    Check("T26", "D_M does not depend on how its points are split in blocks", oracles.blocks),
    Check(
        "T27",
        "the error of a spectrum k^-(alpha + 1) has slope alpha/(alpha + 1)",
        posterior.smoothness,
    ),
    Check("L5", "a linear net ends at D_G, in closed form at every step", learning.linear_net),
    Check("L7", "D_G of N points shrinks as kappa says, not sigma^2", finite_sample.shrinkage),
    Check(
        "L8",
        "two D_G of disjoint draws are as far apart as the spectrum says",
        finite_sample.disjoint_draws,
    ),
    Check(
        "L14",
        "the divergence of the linear denoiser falls as 1/N from N = 16 d",
        finite_sample.transition,
    ),
    Check(
        "L15",
        "speciation at sigma^2 = Lambda - 1, collapse where ln N is the Gaussian information",
        posterior.two_transitions,
    ),
)

SELF_CHECKS: dict[str, Check] = {check.id: check for check in _CHECKS}
"""All checks by identifier."""


def run_self_checks(ids: Sequence[str] | None = None) -> list[tuple[Check, Result, float]]:
    """Each check with what it measured and the seconds it took, in the order of `ids` (all).

    ValueError names an unknown identifier before anything runs.
    """
    chosen = list(SELF_CHECKS) if ids is None else list(ids)
    if unknown := [name for name in chosen if name not in SELF_CHECKS]:
        raise ValueError(
            f"Unknown self-check {unknown[0]!r}: choose from {', '.join(SELF_CHECKS)}."
        )
    results = []
    for name in chosen:
        begun = perf_counter()
        result = SELF_CHECKS[name].run()
        results.append((SELF_CHECKS[name], result, perf_counter() - begun))
    return results
