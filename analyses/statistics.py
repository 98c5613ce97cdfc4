r"""Intervals: Wilson for shares, Student for means, paired percentile bootstrap.

A share of :math:`k` in :math:`n` gets the Wilson score interval, which stays inside [0, 1] and
does not collapse at :math:`k = 0` as a bootstrap does. Differences between two snapshots are
*paired*: both are evaluated on the same images with the same noise, so the images are resampled
and both snapshots follow. A resample is a row of multinomial weights, which turns the bootstrap
of many cells into one matrix product. E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; B. Efron,
Ann. Stat. 7 (1979) 1.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

Numbers = Any
"""Whatever `numpy.asarray` takes: a number, a list, an array, a tensor on the CPU."""
Array = np.ndarray | np.generic
"""An array, or the scalar that numpy makes of one without dims."""

RESAMPLES = 1000
"""Bootstrap resamples of images or pairs."""


def wilson(k: Numbers, n: Numbers, z: float = 1.96) -> tuple[Array, Array]:
    r"""Wilson score interval of a share `k` / `n`, elementwise: (low, high), both in [0, 1].

    With :math:`p = k/n`: centre :math:`(p + z^2/2n)/(1 + z^2/n)`, half-width
    :math:`z \sqrt{p(1-p)/n + z^2/4n^2}/(1 + z^2/n)`. NaN where `k` or `n` is NaN or `n` is 0.

    >>> low, high = wilson(0, 512)
    >>> float(low), round(float(high), 4)
    (0.0, 0.0074)
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    n = np.where(n > 0, n, np.nan)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # At p = 0 and p = 1 the bound is exact; rounding would leave 1e-19 there.
    low = np.where(k == 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(k == n, 1.0, np.minimum(centre + half, 1.0))
    return np.where(np.isnan(p), np.nan, low), np.where(np.isnan(p), np.nan, high)


def percentile_interval(
    values: Numbers, axis: int = 0, level: float = 0.95
) -> tuple[Array, Array]:
    """Central `level` interval of bootstrap `values` along `axis`: (low, high).

    NaN is ignored; where all are NaN the interval is NaN.
    """
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    ordered = np.sort(values, axis=0)  # NaN last
    n = (~np.isnan(values)).sum(axis=0)

    def quantile(q: float) -> Array:
        position = q * np.maximum(n - 1, 0)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, np.maximum(n - 1, 0))
        left = np.take_along_axis(ordered, below[None], 0)[0]
        right = np.take_along_axis(ordered, above[None], 0)[0]
        return left + (position - below) * (right - left)

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


def bootstrap_weights(
    n: int, resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "b {n}"]:
    """How often each of `n` items occurs in each of `resamples` draws; rows sum to `n`."""
    rng = np.random.default_rng([seed, n, resamples])
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)


def weighted_mean(
    weights: Float[np.ndarray, "b n"], values: Numbers
) -> Float[np.ndarray, "b ..."]:
    """Mean of `values` ("*cells n") under each row of `weights`, ignoring NaN: "b *cells"."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    total = np.tensordot(weights, np.where(known, values, 0), axes=([1], [-1]))
    count = np.tensordot(weights, known.astype(float), axes=([1], [-1]))
    return total / np.where(count > 0, count, np.nan)


def paired_difference(
    first: Numbers, second: Numbers, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Mean of `first` - `second` over the last axis, 95 % interval: (estimate, low, high).

    Both are measured on the same items, so one resample of items serves both; an item that is
    NaN in either is dropped.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    weights = bootstrap_weights(difference.shape[-1], resamples, seed)
    low, high = percentile_interval(weighted_mean(weights, difference))
    return weighted_mean(np.ones((1, difference.shape[-1])), difference)[0], low, high


def paired_r2_difference(
    first: tuple[Numbers, Numbers],
    second: tuple[Numbers, Numbers],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    r"""Difference of two :math:`R^2 = 1 - \sum e_i / \sum v_i`: (estimate, low, high).

    `first` and `second` are (residual, variance) per image along the last axis; images are
    resampled jointly for the 95 % interval. An image that is NaN anywhere is dropped from both.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, float) for a in (*first, *second)))
    known = ~np.isnan(sum(arrays))
    arrays = [np.where(known, a, np.nan) for a in arrays]
    weights = bootstrap_weights(arrays[0].shape[-1], resamples, seed)
    ones = np.ones((1, weights.shape[1]))

    def difference(w: np.ndarray) -> Array:
        e1, v1, e2, v2 = (weighted_mean(w, a) for a in arrays)
        return e2 / v2 - e1 / v1

    low, high = percentile_interval(difference(weights))
    return difference(ones)[0], low, high
