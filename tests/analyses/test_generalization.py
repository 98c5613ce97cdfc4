import pytest

from analyses import generalization
from tests.analyses.specimens import make_specimen, make_subset, wrapped


def test_a_denoiser_that_returns_its_input_errs_by_the_noise():
    result = generalization.measure(wrapped(make_subset(m=200), lambda y, sigma: y))
    for name in ("train_loss", "heldout_loss"):
        assert result[name].values == pytest.approx(result.sigma.values**2, rel=0.1)
    assert result.generalization_gap.values == pytest.approx(0, abs=1e-12)


def test_the_gap_is_the_difference_of_the_losses():
    result = generalization.measure(make_specimen("empirical"))
    difference = (result.heldout_loss - result.train_loss).values
    assert result.generalization_gap.values == pytest.approx(difference, abs=1e-12)
    assert (result.generalization_gap.sel(sigma=[0.1, 0.5]) > 0).all()


def test_no_denoiser_beats_the_empirical_one_on_training_points():
    losses = {
        oracle: generalization.measure(make_specimen(oracle, m=200)).train_loss
        for oracle in ("empirical", "gaussian", "gaussian_pool", "kappa")
    }
    for oracle in ("gaussian", "gaussian_pool", "kappa"):
        assert (losses["empirical"] < losses[oracle]).all()


@pytest.mark.parametrize("oracle", ["gaussian", "gaussian_pool", "kappa", "empirical"])
def test_the_reference_is_the_loss_of_the_oracle(oracle):
    measured = generalization.measure(make_specimen(oracle))
    reference = generalization.reference(make_subset())
    for tail in ("", "_se"):
        assert reference[f"heldout_loss_{oracle}{tail}"].values == pytest.approx(
            measured[f"heldout_loss{tail}"].values, abs=1e-13
        )
