r"""Where a curve known only at snapshots crosses a level or turns: always an interval.

A curve read at :math:`k_1 < \dots < k_K` crosses somewhere between two of them, before the first
or after the last. Every answer is therefore (low, high], with low = 0 and high = inf at the open
ends. Nothing assumes that curves are monotone, and a missing reading (NaN) only widens the
interval; a curve without any reading has NaN bounds.
"""

import numpy as np
from jaxtyping import Float

from analyses.statistics import Array


def onset(
    curve: Float[np.ndarray, "*cells k"], time: Float[np.ndarray, " k"], level: float
) -> tuple[Array, Array]:
    """From when on `curve` stays above `level` to the end: (last reading not above, next one].

    >>> low, high = onset(np.array([0.0, 0.2, 0.0, 0.3, 0.9]), np.arange(1.0, 6.0), 0.05)
    >>> float(low), float(high)
    (3.0, 4.0)
    """
    above, below, index = _split(curve, level)
    last_below = np.where(below, index, -1).max(axis=-1)
    first = np.where(above & (index > last_below[..., None]), index, len(time)).min(axis=-1)
    return _bounds(curve, time, last_below, first)


def first_crossing(
    curve: Float[np.ndarray, "*cells k"], time: Float[np.ndarray, " k"], level: float
) -> tuple[Array, Array]:
    """When `curve` is above `level` for the first time, whatever comes later: (low, high]."""
    above, below, index = _split(curve, level)
    first = np.where(above, index, len(time)).min(axis=-1)
    before = np.where(below & (index < first[..., None]), index, -1).max(axis=-1)
    return _bounds(curve, time, before, first)


def last_above(
    curve: Float[np.ndarray, "*cells k"], place: Float[np.ndarray, " k"], level: float
) -> tuple[Array, Array, Array]:
    """From where on a falling `curve` stays at or below `level`: (low, high, monotone).

    low is the last place above `level` (0 if none is), high the next reading (inf if none
    follows); monotone says that no place before low is at or below `level`.
    """
    above, below, index = _split(curve, level)
    last = np.where(above, index, -1).max(axis=-1)
    after = np.where(below & (index > last[..., None]), index, len(place)).min(axis=-1)
    monotone = ~(below & (index < last[..., None])).any(axis=-1)
    return *_bounds(curve, place, last, after), monotone


def minimum(
    curve: Float[np.ndarray, "*cells k"], time: Float[np.ndarray, " k"]
) -> tuple[Array, Array, Array, Array]:
    """Where `curve` is lowest: (index, low, high, interior).

    low and high are the readings around it, between which the minimum of the curve lies; interior
    says that both exist. The index is -1 where there is no reading.
    """
    known = ~np.isnan(curve)
    index = np.arange(len(time))
    at = np.asarray(np.where(known, curve, np.inf).argmin(axis=-1))
    before = np.where(known & (index < at[..., None]), index, -1).max(axis=-1)
    after = np.where(known & (index > at[..., None]), index, len(time)).min(axis=-1)
    interior = known.any(axis=-1) & (before >= 0) & (after < len(time))
    low, high = _bounds(curve, time, before, after)
    return np.where(known.any(axis=-1), at, -1), low, high, interior


def _split(curve: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings above `level`, readings not above it, and the index of each reading."""
    known = ~np.isnan(curve)
    above = known & (np.where(known, curve, 0) > level)
    return above, known & ~above, np.arange(curve.shape[-1])


def _bounds(
    curve: np.ndarray, place: np.ndarray, before: Array, after: Array
) -> tuple[Array, Array]:
    """Places at two indices, open ends 0 and inf, NaN where the curve has no reading."""
    missing = np.isnan(curve).all(axis=-1)
    low = np.concatenate([[0.0], place])[before + 1]
    high = np.concatenate([place, [np.inf]])[after]
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)
