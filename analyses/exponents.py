r"""Exponent of a time or a boundary that is known as intervals, on any axis of the cube.

Onset times over n_train, boundaries N* over width at fixed steps, epochs, samples or FLOPs: each
is a set of intervals (low, high] over a grid x, for several seeds and draws, and its exponent is
the slope of its log on log x (log-normal scatter, see `survival`).
"""

import numpy as np
from jaxtyping import Float

from analyses.onset_laws import MIN_REPLICATES
from analyses.regression import observations
from analyses.statistics import Numbers
from analyses.survival import Groups, survival_fit
from analyses.variance import present


def exponent(
    x: Float[np.ndarray, " o"], low: Numbers, high: Numbers, seed_ids: Numbers, draw_ids: Numbers
) -> dict[str, Numbers]:
    r"""Slope b of :math:`\log y = a + b \log x`, y known to lie in (low, high]; crossed interval.

    For any onset or boundary on any axis: `x`, `seed_ids`, `draw_ids` (" o"), `low` and `high`
    (" o", or "b o" for many slices), NaN where there is no observation. Returns `estimate`, `low`,
    `high`, `is_range`, `success`, `replicates`. From `MIN_REPLICATES` (seed, draw) pairs on the
    ends are those of `survival_fit` with groups; with fewer they are the range of the fits to
    single replicates and `is_range` is True; a single replicate has Wald's interval, about itself.

    >>> n = np.array([16.0, 32, 64, 128])
    >>> found = exponent(n, n / 1.05, n * 1.05, [0] * 4, [0] * 4)
    >>> round(float(found["estimate"]), 3), bool(found["low"] < 1 < found["high"])
    (1.0, True)
    """
    x, lower, upper, known = observations(x, low, high)
    z, groups = np.log(x)[:, None], Groups(np.asarray(seed_ids), np.asarray(draw_ids))
    pairs = np.unique(np.stack(groups, axis=1), axis=0, return_inverse=True)[1].ravel()
    replicates = present(pairs, known > 0).sum(axis=0)
    crossed = survival_fit(z, lower, upper, groups, known)
    alone = survival_fit(z, lower, upper, weights=known)
    is_range, one = (replicates > 1) & (replicates < MIN_REPLICATES), replicates == 1
    least, greatest = (np.full(len(lower), np.nan) for _ in range(2))
    if is_range.any():
        each = np.stack(
            [
                survival_fit(
                    z[rows],
                    *(a[is_range][:, rows] for a in (lower, upper)),
                    None,
                    known[is_range][:, rows],
                ).coefficients[:, 1]
                for rows in np.unique(pairs)[:, None] == pairs
            ]
        )
        least[is_range], greatest[is_range] = np.fmin.reduce(each), np.fmax.reduce(each)
    found = {
        "estimate": crossed.coefficients[:, 1],
        "low": np.select([is_range, one], [least, alone.low[:, 1]], crossed.low[:, 1]),
        "high": np.select([is_range, one], [greatest, alone.high[:, 1]], crossed.high[:, 1]),
        "is_range": is_range,
        "success": crossed.success,
        "replicates": replicates,
    }
    return {key: value[0] if np.ndim(low) == 1 else value for key, value in found.items()}
