r"""The boundary between memorizing and not, by every criterion, in n_train and in time.

- :math:`N^*` (width, kimg), and the same at equal epochs and equal FLOPs (`clocks`): the n_train
  above which a criterion says "not memorizing", as the interval (largest n_train that memorizes,
  next one].
- kimg* (n_train, width): from when on it says "memorizing" to the last snapshot, as the interval
  (previous snapshot, this one]; right-censored where it never does. A criterion that was reached
  and left again has kimg*_monotone 0.
- the effective model memorization (2310.02664): the largest n_train of which 90 % is memorized
  at equal epochs, by the snapshot at that epoch and by the best one up to it.
- :math:`\tau_{gen}`: the first snapshot whose quality passes a level that is one for the whole
  cube, twice the real-against-real floor. A level relative to each run's own best would move with
  n_train and with the length of the run.

Nothing assumes monotone curves: see `onset`. Where a curve is not monotone, a flag says so.
"""

import numpy as np
import xarray as xr

from analyses import onset
from analyses.clocks import CLOCKS, reader
from analyses.criteria import margins
from analyses.transition import EMM_LEVEL, effective_memorization
from analyses.trials import across, kimg, labelled, per_trial

__all__ = ["boundary", "emm", "kimg_star", "n_star", "tau_gen"]

QUALITY = "sliced_wasserstein"
"""The distance of generated to real images that tau_gen reads."""
FLOORS = 2.0
"""Its level, in units of the floor between two sets of real images."""


def boundary(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """All boundaries that the cube has the sources of; `found` are its `criteria.readings`."""
    parts = [tau_gen(cube), emm(cube)]
    if "criterion_value" in found:
        parts += [kimg_star(cube, found), *(n_star(cube, found, c) for c in ("kimg", *CLOCKS))]
    return xr.merge(parts, compat="no_conflicts", join="outer", combine_attrs="override")


def n_star(cube: xr.Dataset, found: xr.Dataset, clock: str = "kimg") -> xr.Dataset:
    """`n_star_low`, `_high`, `_monotone` over (criterion, *across without n_train, time).

    With `clock` "epochs" or "flops" time is `<clock>_grid` and the names are `n_star_<clock>_*`.
    Empty without n_train, or where the cube does not know the count.
    """
    read = reader(cube, clock)
    if read is None or "n_train" not in across(cube):
        return xr.Dataset()
    take, time, dim = read
    margin = take(margins(found))
    dims = tuple(d for d in margin.dims if d != "n_train")
    curve = margin.transpose(*dims, "n_train").values
    low, high, monotone = onset.last_above(curve, cube["n_train"].values.astype(float), 0.0)
    prefix = "n_star" if clock == "kimg" else f"n_star_{clock}"
    at = "kimg" if clock == "kimg" else clock
    what = f"n_train above which the criterion says not memorizing, at equal {at}"
    return labelled(
        cube,
        dims,
        {"criterion": found["criterion"], dim: time},
        **{
            f"{prefix}_low": (low, f"{what}: largest that memorizes (0: none)", "1"),
            f"{prefix}_high": (high, f"{what}: next larger n_train (inf: none)", "1"),
            f"{prefix}_monotone": (
                monotone.astype(np.int8),
                f"1 where every smaller n_train memorizes as well, at equal {at}, else 0",
                "1",
            ),
        },
    )


def kimg_star(cube: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """`kimg_star_low`, `_high`, `_censored`, `_monotone` over (criterion, *across)."""
    margin, time = margins(found), kimg(cube)
    curve = margin.transpose(..., "kimg").values
    low, high = onset.onset(curve, time, 0.0)
    first = onset.first_crossing(curve, time, 0.0)[1]
    what = "the criterion says memorizing, to the last snapshot"
    return labelled(
        cube,
        margin.dims[:-1],
        {"criterion": found["criterion"]},
        kimg_star_low=(low, f"last snapshot before {what} (0: none)", "kimg"),
        kimg_star_high=(high, f"first snapshot from which {what} (inf: never)", "kimg"),
        kimg_star_censored=(
            np.isposinf(high).astype(np.int8),
            "1 where the criterion never says memorizing to the last snapshot, else 0",
            "1",
        ),
        kimg_star_monotone=(
            ((first == high) | np.isnan(high)).astype(np.int8),
            "0 where the criterion says memorizing at a snapshot and not at a later one, else 1",
            "1",
        ),
    )


def emm(cube: xr.Dataset) -> xr.Dataset:
    """`emm_last`, `emm_max` and the next n_train, over (*across without n_train, epochs_grid)."""
    read = reader(cube, "epochs")
    if read is None or "memorized_fraction" not in cube or "n_train" not in across(cube):
        return xr.Dataset()
    take, time, dim = read
    share = xr.DataArray(
        per_trial(cube, cube["memorized_fraction"], "kimg"), dims=(*across(cube), "kimg")
    )
    # A missing snapshot stays missing: the best so far may have been there.
    best = share.copy(data=np.fmax.accumulate(share.values, axis=-1)).where(share.notnull())
    n = cube["n_train"].values.astype(float)
    variables = {}
    for name, array, which in (
        ("emm_last", share, "at the last snapshot"),
        ("emm_max", best, "at the best snapshot"),
    ):
        shown = take(array).transpose(..., "n_train")
        dims = shown.dims[:-1]
        low, high, monotone = effective_memorization(shown.values, n)
        what = f"largest n_train of which {EMM_LEVEL:.0%} is memorized {which} of these epochs"
        variables |= {
            name: (low, f"{what} (0: none)", "1"),
            f"{name}_next": (high, f"n_train after the {what} (inf: none)", "1"),
            f"{name}_monotone": (
                monotone.astype(np.int8),
                f"1 where every n_train below the {what} is memorized as well, else 0",
                "1",
            ),
        }
    return labelled(cube, dims, {dim: time}, **variables)


def tau_gen(cube: xr.Dataset) -> xr.Dataset:
    """`tau_gen_low`, `_high`, `_censored` per trial; the level is their attribute."""
    floor = f"{QUALITY}_floor"
    if not {QUALITY, floor} <= set(cube) or "kimg" not in cube[QUALITY].dims:
        return xr.Dataset()
    # One level for all trials, or a floor that differs between subsets would tilt the onsets.
    level = FLOORS * float(cube[floor].median())
    curve, time = per_trial(cube, cube[QUALITY], "kimg"), kimg(cube)
    # At most the level counts: the level itself is passed.
    low, high = onset.first_crossing(-curve, time, float(np.nextafter(-level, -np.inf)))
    what = f"the {QUALITY} distance is at most {FLOORS:g} times its floor"
    out = labelled(
        cube,
        across(cube),
        tau_gen_low=(low, f"last snapshot before {what} (0: none)", "kimg"),
        tau_gen_high=(high, f"first snapshot at which {what} (inf: never)", "kimg"),
        tau_gen_censored=(
            np.isposinf(high).astype(np.int8),
            f"1 where never {what} (right-censored), else 0",
            "1",
        ),
    )
    for array in out.values():
        array.attrs["level"] = level
    return out
