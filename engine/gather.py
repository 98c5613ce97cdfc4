"""Pieces to cube: integer scatter onto the sweep's coordinates, nothing joined by float equality.

`build` is pure: it reads the store and returns a labelled dataset over the full grid. What is
missing is NaN, and `status` says why.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from engine.grid import Cell, cube_dim
from engine.pieces import Layout, Piece, coordinate
from engine.spec import Sweep, as_mapping, canonical
from engine.store import Store, folder, piece_path
from engine.work import DONE, MEANINGS, NOTED, Survey

SCHEMA_VERSION = 1
NEAR = ("n_near_duplicates", "n_near_leaked", "near_threshold")
LONG_NAMES = {
    "width": "width of the backbone, its capacity dial",
    "n_train": "number of training points",
    "seed": "initialisation and training noise",
    "draw": "permutation of the data that the training set is a prefix of",
    "split": "a: from the front of the permutation, b: from its back, disjoint",
    "kimg": "training time in thousands of images",
    "sigma": "noise level",
    "inputs": "points that the noisy inputs are made from",
    "reference": "denoiser that is compared with",
    "sample": "generated sample",
    "image": "held-out image",
    "pair": "pair of held-out images",
    "pixel": "pixel, in CHW order",
    "mode": "principal component",
    "point": "training point, in the order of training",
    "input": "noisy input",
    "shown": "shown sample",
    "step": "step of the input along a direction, in units of sigma",
    "subspace": "subspace of the data",
    "alpha2": "squared weight of the first input of a mix",
    "fit_mode": "singular mode of the affine fit",
    "wiener_mode": "singular mode of the Wiener filter",
    "flow_reference": "denoiser whose samples are compared with",
    "trajectory_denoiser": "denoiser whose path it is",
    "model": "denoiser that was trained elsewhere",
    "skip_sigma": "noise level at which the sampler starts from the Gaussian flow",
}
UNITS = {"kimg": "1000 images", "sigma": "pixel"}
"""Of dims that have one."""
FLAGS = {
    "flag_values": np.arange(len(MEANINGS), dtype=np.int8),
    "flag_meanings": " ".join(MEANINGS),
    "units": "1",
}
"""Attributes of a status, as of CF."""
DENSITY = {
    f"training.{option}"
    for option in ("noise", "p_mean", "p_std", "sigma", "sigma_min", "sigma_max")
}
"""Options of the density of noise levels in training."""
NOTES = {
    "stream_loss": ("running mean of the optimiser's own loss per pixel", "1"),
    "heldout_stream_loss": ("the same loss of the snapshot on held-out points", "1"),
    "train_seconds": (
        "processor time spent training up to this snapshot (wall time on a GPU)",
        "s",
    ),
    "analysis_seconds": (
        "processor time spent on all analyses of this cell (wall time on a GPU)",
        "s",
    ),
}
"""Long names and units of what training and receipts note."""
AT_A_TIME = 5000
"""Pieces whose numbers are held at a time."""
RAW_DIMS = (
    "sample", "image", "pair", "mode", "pixel", "point", "input", "shown", "fit_mode",
    "wiener_mode", "subspace",
)  # fmt: skip
"""Arrays of a subset with one of these dims are stored once per subset, not per cell."""


class Cube:
    """Arrays under construction, over the whole grid."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.axes = {**sweep.axes, "kimg": sweep.kimg}
        self.sizes: dict[str, int] = {cube_dim(a): len(v) for a, v in self.axes.items()}
        self.labels: dict[str, list] = {"sigma": list(sweep.sigmas)}
        self.arrays: dict[str, tuple[tuple[str, ...], np.ndarray, dict]] = {}

    def index(self, coordinates: Iterable[tuple[str, Any]]) -> dict[str, int]:
        """Position of a grid point along each of its axes."""
        return {cube_dim(a): self.axes[a].index(v) for a, v in coordinates}

    def positions(self, trials: np.ndarray, kimg: np.ndarray) -> np.ndarray:
        """Positions (n, grid dims) of cells by index of trial and kimg.

        The trials are the product of the across axes in order.
        """
        sizes = list(self.sizes.values())
        return np.stack([*np.unravel_index(trials, sizes[:-1]), kimg], axis=1)

    def put_cells(
        self, layout: Layout, numbers: np.ndarray, positions: np.ndarray, lacks: Collection[str]
    ) -> None:
        """Scatter pieces of one layout, their numbers as bytes (n, size), into the cube.

        Args:
            positions: (n, grid dims) of each.
            lacks: grid dims that their variables have not.
        """
        self._agree(layout.piece.labels)
        kept = {d: at for d, at in zip(self.sizes, positions.T, strict=True) if d not in lacks}
        for name, first in layout.piece.variables.items():
            values, attrs = shown(layout.values(name, numbers), first.attrs)
            own = dict(zip(first.dims, values.shape[1:], strict=True))
            array = self._array(name, tuple(kept), own, values.dtype, attrs)
            array[(*kept.values(), *(slice(n) for n in own.values()))] = values

    def _agree(self, labels: Mapping[str, list]) -> None:
        for dim, own in labels.items():
            if self.labels.setdefault(dim, own) != own:
                raise ValueError(f"pieces disagree on {dim}: {self.labels[dim]} and {own}")

    def put(self, piece: Piece, at: Mapping[str, int], dims: tuple[str, ...]) -> None:
        """Scatter a piece into the cube at `at`; `dims` are the grid dims its variables carry."""
        self._agree(piece.labels)
        for name, variable in piece.variables.items():
            values, attrs = shown(variable.values, variable.attrs)
            own = dict(zip(variable.dims, values.shape, strict=True))
            raw_subset = "kimg" not in at and any(d in RAW_DIMS for d in own)
            grid = tuple(d for d in dims if d in at) if raw_subset else dims
            array = self._array(name, grid, own, values.dtype, attrs)
            array[
                tuple(at.get(d, slice(None)) for d in grid) + tuple(slice(n) for n in own.values())
            ] = values

    def _array(
        self, name: str, grid: tuple[str, ...], own: dict[str, int], kind: np.dtype, attrs: dict
    ) -> np.ndarray:
        if name not in self.arrays:
            kind = kind if kind.kind == "f" else np.dtype(np.float64)
            shape = [self.sizes[d] for d in grid] + list(own.values())
            self.arrays[name] = ((*grid, *own), np.full(shape, np.nan, kind), attrs)
        dims, array, attrs = self.arrays[name]
        grown = [(0, 0)] * len(grid) + [
            (0, max(0, n - have))
            for n, have in zip(own.values(), array.shape[len(grid) :], strict=True)
        ]
        if any(extra for _, extra in grown):
            array = np.pad(array, grown, constant_values=np.nan)
            self.arrays[name] = (dims, array, attrs)
        return array


@dataclass(frozen=True)
class Gathered:
    """An earlier cube, what it was made of, and the trials whose folders are as they were then."""

    cube: xr.Dataset
    labels: dict[str, list]
    names: list[str]
    """Its variables that come from pieces."""
    unchanged: frozenset[str]
    subsets: frozenset[tuple[str, str]]
    """(folder, analysis) of the subsets' pieces in it."""

    def lasts(self, survey: Survey) -> bool:
        """Whether no piece that is in it has been lost: then new ones can be laid over it."""
        had = self.cube["piece_status"].values.reshape(survey.pieces.shape) == DONE
        return not (had & (survey.pieces != DONE)).any() and self.subsets <= of_subsets(survey)


def of_subsets(survey: Survey) -> frozenset[tuple[str, str]]:
    """(folder, analysis) of every stored piece of a subset."""
    return frozenset(
        (folder(subset), name)
        for subset, states in survey.subsets.items()
        for name, code in states.items()
        if code == DONE
    )


def build(
    store: Store,
    sweep: Sweep,
    facts: Mapping[str, Any],
    survey: Survey,
    versions: Mapping[str, str],
) -> xr.Dataset:
    """The cube of a sweep, from its pieces.

    Args:
        facts: `engine.resolve.Facts` as stored in sweep.json.
        survey: the sweep compared with the store.
        versions: names and versions of what computed it, for the attributes.
    """
    return labelled(scattered(store, sweep, facts, survey), facts, survey, versions)


def scattered(
    store: Store,
    sweep: Sweep,
    facts: Mapping[str, Any],
    survey: Survey,
    before: Gathered | None = None,
) -> Cube:
    """Every stored piece at its place; what is unchanged since `before` is not read again."""
    cube = Cube(sweep)
    changed = np.ones(len(survey.trials), bool)
    if before is not None and before.lasts(survey):
        changed[:] = [folder(trial) not in before.unchanged for trial in survey.trials]
        cube.labels |= before.labels
        for name in before.names:
            variable = before.cube[name]
            dims = tuple(map(str, variable.dims))
            cube.arrays[name] = dims, variable.values, dict(variable.attrs)
    for a, name in enumerate(sweep.analyses, start=1):
        cells = np.argwhere((survey.pieces[:, :, a] == DONE) & changed[:, None])
        # A comparison of two cells has not the dim in which they differ.
        _put_stored(cube, store, survey, name, cells, facts["analyses"][name].get("without", []))
    for subset, states in survey.subsets.items():
        at = cube.index(subset.coordinates)
        for name, code in states.items():
            if code == DONE and (piece := store.read_piece(subset, name)):
                cube.put(piece, at, tuple(cube.sizes))
    return cube


def labelled(
    cube: Cube, facts: Mapping[str, Any], survey: Survey, versions: Mapping[str, str]
) -> xr.Dataset:
    """The arrays as a dataset, with states, coordinates and attributes."""
    sweep = cube.sweep
    dataset = _dataset(cube)
    _add_states(dataset, cube, survey)
    _add_coordinates(dataset, sweep, facts)
    dataset["config_json"] = ((), np.array(canonical(as_mapping(sweep)), dtype=object))
    dataset["config_json"].attrs["long_name"] = "the whole sweep"
    dataset.attrs = _attributes(sweep, facts, versions)
    return dataset


def shown(values: np.ndarray, attrs: Mapping[str, Any]) -> tuple[np.ndarray, dict]:
    """What of a variable goes into the cube: of samples and outputs, the first few."""
    attrs = dict(attrs)
    most = attrs.pop("shown", None)
    return values if most is None else values[..., : int(most), :], attrs


def _put_stored(
    cube: Cube,
    store: Store,
    survey: Survey,
    name: str,
    cells: np.ndarray,
    lacks: Collection[str],
) -> None:
    """Read an analysis' pieces of cells (n, 2), by index of trial and kimg, into the cube."""
    kimg = survey.sweep.kimg
    for some in np.array_split(cells, range(AT_A_TIME, len(cells), AT_A_TIME)):
        paths = (piece_path(Cell(survey.trials[i], kimg[j]), name) for i, j in some)
        found: dict[Layout, list[tuple[int, bytes]]] = defaultdict(list)
        for n, read in enumerate(store.read_numbers(paths)):
            if read is not None:  # None: lost since it was surveyed
                layout, numbers = read
                found[layout].append((n, numbers))
        for layout, pieces in found.items():
            which, numbers = zip(*pieces, strict=True)
            flat = np.frombuffer(b"".join(numbers), np.uint8).reshape(len(numbers), -1)
            cube.put_cells(layout, flat, cube.positions(*some[list(which)].T), lacks)


def _dataset(cube: Cube) -> xr.Dataset:
    """Arrays padded to common dims (64 shown samples beside 512 measured ones) and labelled."""
    sizes: dict[str, int] = {}
    for dims, array, _ in cube.arrays.values():
        for dim, n in zip(dims, array.shape, strict=True):
            sizes[dim] = max(n, sizes.get(dim, 0))
    variables = {}
    for name, (dims, array, attrs) in cube.arrays.items():
        grown = [(0, sizes[d] - n) for d, n in zip(dims, array.shape, strict=True)]
        padded = (
            np.pad(array, grown, constant_values=np.nan) if any(g for _, g in grown) else array
        )
        variables[name] = (dims, padded, attrs)
    coordinates = {cube_dim(a): coordinate(v) for a, v in cube.axes.items()}
    coordinates |= {d: coordinate(v) for d, v in cube.labels.items() if d in sizes}
    dataset = xr.Dataset(variables, coordinates)
    describe_dims(dataset)
    return dataset


def describe_dims(dataset: xr.Dataset) -> None:
    """Long names and units of the coordinates of its dims."""
    for dim in {*dataset.dims} & {*dataset.coords}:
        long_name, units = LONG_NAMES.get(str(dim), str(dim)), UNITS.get(str(dim), "1")
        dataset[dim].attrs = {"long_name": long_name, "units": units}


def _add_states(dataset: xr.Dataset, cube: Cube, survey: Survey) -> None:
    """Status, errors, and the numbers that the training itself noted."""
    grid = tuple(cube_dim(axis) for axis in cube.axes)
    shape = [cube.sizes[d] for d in grid]
    names = ["training", *survey.sweep.analyses]
    # The grid is the product of its axes in order, so (trial, kimg) unravels to it.
    dataset["status"] = (
        grid,
        survey.cells().reshape(shape),
        {"long_name": "state of the cell", **FLAGS},
    )
    dataset["piece_status"] = (
        (*grid, "analysis"),
        survey.pieces.reshape([*shape, len(names)]),
        {"long_name": "state of the training and of each analysis", **FLAGS},
    )
    dataset["analysis"] = coordinate(names)
    errors = np.full(survey.pieces.shape[:2], "", dtype=object)
    for at, message in survey.errors.items():
        errors[at] = message
    dataset["error"] = (grid, errors.reshape(shape), {"long_name": "first error of a failed cell"})
    for name, values in zip(NOTED, survey.noted.swapaxes(0, 1), strict=True):
        long_name, units = NOTES[name]
        dataset[name] = (grid, values.reshape(shape), {"long_name": long_name, "units": units})


def _network_sizes(sweep: Sweep, facts: Mapping[str, Any]) -> tuple[xr.DataArray, xr.DataArray]:
    """Parameters, and FLOPs of one forward per image, over width and every backbone axis."""
    axes = ["width", *(a for a in sweep.axes if a.startswith("backbone."))]
    dims = [cube_dim(axis) for axis in axes]
    sizes = np.full([len(sweep.axes[axis]) for axis in axes], np.nan)
    flops = sizes.copy()
    for at in np.ndindex(*sizes.shape):
        point = {a: sweep.axes[a][k] for a, k in zip(axes, at, strict=True)}
        key = canonical({a.removeprefix("backbone."): v for a, v in point.items()})
        sizes[at], flops[at] = facts["sizes"][key]
    return xr.DataArray(sizes, dims=dims), xr.DataArray(flops, dims=dims)


def _add_coordinates(dataset: xr.Dataset, sweep: Sweep, facts: Mapping[str, Any]) -> None:
    """Derived coordinates: size of the network, epochs, images seen, d, exposure of each sigma."""
    full = facts["training"].get("sampling") == "full"
    sizes, forward = _network_sizes(sweep, facts)
    kimg, n_train = np.array(sweep.kimg), np.array(sweep.axes["n_train"])
    d = math.prod(facts["data"]["shape"])
    batch = xr.DataArray(n_train, dims="n_train") if full else facts["training"]["batch"]
    images = xr.DataArray(np.round(kimg * 1000, 6), dims="kimg")
    seen = np.ceil(images / batch) * batch
    added = {
        "n_params": (sizes, "parameters of the backbone", "1"),
        "flops": (3 * forward * seen, "training compute, 3 forwards an image", "FLOP"),
        "images_seen": (seen, "images seen by the optimiser", "images"),
        "epochs": (
            seen / xr.DataArray(n_train, dims="n_train"),
            "passes over the training set",
            "1",
        ),
        "n_over_d": (xr.DataArray(n_train / d, dims="n_train"), "training points per pixel", "1"),
        "params_over_n": (
            sizes / xr.DataArray(n_train, dims="n_train"),
            "parameters per training point",
            "1",
        ),
        "dim": (xr.DataArray(d), "pixels of an image, d", "1"),
        "sigma_data": (
            xr.DataArray(facts["training"]["sigma_data"] or facts["data"]["sigma_data"]),
            "standard deviation of all pixels",
            "pixel",
        ),
    }
    if "training.batch" in sweep.axes:
        for name in ("images_seen", "epochs", "flops"):
            added.pop(name)
    for name, (array, long_name, units) in added.items():
        dataset.coords[name] = array.assign_attrs(long_name=long_name, units=units)
    if "sigma" not in dataset.coords or DENSITY & {*sweep.axes}:
        return  # then the exposure differs from trial to trial
    dataset["exposure"] = (
        "sigma",
        _exposure(sweep.sigmas, facts["training"]),
        {"long_name": "share of training draws within a factor sqrt(2) of sigma", "units": "1"},
    )


def _exposure(sigmas: Iterable[float], training: Mapping[str, Any]) -> list[float]:
    """P(|ln s - ln sigma| < ln(2)/2) under the density that training draws its levels s from."""

    def below(x: float) -> float:
        if training.get("noise") == "fixed":
            return float(x >= math.log(training["sigma"]))
        if training.get("noise") == "loguniform":
            low, high = (math.log(training[end]) for end in ("sigma_min", "sigma_max"))
            return min(max((x - low) / (high - low), 0.0), 1.0)
        return 0.5 * (1 + math.erf((x - training["p_mean"]) / training["p_std"] / math.sqrt(2)))

    half = math.log(2) / 2
    return [below(math.log(s) + half) - below(math.log(s) - half) for s in sigmas]


def _attributes(
    sweep: Sweep, facts: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    data = facts["data"]
    return {
        "Conventions": "CF-1.11",
        "title": f"diffphase sweep {sweep.name}",
        "question": sweep.question,
        "sweep": sweep.name,
        "dataset": data["name"],
        "data_hash": data["content_hash"],
        "n_pool": data["n_pool"],
        "n_heldout": data["n_heldout"],
        "n_duplicates": data["n_duplicates"],
        "n_leaked": data["n_leaked"],
        "n_constant_pixels": data["n_constant_pixels"],
        **{name: data[name] for name in NEAR if data.get(name) is not None},
        "backbone": sweep.backbone.name,
        "backbone_options": canonical(facts["backbone"]),
        "training_options": canonical(facts["training"]),
        "analysis_options": canonical({n: a["options"] for n, a in facts["analyses"].items()}),
        "axes": " ".join(cube_dim(a) for a in sweep.axes),
        "schema_version": SCHEMA_VERSION,
        "references": "arXiv:2410.24060",
        **{f"version_{name}": version for name, version in versions.items()},
    }
