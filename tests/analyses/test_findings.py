import numpy as np
import pytest

from analyses.findings import as_text, findings
from analyses.phase import phase
from tests.analyses.cubes import cube, lose


def verdicts(made):
    return [finding.verdict for finding in findings(made, phase(made))]


@pytest.fixture(scope="module")
def quick():
    return cube()


def test_all_four_hold_on_a_cube_made_to_show_them(quick):
    assert verdicts(quick) == ["holds"] * 4


def test_backbone_and_data_set_are_named_in_every_title(quick):
    for finding in findings(quick, phase(quick)):
        assert "mlp on digits" in finding.title


def test_a_width_that_never_memorizes_is_listed_and_does_not_pass(quick):
    only = quick.sel(width=[64])
    first = findings(only, phase(only))[0]
    assert first.verdict == "undecided"
    assert "never above 5 %" in as_text([first])


def test_a_fraction_that_rises_with_n_train_does_not_hold(quick):
    made = quick.copy(deep=True)
    for name in ("memorized_fraction", "memorized_fraction_low", "memorized_fraction_high"):
        made[name] = made[name].copy(data=made[name].values[:, ::-1])
    first = findings(made, phase(made))[0]
    assert first.verdict == "does not hold"
    assert "rises from n_train 16 to 256" in as_text([first])


def test_a_rise_inside_the_wilson_intervals_is_no_rise(quick):
    made = quick.copy(deep=True)
    for end, shift in (("", 0.0), ("_low", -0.01), ("_high", 0.01)):
        value = made[f"memorized_fraction{end}"]
        value.loc[{"width": 256, "kimg": 384}] = (
            np.array([0.8, 0.805, 0.4, 0.1, 0.0])[:, None, None, None] + shift
        )
    assert verdicts(made)[0] == "holds"


def test_a_missing_extreme_leaves_the_first_finding_undecided(quick):
    assert verdicts(lose(quick, width=256, n_train=16, draw=0, kimg=384))[0] == "undecided"


def test_an_onset_that_does_not_depend_on_n_train_does_not_hold(quick):
    made = quick.copy(deep=True)
    made["memorized_fraction"] = made.memorized_fraction.copy(
        data=made.memorized_fraction.values[:, ::-1]
    )
    made = made.drop_vars("nearest_ratio")
    assert verdicts(made)[1] == "does not hold"


def test_the_second_finding_prints_the_range_and_the_citation(quick):
    text = "\n".join(findings(quick, phase(quick))[1].lines)
    assert "range over 2 (seed, draw) replicate(s)" in text
    assert "tau_gauss = 48 kimg" in text
    assert "a citation and not a target" in text
    assert "width 64" in text


def test_the_second_finding_says_what_the_snapshots_and_the_samples_leave_open(quick):
    text = "\n".join(findings(quick, phase(quick))[1].lines)
    assert "slopes of power laws through every onset interval: 0." in text
    assert "with 512 samples the Wilson interval of 5 % is 3.4 to 7.2 %" in text


def test_onsets_that_differ_are_printed_by_replicate(quick):
    found = phase(quick)
    assert " at draw" not in as_text(findings(quick, found)[1:2])
    for end, value in (("low", 48.0), ("high", 64.0)):
        found[f"tau_mem_{end}"].loc[{"width": 256, "n_train": 16, "draw": 1}] = value
    text = as_text(findings(quick, found)[1:2])
    assert "n=16: (48, 64] at draw 1 or (64, 96] at draw 0, n=32: (96, 128]," in text


def test_with_four_replicates_it_prints_an_interval():
    made = cube(seed=(0, 1))
    text = as_text(findings(made, phase(made)))
    assert "95 % interval, 4 (seed, draw)" in text
    assert "through every onset interval" not in text


def test_a_trial_without_its_last_snapshot_leaves_the_third_finding_open(quick):
    lost = lose(quick, width=256, n_train=64, draw=1, kimg=384)
    assert verdicts(lost)[2] == "undecided"
    third = findings(lost, phase(lost))[2]
    assert "9 of 9 trials (1 more not measured)" in third.lines[0]


def test_a_distance_that_only_falls_has_no_gaussian_stage(quick):
    made = quick.sel(kimg=[16, 32, 48])
    third = findings(made, phase(made))[2]
    assert third.verdict == "does not hold"
    assert "0 of 10 trials" in as_text([third])


def test_the_other_references_stand_beside_the_minimum(quick):
    text = as_text(findings(quick, phase(quick))[2:3])
    for reference in ("gaussian_pool", "kappa", "empirical", "linear"):
        assert reference in text


def test_linearity_that_stays_does_not_hold_and_the_trials_are_named(quick):
    made = quick.copy(deep=True)
    late = made.linearity_cosine_centred_pair.sel(kimg=48).values
    made.linearity_cosine_centred_pair.loc[{"kimg": 384}] = late
    fourth = findings(made, phase(made))[3]
    assert fourth.verdict == "does not hold"
    assert "not at width=256, n_train=16" in as_text([fourth])


def test_the_fourth_finding_shows_the_largest_n_train_and_the_correlation(quick):
    text = as_text(findings(quick, phase(quick))[3:])
    assert "beside it at n_train 256, where f_mem is 0.0" in text
    assert "falls there too (2 of 2 trials): no sign of copying" in text
    assert "width 64" not in text
    assert "Spearman of f_mem with affine_r2 over 30 trials" in text
    assert "descriptive" in text


def test_a_comparison_that_memorizes_or_does_not_fall_is_not_called_one(quick):
    small = quick.sel(n_train=[16, 32])
    assert "it memorizes as well" in as_text(findings(small, phase(small))[3:])
    made = quick.copy(deep=True)
    for name in ("linearity_cosine_centred_pair", "affine_residual_image"):
        late = {"kimg": 384, "n_train": 256}
        made[name].loc[late] = made[name].sel(kimg=48, n_train=256).values
    assert "falls there too" not in as_text(findings(made, phase(made))[3:])


@pytest.mark.parametrize(
    "dropped",
    [
        ["memorized_fraction"],
        ["denoiser_rmse"],
        ["denoiser_rmse_image"],
        ["linearity_cosine_centred_pair"],
        ["affine_residual_image", "affine_variance_image"],
    ],
    ids=str,
)
def test_what_was_not_measured_is_undecided_and_named(quick, dropped):
    made = quick.drop_vars(dropped)
    all_four = findings(made, phase(made))
    assert any(f.verdict == "undecided" and "not measured" in f.lines[0] for f in all_four)


def test_an_empty_cube_decides_nothing(quick):
    assert verdicts(quick.where(quick.status == 9).assign_attrs(quick.attrs)) == ["undecided"] * 4


def test_a_further_axis_is_handled():
    made = cube(training_lr=(1e-3, 4e-3), images=64, split=("a", "b"))
    assert verdicts(made) == ["holds"] * 4
