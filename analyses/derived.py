r"""What follows from the variables of a cube by arithmetic alone, with no denoiser at hand.

`derived(cube)` adds each quantity of `QUANTITIES` whose sources the cube has. Its standard error
is that of the first order, given where it is exact; a ratio of two numbers measured on the same
inputs would need their covariance, which a cube does not hold: its error takes them as independent
and says so. Shares of a bracket (arXiv:2410.24060 for its ends) are NaN where the bracket is
narrower than three of its own standard errors: there is nothing to take a share of.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = ["QUANTITIES", "Quantity", "derived", "share_of_bracket"]

Found = tuple[xr.DataArray, xr.DataArray | None]
"""A value and its standard error, if it has one."""
NARROW = 3.0
"""Combined standard errors below which a bracket has no width."""
PEAK = 4.0
"""Squared range of pixels in [-1, 1], for PSNR = 10 log10(4 / MSE)."""
DECIBEL = 10 / math.log(10)
INDEPENDENT = "errors of its terms taken as independent"


@dataclass(frozen=True)
class Quantity:
    """One derived variable."""

    needs: tuple[str, ...]
    """Variables that the cube must have; their `_se` are used where it has them too."""
    compute: Callable[[xr.Dataset], Found]
    long_name: str
    units: str = "1"
    se: str = ""
    """What else there is to say about its standard error."""


def derived(cube: xr.Dataset) -> xr.Dataset:
    """The cube with every quantity whose sources it has, beside `<name>_se` where that is known.

    What the cube already has under the name is left as it is.
    """
    added: dict[str, xr.DataArray] = {}
    for name, quantity in QUANTITIES.items():
        if name in cube or not all(source in cube for source in quantity.needs):
            continue
        value, error = quantity.compute(cube)
        attrs = {"long_name": quantity.long_name, "units": quantity.units}
        added[name] = value.assign_attrs(attrs)
        if error is not None:
            notes = f"; {quantity.se}" if quantity.se else ""
            attrs = attrs | {"long_name": f"standard error of: {quantity.long_name}{notes}"}
            added[f"{name}_se"] = error.transpose(*value.dims).assign_attrs(attrs)
    return cube.assign(added)


def share_of_bracket(value: Found, low: Found, high: Found) -> Found:
    r""":math:`v = (x - l)/(h - l)`: 0 at the lower end of a bracket, 1 at the upper.

    :math:`se^2 = (se_x^2 + (1-v)^2 se_l^2 + v^2 se_h^2)/(h-l)^2`, independent errors. NaN where
    the bracket is narrower than three of its standard errors, or empty.
    """
    (x, x_se), (below, below_se), (above, above_se) = value, low, high
    width = above - below
    if below_se is not None and above_se is not None:
        width = width.where(abs(width) > NARROW * np.hypot(below_se, above_se))
    width = width.where(width != 0)
    share = (x - below) / width
    if x_se is None or below_se is None or above_se is None:
        return share, None
    square = x_se**2 + ((1 - share) * below_se) ** 2 + (share * above_se) ** 2
    return share, np.sqrt(square) / abs(width)


def _read(cube: xr.Dataset, name: str) -> Found:
    return cube[name], cube.get(f"{name}_se")


def _normalised(name: str) -> Callable[[xr.Dataset], Found]:
    """(LS - LS[D_M]) / (LS[D_G] - LS[D_M])."""

    def compute(cube: xr.Dataset) -> Found:
        oracles = (_read(cube, f"{name}_{end}") for end in ("empirical", "gaussian"))
        return share_of_bracket(_read(cube, name), *oracles)

    return compute


def _gaussian_empirical_ratio(cube: xr.Dataset) -> Found:
    """RMSE(D, D_G) / RMSE(D_M, D_G): the share of the bracket from D_G at 0 to D_M at 1."""
    memory = _read(cube, "empirical_gaussian_rmse")
    zero = xr.zeros_like(memory[0])
    own = _read(cube.sel(reference="gaussian", drop=True), "denoiser_rmse")
    return share_of_bracket(own, (zero, zero), memory)


def _square(cube: xr.Dataset) -> Found:
    value, error = _read(cube, "weight_distance")
    return value**2, None if error is None else 2 * value * error


def _nonlinearity(cube: xr.Dataset) -> Found:
    value, error = _read(cube, "affine_r2")
    return 1 - value, error


def _wiener(cube: xr.Dataset) -> Found:
    eigenvalues, sigma = cube["train_eigenvalues"], cube["sigma"].astype(float)
    return (eigenvalues / (eigenvalues + sigma**2)).transpose(..., "sigma", "mode"), None


def _decibel(mse: xr.DataArray) -> xr.DataArray:
    """NaN where there is no error at all."""
    return 10 * np.log10(PEAK / mse.where(mse > 0))


def _psnr(loss: str) -> Callable[[xr.Dataset], Found]:
    """10 log10(4 / MSE); d PSNR = -(10 / ln 10) d MSE / MSE."""

    def compute(cube: xr.Dataset) -> Found:
        value, error = _read(cube, loss)
        return _decibel(value), None if error is None else DECIBEL * error / value

    return compute


def _psnr_gap(cube: xr.Dataset) -> Found:
    """PSNR on training points minus PSNR on held-out images.

    The covariance of the two losses follows from the paired error of their difference.
    """
    (train, a), (heldout, b) = _read(cube, "train_loss"), _read(cube, "heldout_loss")
    gap = _decibel(train) - _decibel(heldout)
    paired = cube.get("generalization_gap_se")
    if a is None or b is None or paired is None:
        return gap, None
    covariance = ((a**2 + b**2 - paired**2) / 2).clip(-a * b, a * b)
    square = (a / train) ** 2 + (b / heldout) ** 2 - 2 * covariance / (train * heldout)
    return gap, DECIBEL * np.sqrt(square.clip(0))


def _psnr_in(cube: xr.Dataset) -> Found:
    return _decibel(cube["sigma"].astype(float) ** 2), None


def _psnr_slope(cube: xr.Dataset) -> Found:
    """Second-order finite differences along sigma; the grid need be neither even nor sorted."""
    curve = _decibel(cube["heldout_loss"]).assign_coords(psnr_in=_psnr_in(cube)[0])
    if curve.sizes["sigma"] < 2:
        return xr.full_like(cube["heldout_loss"], np.nan), None
    order = np.argsort(cube["sigma"].values.astype(float))
    slope = curve.isel(sigma=order).differentiate("psnr_in").drop_vars("psnr_in")
    return slope.isel(sigma=np.argsort(order)), None


def _auc_excess(cube: xr.Dataset) -> Found:
    """Samples and held-out images are independent: their variances add."""
    (own, a), (null, b) = _read(cube, "memorization_auc"), _read(cube, "memorization_auc_null")
    return own - null, None if a is None or b is None else np.hypot(a, b)


def _linearity_normalised(which: str, name: str) -> Quantity:
    return Quantity(
        (name, f"{name}_empirical", f"{name}_gaussian"),
        _normalised(name),
        f"{which} as share of the way from the empirical (0) to the Gaussian (1) denoiser",
        se=INDEPENDENT,
    )


QUANTITIES: dict[str, Quantity] = {
    "linearity_cosine_normalised": _linearity_normalised("linearity", "linearity_cosine"),
    "linearity_cosine_centred_normalised": _linearity_normalised(
        "centred linearity", "linearity_cosine_centred"
    ),
    "gaussian_empirical_ratio": Quantity(
        ("denoiser_rmse", "empirical_gaussian_rmse"),
        _gaussian_empirical_ratio,
        "RMSE of the denoiser to the Gaussian one over that of the empirical denoiser",
        se=INDEPENDENT,
    ),
    "nonlinearity": Quantity(
        ("affine_r2",), _nonlinearity, "variance not explained by an affine map, 1 - affine_r2"
    ),
    "weight_distance_squared": Quantity(
        ("weight_distance",), _square, "|W_L - W_G|_F^2 / |W_G|_F^2"
    ),
    "wiener_singular_value": Quantity(
        ("train_eigenvalues", "weight_singular_value"),
        _wiener,
        "singular values of the Wiener filter, lam / (lam + sigma^2)",
    ),
    "psnr_train": Quantity(
        ("train_loss",), _psnr("train_loss"), "10 log10(4 / train_loss), pixel range 2", "dB"
    ),
    "psnr_heldout": Quantity(
        ("heldout_loss",), _psnr("heldout_loss"), "10 log10(4 / heldout_loss), pixel range 2", "dB"
    ),
    "psnr_gap": Quantity(
        ("train_loss", "heldout_loss"),
        _psnr_gap,
        "PSNR on training points minus PSNR on held-out images, same noise",
        "dB",
    ),
    "psnr_in": Quantity(
        ("sigma", "heldout_loss"), _psnr_in, "10 log10(4 / sigma^2), PSNR of the inputs", "dB"
    ),
    "psnr_slope": Quantity(
        ("heldout_loss",),
        _psnr_slope,
        "d PSNR_out / d PSNR_in on held-out images, finite differences along sigma",
    ),
    "memorization_auc_excess": Quantity(
        ("memorization_auc", "memorization_auc_null"),
        _auc_excess,
        "memorization_auc minus its value for held-out images",
    ),
}
"""All derived variables, in the order in which they are added."""
