"""Which cells of a cube a figure of the paper shows, and how it says so.

The largest width, the last snapshot and the first split, unless the figure runs along that axis;
the largest `n_train` for a denoiser that generalizes, the smallest for one that memorizes; of any
further axis the first value. Seeds and draws stay: lines are means over them, and images are those
of the first of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from analyses.paper.sheets import Sheet
from analyses.trials import across

__all__ = ["Builder", "Cells", "Request", "choose", "largest", "smallest", "told_apart"]

Train = Callable[[Mapping[str, Any]], np.ndarray]
"""Training images "n d" of the trial with the given coordinates, which a cube does not hold."""
FORMS = {"kimg": "{} kimg"}


def largest(values: np.ndarray) -> int:
    """Position of the largest value."""
    return int(values.argmax())


def smallest(values: np.ndarray) -> int:
    """Position of the smallest value."""
    return int(values.argmin())


def first(values: np.ndarray) -> int:
    """Position of the first value."""
    return 0


DEFAULTS: dict[str, Callable[[np.ndarray], int]] = {
    "width": largest,
    "n_train": largest,
    "kimg": largest,
}


@dataclass(frozen=True)
class Cells:
    """A part of the cube."""

    data: xr.Dataset
    """Only the dims that the figure runs along, and those of the variables."""
    words: tuple[str, ...]
    """What was chosen of the others, one each."""

    @property
    def where(self) -> str:
        """What was chosen of the others, in words."""
        return ", ".join(self.words)

    @property
    def replicates(self) -> dict[str, int]:
        """Number of seeds and of draws."""
        return {d: self.data.sizes.get(d, 1) for d in ("seed", "draw")}

    def one(self) -> xr.Dataset:
        """The first seed and the first draw: images are not averaged."""
        return self.data.isel({d: 0 for d in ("seed", "draw") if d in self.data.dims})


@dataclass(frozen=True)
class Request:
    """What a figure is drawn from."""

    cube: xr.Dataset
    phase: xr.Dataset
    train: Train | None = None


Builder = Callable[[Request], Sheet]
"""What makes one figure."""


def choose(cube: xr.Dataset, *free: str, **picks: Callable[[np.ndarray], int] | object) -> Cells:
    """The cells that a figure along the axes `free` shows; `picks` replace the defaults above.

    A pick is a value of the axis, or what finds its position among the values.
    """
    words, at = [], {}
    for axis in (*across(cube), "kimg"):
        if axis in ("seed", "draw", *free) or axis not in cube.dims:
            continue
        values = cube[axis].values
        pick = picks.get(axis, DEFAULTS.get(axis, first))
        at[axis] = pick(values) if callable(pick) else int(np.flatnonzero(values == pick)[0])
        words.append(_named(axis, values[at[axis]], len(values) if axis not in DEFAULTS else 1))
    return Cells(cube.isel(at), tuple(words))


def told_apart(cells: Sequence[Cells]) -> tuple[str, list[str]]:
    """What is chosen in all of `cells`, and in each what is not, in words."""
    same = [word for word in cells[0].words if all(word in each.words for each in cells)]
    own = [", ".join(w for w in each.words if w not in same) for each in cells]
    return ", ".join(same), own


def _named(axis: str, value: object, count: int) -> str:
    shown = f"{value:g}" if isinstance(value, float | np.floating) else value
    text = FORMS.get(axis, axis + " {}").format(shown)
    return f"{text} (first of {count})" if count > 1 and axis != "split" else text
