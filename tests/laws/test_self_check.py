"""The self-check agrees with every law, and each of its checks notices a wrong formula."""

import math

import pytest
import torch

from analyses import nearest
from analyses.collapse import collapse_sigma
from analyses.laws import SELF_CHECKS, Number, Result, copies, finite_sample, run_self_checks
from analyses.laws.closed_form import descended, flowed
from analyses.moments import Moments
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser
from analyses.sampler import edm_grid, sample


@pytest.mark.parametrize("check", SELF_CHECKS.values(), ids=SELF_CHECKS)
def test_this_installation_agrees_with(check):
    result = check.run()
    assert result.agrees, result.text


# --- no check that cannot fail: what each must notice ---

OF_POINTS = Moments.of_points


def unbiased(points):
    """Moments with divisor N - 1."""
    fit, n = OF_POINTS(points), len(points)
    return Moments(fit.mean, fit.eigenvalues * n / (n - 1), fit.basis)


def in_float32(points):
    """Moments whose null space is filled by the rounding of a float32 covariance."""
    mean = points.mean(0)
    values, vectors = torch.linalg.eigh((points - mean).T.float() @ (points - mean).float())
    return Moments(mean, values.double().abs().flip(0) / len(points), vectors.double().flip(1))


def without_mean(self, y, sigma):
    return y @ self.weight(sigma)


def with_sigma(self, sigma):
    """Gains with the noise level where its square belongs."""
    lam, basis = self.moments.eigenvalues, self.moments.basis
    return basis * (lam / (lam + sigma)) @ basis.T


class MeanOfSoftmaxes(EmpiricalDenoiser):
    """One softmax per block, then their mean."""

    def __call__(self, y, sigma):
        parts = [
            torch.softmax(-torch.cdist(y, block).square() / (2 * sigma**2), 1) @ block
            for block in self.train.split(self.block)
        ]
        return sum(parts) / len(parts)


class Sharp(EmpiricalDenoiser):
    """Weights exp(-|y - a|^2 / sigma^2), without the 2."""

    def __call__(self, y, sigma):
        return super().__call__(y, sigma / math.sqrt(2))


def naive_kappa(spectrum, n, sigma):
    return sigma**2


def without_cross_term(spectrum, n, sigma, v, x):
    level = sigma**2
    weight = spectrum / (spectrum + level) ** 2
    return level**2 / n * ((v * v) @ weight) * ((x * x) @ weight)


def squared(x, points):
    near = nearest.nearest_two(x, points)
    return near._replace(first=near.first**2, second=near.second**2)


def swapped(x, points):
    near = nearest.nearest_two(x, points)
    return near._replace(first=near.second, second=near.first)


def all_of(points):
    return torch.arange(len(points))


def mixed_about_zero(y1, y2, mu):
    mix = math.sqrt(0.5) * (y1 + y2)
    return torch.cat([mix, mix])


def squared_nmse(a, b):
    return (a - b).square().sum(1) / a.square().sum(1)


def euler_always(denoiser, latents, steps=18, solver="heun"):
    return sample(denoiser, latents, steps, "euler")


def other_grid(steps, sigma_min, sigma_max):
    return edm_grid(steps, sigma_min, sigma_max, rho=5.0)


def stops_before_the_last_output(denoiser, latents, steps=18, solver="heun"):
    states = []

    def recording(y, sigma):
        states.append(y)
        return denoiser(y, sigma)

    sample(recording, latents, steps, solver)
    return states[-1]


def half_rate(moments, sigma, start, rate, step):
    return descended(moments, sigma, start, rate / 2, step)


def half_time(moments, sigma, start, time):
    return flowed(moments, sigma, start, time / 2)


def all_of_the_logarithm(spectrum, n):
    """sum ln(1 + lam/sigma^2) = ln N, without the half."""
    low, high = 1e-6, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        over = float((1 + spectrum / middle**2).log().sum()) > math.log(n)
        low, high = (middle, high) if over else (low, middle)
    return low


def variance_of_the_time(points, generator):
    """Delta_t of the collapse, where sigma_C^2 is asked for."""
    variance = collapse_sigma(points, generator) ** 2
    return math.sqrt(variance / (1 + variance))


MUTANTS = {
    "D_G about zero": (GaussianDenoiser, "__call__", without_mean, ["T1", "T2"]),
    "divisor N - 1": (
        Moments, "of_points", unbiased, ["T2", "T4", "T13", "T17", "T19", "L5"],
    ),
    "float32 covariance": (Moments, "of_points", in_float32, ["T11"]),
    "sigma for its square": (GaussianDenoiser, "weight", with_sigma, ["T3", "T12", "T20", "L5"]),
    "no bias": (GaussianDenoiser, "bias", lambda self, sigma: 0 * self.moments.mean, ["T22"]),
    "a ridge in the fit": (
        "analyses.affine", "_pseudo_inverse",
        lambda mean, cov: torch.linalg.inv(cov + 1e-3 * torch.eye(len(cov))), ["T3"],
    ),
    "mixes about zero": ("analyses.laws.linearity", "mixes", mixed_about_zero, ["T5"]),
    "squared errors": ("analyses.linearity", "nmse", squared_nmse, ["T6"]),
    "Euler for Heun": ("analyses.laws.sampling", "sample", euler_always, ["T7", "T8b", "T9"]),
    "another grid": ("analyses.sampler", "edm_grid", other_grid, ["T7", "T8", "T8b"]),
    "noise left over": (
        "analyses.laws.sampling", "sample", stops_before_the_last_output, ["T9"],
    ),
    "squared distances": (copies, "nearest_two", squared, ["T10"]),
    "second before first": (copies, "nearest_two", swapped, ["T10", "T18", "T24"]),
    "duplicates kept": (copies, "distinct", all_of, ["T24"]),
    "rate without its 2": ("analyses.laws.learning", "descended", half_rate, ["T13", "L5"]),
    "time without its 2": ("analyses.laws.learning", "flowed", half_time, ["T14"]),
    "naive kappa": (finite_sample, "kappa", naive_kappa, ["T15", "L7"]),
    "gains without shrinkage": (
        finite_sample, "mean_gains",
        lambda lam, n, sigma, draws, generator: lam / (lam + sigma**2), ["T15", "T15b"],
    ),
    "naive kappa between splits": (
        "analyses.cross_split", "kappa", naive_kappa, ["T16", "L8"],
    ),
    "no second term": (
        "analyses.cross_split", "filter_variance", without_cross_term, ["T16"],
    ),
    "logarithm for digamma": (
        "analyses.laws.closed_form", "digamma", math.log, ["T17", "T17b", "L14"],
    ),
    "mean of softmaxes": (
        "analyses.laws.oracles", "EmpiricalDenoiser", MeanOfSoftmaxes, ["T26"],
    ),
    "weights without the 2": (
        "analyses.laws.oracles", "EmpiricalDenoiser", Sharp, ["T20", "T26"],
    ),
    "posterior without the 2": (
        "analyses.laws.posterior", "EmpiricalDenoiser", Sharp, ["T23"],
    ),
    "memory without the 2": ("analyses.laws.linearity", "EmpiricalDenoiser", Sharp, ["T4"]),
    "collapse without its half": (
        "analyses.laws.posterior", "collapse_sigma_gaussian", all_of_the_logarithm,
        ["T21", "L15"],
    ),
    "collapse in another unit": (
        "analyses.laws.posterior", "collapse_sigma", variance_of_the_time, ["T21", "L15"],
    ),
    "speciation at the top variance": (
        "analyses.laws.posterior", "speciation_sigma",
        lambda spectrum: float(spectrum.max()), ["L15"],
    ),
    "gain for error": (
        "analyses.laws.posterior", "wiener_error",
        lambda lam, sigma: float((lam / (lam + sigma**2)).sum()), ["T27"],
    ),
}  # fmt: skip
"""What is replaced, by what, and the checks that must notice."""


@pytest.fixture
def mutated(monkeypatch):
    def mutate(name):
        where, what, replacement, ids = MUTANTS[name]
        target = f"{where}.{what}" if isinstance(where, str) else None
        replacement = staticmethod(replacement) if where is Moments else replacement
        if target:
            monkeypatch.setattr(target, replacement)
        else:
            monkeypatch.setattr(where, what, replacement)
        return ids

    finite_sample.measured_gains.cache_clear()
    yield mutate
    finite_sample.measured_gains.cache_clear()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_formula_is_noticed(mutated, name):
    ids = mutated(name)
    missed = [check.id for check, result, _ in run_self_checks(ids) if result.agrees]
    assert not missed


def test_every_check_can_fail():
    assert {name for *_, ids in MUTANTS.values() for name in ids} == set(SELF_CHECKS)


# --- how it is reported ---


def test_checks_run_in_the_order_asked_for_and_are_timed():
    found = run_self_checks(["T6", "T1"])
    assert [check.id for check, _, _ in found] == ["T6", "T1"]
    assert all(result.agrees and seconds >= 0 for _, result, seconds in found)


def test_the_same_check_measures_the_same_numbers_twice():
    (_, one, _), (_, two, _) = run_self_checks(["T4", "T4"])
    assert one == two


def test_an_unknown_check_is_named_before_anything_runs():
    with pytest.raises(ValueError, match="Unknown self-check 'T99': choose from T1, T2"):
        run_self_checks(["T1", "T99"])


def test_a_number_is_compared_as_it_says():
    assert Number("a", 1.0, 1.05, "=", 0.1).agrees
    assert not Number("a", 1.0, 1.2, "=", 0.1).agrees
    assert Number("a", 1.0, 2.0, "<").agrees and not Number("a", 2.0, 2.0, "<").agrees
    assert Number("a", 3.0, 2.0, ">").agrees and not Number("a", 2.0, 2.0, ">").agrees


@pytest.mark.parametrize("relation", ["=", "<", ">"])
def test_a_number_that_is_missing_never_agrees(relation):
    assert not Number("a", math.nan, 1.0, relation, 1.0).agrees


def test_one_number_that_disagrees_makes_the_result_disagree_and_is_pointed_out():
    result = Result((Number("one", 1.0, 1.0), Number("two", 2.0, 1.0, "<")))
    assert not result.agrees
    assert result.value == "1, 2"
    assert result.expected == "1, < 1"
    assert result.text == "one: 1, expected 1\ntwo: 2, expected < 1  DISAGREES"


def test_a_demand_common_to_all_numbers_is_said_once():
    bounds = Result((Number("a", 0.1, 1e-12, "<"), Number("b", 0.2, 1e-12, "<")))
    assert bounds.expected == "< 1e-12"
    values = Result((Number("a", 0.1, 0.2, "=", 0.1), Number("b", 0.2, 0.3, "=", 0.1)))
    assert values.expected == "0.2, 0.3 ± 0.1"
    assert values.tolerance == 0.1


def test_a_result_without_numbers_is_refused():
    with pytest.raises(ValueError, match="cannot fail"):
        Result(())
