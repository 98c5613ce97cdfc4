import pytest

from analyses.labels import INPUTS
from analyses.registry import ANALYSES, lookup, measure_all, options_of, reference_all
from analyses.specimen import Specimen
from tests.analyses.specimens import make_specimen


def test_an_unknown_analysis_is_an_error_that_lists_the_choices():
    with pytest.raises(ValueError, match="Unknown analysis 'linearty': choose from linearity, "):
        measure_all(make_specimen("gaussian"), {"linearty": {}})


@pytest.mark.parametrize("run", [measure_all, reference_all])
def test_an_unknown_option_is_an_error_before_anything_is_evaluated(run):
    specimen = make_specimen("gaussian")
    specimen.denoiser = None
    with pytest.raises(ValueError, match="'linear_fit' has no option 'draw': choose from draws"):
        run(specimen, {"linearity": {}, "linear_fit": {"draw": 4}})


def test_options_and_defaults_are_those_of_the_functions():
    assert options_of("linear_fit") == {"draws": 16, "modes": 10, "laws": INPUTS}
    assert options_of("generalization") == {}
    assert options_of("memorization")["threshold"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_is_in_a_known_group(name):
    assert lookup(name).group in ("snapshot", "pairs")
    assert lookup(name).version >= 1


def test_a_reference_is_returned_only_where_there_is_one():
    options = {"memorization": {}, "samples": {}}
    assert list(reference_all(make_specimen("gaussian"), options)) == ["memorization"]


def test_nothing_asked_for_is_nothing_done():
    assert measure_all(make_specimen("gaussian"), {}) == {}


@pytest.mark.parametrize("name", ANALYSES)
def test_what_has_noise_levels_says_that_it_looks_at_them(name):
    options = {"draws": 4} if "draws" in options_of(name) else {}
    found = measure_all(make_specimen("gaussian"), {name: options})[name]
    assert ("sigma" in found.dims) <= lookup(name).sees_sigmas


def test_an_analysis_that_fails_is_left_out_and_costs_the_others_nothing():
    """Its failure comes at the second noise level, after evaluations that it shares."""
    specimen = make_specimen("gaussian")
    calls = []
    specimen.denoiser = lambda y, sigma: calls.append(sigma) or specimen.gaussian(y, sigma)

    def call(name, function, subject, **options):
        if name == "linear_fit" and subject.sigmas == (0.5,):
            return None
        return function(subject, **options)

    options = {"linear_fit": {"draws": 4}, "generalization": {}, "memorization": {}}
    found = measure_all(specimen, options, call)
    count = len(calls)
    assert list(found) == ["generalization", "memorization"]
    whole = measure_all(make_specimen("gaussian"), options)
    for name in found:
        assert found[name].identical(whole[name])
    calls.clear()
    measure_all(Specimen.of(specimen, specimen.denoiser), options)
    assert count < len(calls)
