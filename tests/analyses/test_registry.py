import pytest

from analyses.labels import INPUTS
from analyses.registry import ANALYSES, lookup, measure_all, options_of, reference_all
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
