import numpy as np
import pytest
import torch

from analyses.labels import Label, concat_sigma, dataset, tagged

LABELS = {
    "loss": Label("error per pixel", ("sigma", "inputs"), "pixel2"),
    "spectrum": Label("variance", ("mode",), "pixel2"),
}


def make(sigmas):
    values = torch.tensor(sigmas, dtype=torch.float64)[:, None] * torch.ones(
        4, dtype=torch.float64
    )
    return dataset(
        sigmas, {"loss": values, "loss_se": values, "spectrum": torch.arange(3.0)}, LABELS
    )


def test_a_standard_error_is_named_after_its_mean():
    found = make([0.1])
    assert found.loss_se.attrs == {
        "long_name": "standard error of: error per pixel",
        "units": "pixel2",
    }
    assert found.inputs.values.tolist() == ["train", "heldout", "noise", "path"]
    assert found.inputs.dtype == object and "reference" not in found.coords


def test_a_value_without_a_label_is_an_error():
    with pytest.raises(KeyError, match="loss2"):
        dataset([0.1], {"loss2": torch.zeros(1)}, LABELS)


def test_noise_levels_join_and_what_has_none_is_kept_once():
    joined = concat_sigma([make([0.1]), make([0.5])])
    assert joined.identical(make([0.1, 0.5]))
    assert np.array_equal(joined.sigma, [0.1, 0.5])


def test_a_tag_stands_before_the_ends_of_an_interval():
    assert list(tagged({"f": 0, "f_low": 0, "f_high": 0, "f_se": 0}, "null")) == [
        "f_null",
        "f_null_low",
        "f_null_high",
        "f_null_se",
    ]
