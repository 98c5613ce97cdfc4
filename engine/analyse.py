"""One analysis task: a stored snapshot (or a subset's oracles) in, pieces and a receipt out.

Knows the store but not Ray; `engine.fanout` runs it as remote tasks.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr

from analyses.cache import SHARED
from analyses.pairs import measure_pair
from analyses.registry import measure_all, reference_all
from analyses.specimen import Specimen
from analyses.specimen import Subset as Points
from engine.grid import Cell, Subset, partner
from engine.job import (
    ELSEWHERE,
    Job,
    clock_of,
    memory_here,
    naming_memory,
    training_points,
    use_threads,
)
from engine.moments import pool_moments
from engine.pieces import Piece, Variable, coordinate
from engine.store import snapshot_path
from trainables.datasets.data import Data
from trainables.streams import stream

SHARE = 16
"""Part of the machine's memory that one process keeps of what cells share."""


def analyse(
    job: Job,
    data: Data,
    at: Cell | Subset,
    group: str,
    names: Sequence[str],
    *,
    lost: Sequence[str] = (),
    last: bool = False,
) -> dict[str, Any]:
    """Measure the named analyses of one group at one cell (or subset), store what they give.

    An analysis that raises fails alone: its receipt holds the reason, the others are stored.

    Args:
        lost: errors of earlier attempts, kept in the receipts.
        last: whether this is the last attempt: an analysis whose place fails then fails too.

    Raises:
        ELSEWHERE: the place failed, to be tried again elsewhere.
    """
    use_threads(job)
    receipts = {}
    with settled():
        results, meter = _measure(job, data, at, names, () if last else ELSEWHERE)
    for name in names:
        print_ = job.piece_print(at, name)
        receipts[name] = {"seconds": meter.seconds.get(name, 0.0), "fingerprint": print_}
        if name in meter.errors:
            receipts[name] |= meter.errors[name]
        else:
            job.store.write_piece(at, name, to_piece(results[name], print_))
    job.store.add_receipts(at, group, receipts, lost)
    return {
        "at": at,
        "group": group,
        "errors": {n: e["error"] for n, e in meter.errors.items()},
        "seconds": sum(meter.seconds.values()),
    }


@contextmanager
def settled() -> Iterator[None]:
    """This process as analyses want it: room for what cells share, and float32 in full.

    Left to itself cuDNN rounds what convolutions multiply to TF32's 10 bits. A training that
    comes after in the same process finds it as it was.
    """
    SHARED.max_bytes = max(SHARED.max_bytes, memory_here() // SHARE)
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


class Meter:
    """Makes the calls of a task's analyses: notes the seconds of each, and its error if it raises.

    What several share is charged to the first that asks for it.
    """

    def __init__(
        self, clock: Callable[[], float], elsewhere: tuple[type[Exception], ...] = ELSEWHERE
    ) -> None:
        self.clock, self.elsewhere = clock, elsewhere
        self.seconds: dict[str, float] = {}
        self.errors: dict[str, dict[str, str]] = {}

    def __call__(
        self, name: str, function: Callable[..., xr.Dataset], *args: object, **options: object
    ) -> xr.Dataset | None:
        """What the function returns; None if it raised."""
        start = self.clock()
        try:
            with naming_memory():
                return function(*args, **options)
        except self.elsewhere:
            raise
        except Exception as error:
            # Whatever an analysis raises fails its own piece: the receipt says it, the cell shows
            # it, and the others go on.
            self.fail(name, error)
            return None
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start

    def fail(self, name: str, error: Exception) -> None:
        """Note that analysis `name` raised `error`."""
        trace = "".join(traceback.format_exception(error))
        self.errors[name] = {"error": f"{type(error).__name__}: {error}", "traceback": trace}


def _measure(
    job: Job,
    data: Data,
    at: Cell | Subset,
    names: Sequence[str],
    elsewhere: tuple[type[Exception], ...],
) -> tuple[dict[str, xr.Dataset], Meter]:
    """Results of those that did not raise; seconds and errors."""
    meter = Meter(clock_of(device_of(job)), elsewhere)
    options = {name: job.facts.analyses[name].options for name in names}
    try:
        with naming_memory():
            return _run(job, data, at, options, meter), meter
    except elsewhere:
        raise
    except Exception as error:
        # Before any analysis, e.g. a torn snapshot: none of them can be measured.
        for name in names:
            meter.fail(name, error)
        return {}, meter


def _run(
    job: Job, data: Data, at: Cell | Subset, options: dict[str, dict[str, Any]], meter: Meter
) -> dict[str, xr.Dataset]:
    """The named analyses of a cell's denoiser, or the references of a subset."""
    if isinstance(at, Subset):
        return reference_all(Points(**_arguments(job, data, at)), options, meter)
    if all(job.facts.analyses[name].needs for name in options):
        found = {name: meter(name, _compare, job, data, at, name) for name in options}
        return {name: result for name, result in found.items() if result is not None}
    return measure_all(_specimen(job, data, at), options, meter)


def _compare(job: Job, data: Data, cell: Cell, name: str) -> xr.Dataset:
    """A cell against its partner, both as stored: no weights are read."""
    other = Cell(partner(cell.trial, name, job.sweep), cell.kimg)
    needs = job.facts.analyses[name].needs
    own, theirs = (
        xr.merge(
            [from_piece(job.store.read_piece(at, need), job.sweep.sigmas) for need in needs],
            compat="no_conflicts",
        )
        for at in (cell, other)
    )
    points = Points(**_arguments(job, data, cell.trial.subset))
    return measure_pair(name, own, theirs, points)


def _specimen(job: Job, data: Data, cell: Cell) -> Specimen:
    """The snapshot's denoiser beside its training set."""
    return Specimen(
        **_arguments(job, data, cell.trial.subset),
        denoiser=load_denoiser(job, cell),
        labels=job.drawn_labels(data, cell.trial, job.sampler.samples),
        eval_batch=job.sweep.numerics.eval_batch,
    )


def _arguments(job: Job, data: Data, subset: Subset) -> dict[str, Any]:
    return {
        "train": flattened(training_points(data, subset)),
        "heldout": flattened(data.heldout),
        "pool": pool_moments(data),
        "sigmas": job.sweep.sigmas,
        "shape": data.shape,
        "stream": stream,
        "sampler": job.sampler,
        "subspaces": tuple(map(torch.from_numpy, data.bases)),
    }


def flattened(images: np.ndarray) -> torch.Tensor:
    """Images (n c h w) as the float64 points (n d) that analyses see."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float64))


def device_of(job: Job) -> torch.device:
    """Where analyses evaluate the network: a GPU only where the sweep reserves a share of one."""
    return torch.device("cuda" if job.sweep.resources.gpus_per_analysis else "cpu")


def load_denoiser(
    job: Job, cell: Cell, weights: str = "ema", device: torch.device | None = None
) -> Callable[..., torch.Tensor]:
    """A stored snapshot as a denoiser of flat float64 points.

    Args:
        device: where it is evaluated; None: where the sweep's analyses are.

    Raises:
        ValueError: the snapshot is missing, torn, or of another training than the one asked for.
    """
    found = job.store.read_tensors(snapshot_path(cell))
    if found is None:
        raise ValueError(f"{job.store.folder}/{snapshot_path(cell)} is missing")
    tensors, header = found
    if header.get("fingerprint") != job.prints["snapshot"]:
        raise ValueError(
            f"{job.store.folder}/{snapshot_path(cell)} is of another training: fingerprint"
            f" {header.get('fingerprint')!r}, wanted {job.prints['snapshot']!r};"
            " delete it to train again"
        )
    device = device_of(job) if device is None else device
    module = job.denoiser(cell.trial, device).eval()
    prefix = f"{weights}."
    module.load_state_dict(
        {
            k.removeprefix(prefix): torch.from_numpy(v.copy())
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
    )

    # Whoever evaluates it says whether derivatives are wanted; inference mode would forbid them.
    def denoise(y: torch.Tensor, sigma: float, labels: torch.Tensor | None = None) -> torch.Tensor:
        images = y.to(device, job.dtype).view(len(y), *job.facts.data.shape)
        told = () if labels is None else (labels.to(device),)
        return module(images, sigma, *told).flatten(1).to("cpu", torch.float64)

    return denoise


def to_piece(dataset: xr.Dataset, fingerprint: str) -> Piece:
    """What an analysis measured, ready to be stored; sigma is the sweep's and not repeated."""
    variables = {
        str(name): Variable(tuple(map(str, v.dims)), np.asarray(v.values), dict(v.attrs))
        for name, v in dataset.data_vars.items()
    }
    labels = {
        str(dim): [str(v) for v in c.values] if c.dtype.kind in "OUST" else c.values.tolist()
        for dim, c in dataset.coords.items()
        if dim in dataset.dims and dim != "sigma"
    }
    return Piece(variables, labels, fingerprint)


def from_piece(piece: Piece, sigmas: Sequence[float]) -> xr.Dataset:
    """A stored piece as its analysis returned it; `to_piece` undoes it."""
    variables = {
        name: (variable.dims, variable.values, dict(variable.attrs))
        for name, variable in piece.variables.items()
    }
    dims = {dim for variable in piece.variables.values() for dim in variable.dims}
    coords = {dim: coordinate(v) for dim, v in piece.labels.items()}
    if "sigma" in dims:
        coords["sigma"] = np.array(sigmas)
    return xr.Dataset(variables, coords)
