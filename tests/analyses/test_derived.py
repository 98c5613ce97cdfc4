import numpy as np
import pytest
import xarray as xr

from analyses.derived import QUANTITIES, derived, share_of_bracket
from tests.analyses import cubes


def array(values, *dims):
    return xr.DataArray(np.asarray(values, float), dims=dims)


def hand_made(**variables):
    """Two cells in kimg; brackets have no kimg, as subset pieces do not."""
    coords = {"kimg": [1, 2], "sigma": [0.1, 1.0, 10.0]}
    return xr.Dataset(variables, coords)


def losses(**more):
    train = array([[0.01, 0.1, 0.4], [0.004, 0.04, 0.4]], "kimg", "sigma")
    return hand_made(train_loss=train, heldout_loss=2 * train, **more)


def test_nothing_is_added_where_nothing_is_known():
    cube = hand_made(status=array([2, 2], "kimg"))
    xr.testing.assert_identical(derived(cube), cube)


def test_the_cube_itself_is_left_as_it_is():
    cube = cubes.cube()
    before = cube.copy(deep=True)
    added = derived(cube)
    xr.testing.assert_identical(cube, before)
    xr.testing.assert_identical(added[list(cube)], cube)
    assert "linearity_cosine_centred_normalised" in added and "nonlinearity" in added


def test_deriving_twice_changes_nothing():
    once = derived(cubes.cube())
    xr.testing.assert_identical(derived(once), once)


def test_every_quantity_that_is_added_says_what_it_is():
    found = derived(everything())
    for name, quantity in QUANTITIES.items():
        assert found[name].attrs == {"long_name": quantity.long_name, "units": quantity.units}
        if f"{name}_se" in found:
            assert found[f"{name}_se"].attrs["long_name"].startswith("standard error of: ")
            assert found[f"{name}_se"].dims == found[name].dims
            assert (found[f"{name}_se"].fillna(0) >= 0).all()


def test_linearity_is_placed_between_the_oracles():
    found = derived(
        hand_made(
            linearity_cosine_centred=array([[0.9, 0.95, 1], [0.7, 0.8, 1]], "kimg", "sigma"),
            linearity_cosine_centred_empirical=array([0.7, 0.8, 1], "sigma"),
            linearity_cosine_centred_gaussian=array([1, 1, 1], "sigma"),
        )
    ).linearity_cosine_centred_normalised
    assert found.dims == ("kimg", "sigma")
    expected = [2 / 3, 0.75, np.nan, 0, 0, np.nan]
    assert found.values.ravel() == pytest.approx(expected, nan_ok=True)


def test_a_bracket_narrower_than_three_errors_holds_no_share():
    low, high = array([0.0, 0.0], "sigma"), array([1.0, 1.0], "sigma")
    error = array([0.32, 0.34], "sigma")
    zero = array([0, 0], "sigma")
    share, se = share_of_bracket((low + 0.5, zero), (low, error), (high, zero))
    assert share.values == pytest.approx([0.5, np.nan], nan_ok=True)
    assert se.isnull().values.tolist() == [False, True]


def test_the_error_of_a_share_is_its_spread():
    rng = np.random.default_rng(0)
    draws = [
        (array(mean + se * rng.standard_normal(20_000), "draw"), array(se, *()))
        for mean, se in ((0.8, 0.01), (0.5, 0.008), (1.0, 0.006))
    ]
    share, se = share_of_bracket(*draws)
    assert float(share.mean()) == pytest.approx(0.6, abs=1e-3)
    assert float(se.mean()) == pytest.approx(float(share.std()), rel=0.03)


def test_the_distance_to_the_gaussian_is_a_share_of_that_of_the_empirical():
    reference = np.array(["gaussian", "empirical"], object)
    rmse = array([[[0.1, 9], [0.2, 9], [0.3, 9]]] * 2, "kimg", "sigma", "reference")
    cube = hand_made(
        denoiser_rmse=rmse.assign_coords(reference=reference),
        denoiser_rmse_se=(0.1 * rmse).assign_coords(reference=reference),
        empirical_gaussian_rmse=array([0.2, 0.4, 0.01], "sigma"),
        empirical_gaussian_rmse_se=array([0, 0.04, 0.01], "sigma"),
    )
    found = derived(cube)
    expected = [0.5, 0.5, np.nan]
    assert found.gaussian_empirical_ratio[0].values == pytest.approx(expected, nan_ok=True)
    # Relative errors of 0.1 and 0.1 add in quadrature.
    errors = [0.05, 0.05 * 2**0.5, np.nan]
    assert found.gaussian_empirical_ratio_se[0].values == pytest.approx(errors, nan_ok=True)
    assert found.gaussian_empirical_ratio.dims == ("kimg", "sigma")


def test_psnr_of_a_known_loss():
    found = derived(losses(train_loss_se=array([[0.001] * 3] * 2, "kimg", "sigma")))
    assert found.psnr_train[0].values == pytest.approx([26.0206, 16.0206, 10], abs=1e-4)
    assert found.psnr_gap.values == pytest.approx(3.0103, abs=1e-4)
    assert found.psnr_in.values == pytest.approx([26.0206, 6.0206, -13.9794], abs=1e-4)
    assert found.psnr_train_se[0, 0].item() == pytest.approx(10 * np.log10(1.1), rel=0.06)
    assert "psnr_heldout_se" not in found and "psnr_gap_se" not in found
    assert found.psnr_gap.attrs["units"] == "dB"


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.9])
def test_the_error_of_the_psnr_gap_is_its_spread(correlation):
    rng = np.random.default_rng(1)
    covariance = 1e-6 * np.array([[1, 2 * correlation], [2 * correlation, 4]])
    train, heldout = rng.multivariate_normal([0.05, 0.08], covariance, size=20_000).T
    gap_se = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    sizes = np.ones_like(train)
    cube = xr.Dataset(
        {
            "train_loss": ("draw", train),
            "train_loss_se": ("draw", 1e-3 * sizes),
            "heldout_loss": ("draw", heldout),
            "heldout_loss_se": ("draw", 2e-3 * sizes),
            "generalization_gap_se": ("draw", gap_se * sizes),
        }
    )
    cube = cube.expand_dims(sigma=[0.5])
    found = derived(cube)
    spread = float(found.psnr_gap.std())
    assert float(found.psnr_gap_se.mean()) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("order", [slice(None), [3, 0, 2, 1, 4]])
def test_a_power_law_has_its_exponent_as_psnr_slope(order):
    """MSE ~ sigma^(2 a) has d PSNR_out / d PSNR_in = a, whatever the grid and its order."""
    sigma = np.array([0.1, 0.15, 0.4, 1.0, 1.2])[order]
    loss = xr.DataArray(sigma ** (2 * 0.7), dims="sigma", coords={"sigma": sigma})
    found = derived(xr.Dataset({"heldout_loss": loss}))
    assert found.psnr_slope.values == pytest.approx(0.7)
    assert found.sigma.values.tolist() == sigma.tolist()


def test_one_noise_level_has_no_slope():
    loss = xr.DataArray([0.1], dims="sigma", coords={"sigma": [0.5]})
    assert derived(xr.Dataset({"heldout_loss": loss})).psnr_slope.isnull().all()


def test_a_loss_of_zero_has_no_psnr():
    loss = xr.DataArray([0.0, 0.1], dims="sigma", coords={"sigma": [0.1, 0.5]})
    assert derived(xr.Dataset({"heldout_loss": loss})).psnr_heldout.isnull().values.tolist() == [
        True,
        False,
    ]


def test_squares_complements_and_differences():
    found = derived(
        hand_made(
            affine_r2=array([0.9, 0.6], "kimg"),
            affine_r2_se=array([0.01, 0.02], "kimg"),
            weight_distance=array([0.5, 0.2], "kimg"),
            weight_distance_se=array([0.01, 0.1], "kimg"),
            memorization_auc=array([0.5, 0.2], "kimg"),
            memorization_auc_se=array([0.03, 0.03], "kimg"),
            memorization_auc_null=array(0.15),
            memorization_auc_null_se=array(0.04),
        )
    )
    assert found.nonlinearity.values == pytest.approx([0.1, 0.4])
    assert found.nonlinearity_se.values == pytest.approx([0.01, 0.02])
    assert found.weight_distance_squared.values == pytest.approx([0.25, 0.04])
    assert found.weight_distance_squared_se.values == pytest.approx([0.01, 0.04])
    assert found.memorization_auc_excess.values == pytest.approx([0.35, 0.05])
    assert found.memorization_auc_excess_se.values == pytest.approx(0.05)


def test_singular_values_of_the_wiener_filter():
    found = derived(
        hand_made(
            weight_singular_value=array(np.ones((2, 3, 2)), "kimg", "sigma", "mode"),
            train_eigenvalues=array([[1.0, 0.0]], "n_train", "mode"),
        )
    ).wiener_singular_value
    assert found.dims == ("n_train", "sigma", "mode")
    assert found.values[0] == pytest.approx(np.array([[1 / 1.01, 0], [0.5, 0], [1 / 101, 0]]))


def test_a_variable_that_is_there_already_is_kept():
    cube = losses(psnr_train=array([1.0, 2.0], "kimg"))
    assert derived(cube).psnr_train.values.tolist() == [1, 2]


def everything():
    """A cube with every source."""
    names = {name for quantity in QUANTITIES.values() for name in quantity.needs} - {"sigma"}
    cube = losses()
    for name in names - set(cube):
        scale = 2.0 if name.endswith("_gaussian") else 0.5
        cube[name] = scale * cube.heldout_loss.mean("kimg")
        cube[f"{name}_se"] = 0.01 * cube[name]
    modes = xr.ones_like(cube.weight_singular_value).expand_dims(mode=2)
    rmse = cube.denoiser_rmse.expand_dims(reference=np.array(["gaussian"], object))
    return cube.assign(weight_singular_value=modes, train_eigenvalues=modes, denoiser_rmse=rmse)
