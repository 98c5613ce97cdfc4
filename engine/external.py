"""`diffphase analyse`: the analyses of a sweep for denoisers that were trained elsewhere.

Models take the place of trials: one training set, its oracles, and any number of denoisers beside
each other in one cube with a `model` dim. Every result is a piece of its own, so that the same
command again measures only what is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import torch
import xarray as xr
from pydantic import BeforeValidator, Field

from analyses.registry import ANALYSES, measure_all, reference_all
from analyses.sampler import Sampler as Drawn
from analyses.specimen import Specimen, Subset
from engine import export
from engine.analyse import (
    Meter,
    flattened,
    from_piece,
    load_denoiser,
    settled,
    to_piece,
)
from engine.files import split
from engine.grid import Cell, moment, trials
from engine.job import Job, clock_of
from engine.models import cube_of
from engine.moments import pool_moments
from engine.opened import stored
from engine.pieces import decode, encode, fingerprint_of
from engine.resolve import Facts, analysis_facts, load, size_key
from engine.spec import (
    Choice,
    Numerics,
    Sampler,
    SpecError,
    Strict,
    analyses_of,
    digest,
    override,
    sigmas_of,
    validated,
)
from engine.store import Store
from trainables import pretrained
from trainables.datasets.data import Data
from trainables.streams import stream

DEFAULT_ANALYSES = ("linearity", "linear_fit", "gaussian", "memorization", "generalization")


class Examination(Strict):
    """What is measured of the denoisers, and beside which training set."""

    data: Choice
    n_train: int | None = Field(None, ge=2)
    """Training points that the oracles see; None: all of the pool."""
    draw: int = Field(0, ge=0)
    split: Literal["a", "b"] = "a"
    sigmas: Annotated[tuple[float, ...], BeforeValidator(sigmas_of)] | None = None
    """Noise levels; None: those of the EDM grid of 10 that every model knows."""
    analyses: Annotated[dict[str, dict], BeforeValidator(analyses_of)]
    sampler: Sampler = Sampler()
    numerics: Numerics = Numerics()


@dataclass(frozen=True)
class Model:
    """A denoiser with the name that it has in the cube."""

    name: str
    source: str
    found: pretrained.Pretrained

    def flat(
        self, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
    ) -> Callable[..., torch.Tensor]:
        """The denoiser of flat float64 points that a specimen wants.

        Beyond its own noise levels it is asked at the nearer end: samplers start and end there.
        """

        def denoise(y: torch.Tensor, sigma: float) -> torch.Tensor:
            known = min(max(sigma, self.found.sigma_min), self.found.sigma_max)
            images = y.to(device, dtype).view(len(y), *shape)
            out = self.found.denoise(images, known)
            if not isinstance(out, torch.Tensor) or out.shape != images.shape:
                got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
                raise ValueError(
                    f"{self.source}: wanted images {tuple(images.shape)} back, got {got}"
                )
            return out.flatten(1).to("cpu", torch.float64)

        return denoise


def examination(data: str, overrides: Sequence[str]) -> Examination:
    """What `--data` and `--set` ask for.

    Raises:
        SpecError: unknown key, value out of range.
    """
    raw: dict[str, Any] = {"data": {}, "analyses": dict.fromkeys(DEFAULT_ANALYSES)}
    for each in (f"data={data}", *overrides):
        raw = override(raw, each)
    if isinstance(raw["data"], str):
        raw["data"] = {"name": raw["data"]}
    return validated(Examination, raw, "analyse")


def place(device: str) -> torch.device:
    """The device of that name.

    Raises:
        SpecError: it is not there.
    """
    here = {"cpu": 1, "cuda": torch.cuda.device_count()}
    try:
        found = torch.device(device)
    except RuntimeError:  # no device at all
        found = None
    if found is None or (found.index or 0) >= here.get(found.type, 0):
        raise SpecError(f"--device {device}: not on this machine; wanted cpu, or cuda with a GPU")
    return found


def models(sources: Sequence[str], device: torch.device) -> list[Model]:
    """The denoisers behind `[name=]source`, each under its own name.

    Raises:
        SpecError: not there, not readable, not a denoiser, or two of one name.
    """
    found = []
    for given in sources:
        name, equals, source = given.partition("=")
        if not equals or "/" in name:
            name, source = "", given
        name = name or Path(source).stem.replace(":", ".")
        try:
            loaded = (
                _snapshot(source, device)
                if source.endswith(".safetensors")
                else pretrained.load(source, device)
            )
        except (ValueError, ImportError) as error:
            raise SpecError(f"--denoiser {error}") from error
        if name in {model.name for model in found}:
            raise SpecError(f"--denoiser {given}: two models are called {name!r}; use NAME=SOURCE")
        found.append(Model(name, source, loaded))
    return found


def _snapshot(source: str, device: torch.device) -> pretrained.Pretrained:
    """A snapshot in the folder of a sweep: its sweep.json says what the weights are of."""
    path = Path(source).absolute()
    if not path.is_file():
        raise ValueError(f"{source}: no such file")
    folder = path.parents[3] if len(path.parents) > 3 else path.parent
    sweep, record, store = stored(str(folder))
    job = Job(sweep, Facts.model_validate(record["facts"]), record["prints"], store)
    at = {
        f"trials/{trial.address}/snapshots/{moment(kimg)}.safetensors": Cell(trial, kimg)
        for trial in trials(sweep)
        for kimg in sweep.kimg
    }
    cell = at.get(path.relative_to(folder).as_posix())
    if cell is None:
        raise ValueError(f"{source}: not a snapshot of the sweep in {folder}")
    if job.config(cell.trial).labels != "none":
        raise ValueError(f"{source}: the denoiser is told labels, which images here have not")
    flat, shape = load_denoiser(job, cell, device=device), job.facts.data.shape

    def denoise(y: torch.Tensor, sigma: float) -> torch.Tensor:
        return flat(y.flatten(1), sigma).view(len(y), *shape)

    about = {
        "format": "snapshot",
        "network": sweep.backbone.name,
        "n_params": job.facts.sizes[size_key(cell.trial)][0],
        "cell": str(cell),
    }
    content = digest([job.prints["snapshot"], str(cell)])
    return pretrained.Pretrained(denoise, content, shape, about=about)


def analyse_models(
    asked: Examination,
    found: Sequence[Model],
    out: str,
    *,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> int:
    """Measure what is missing and write the cube; 1 if an analysis failed, else 0.

    Raises:
        SpecError: the models do not fit the data or each other's noise levels.
    """
    data = load(asked, "analyse")
    options = {
        name: analysis_facts(name, given, asked.analyses, "analyse").options
        for name, given in asked.analyses.items()
    }
    shape, sigmas = _shape(found, data), _levels(asked, found)
    torch.set_num_threads(asked.numerics.threads)
    subset = _subset(asked, data, sigmas)
    work = Work(
        Store(*split(out)),
        options,
        _prints(asked, options, sigmas, data),
        sigmas,
        clock_of(device),
    )
    dtype = getattr(torch, asked.numerics.precision)
    with settled(), work.store.files.lock():
        parts = {"": work.do("oracles", "", lambda some, call: reference_all(subset, some, call))}
        for model in found:
            denoise = model.flat(shape, dtype, device)
            specimen = Specimen.of(subset, denoise, asked.numerics.eval_batch)
            parts[model.name] = work.do(
                f"models/{quote(model.name, safe='')}",
                model.found.content,
                lambda some, call, s=specimen: measure_all(s, some, call),
            )
            say(f"{model.name}: {len(parts[model.name])} of {len(options)} analyses")
        for (place, analysis), reason in work.errors.items():
            say(f"failed {analysis} of {place}: {reason}")
        cube = cube_of(asked, data, sigmas, found, parts, options)
        export.write(work.store, cube, xr.Dataset())
    say(f"cube {work.store.folder}/{export.ZARR} (and {export.NETCDF})")
    return 1 if work.errors else 0


@dataclass
class Work:
    """The pieces of one command: what is stored is read, what is missing is measured."""

    store: Store
    options: Mapping[str, dict[str, Any]]
    prints: Mapping[str, str]
    """Fingerprint of each analysis' pieces, but for the model."""
    sigmas: tuple[float, ...]
    clock: Callable[[], float]
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why an analysis failed, by the place of its piece and its name."""

    def do(self, place: str, content: str, run: Callable[..., Any]) -> dict[str, xr.Dataset]:
        """Every analysis at one place: a model's, or the oracles'.

        Those that look at samples come first and are stored before the others begin.
        """
        prints = {name: digest([print_, content]) for name, print_ in self.prints.items()}
        found = {name: self._read(place, name, prints[name]) for name in self.options}
        found = {name: dataset for name, dataset in found.items() if dataset is not None}
        for per_sigma in (False, True):
            missing = {
                name: options
                for name, options in self.options.items()
                if name not in found and ANALYSES[name].per_sigma == per_sigma
            }
            meter = Meter(self.clock)
            for name, dataset in run(missing, meter).items() if missing else ():
                self.store.files.write(_path(place, name), encode(to_piece(dataset, prints[name])))
                found[name] = dataset
            for name, failure in meter.errors.items():
                self.errors[place, name] = failure["error"]
        return found

    def _read(self, place: str, name: str, print_: str) -> xr.Dataset | None:
        data = self.store.files.read(_path(place, name))
        if data is None or fingerprint_of(data) != print_:
            return None
        return from_piece(decode(data), self.sigmas)


def _path(place: str, name: str) -> str:
    return f"{place}/pieces/{name}.arrow"


def _shape(found: Sequence[Model], data: Data) -> tuple[int, int, int]:
    """That of the data, which every model has to know."""
    for model in found:
        if model.found.shape not in (None, data.shape):
            raise SpecError(
                f"--denoiser {model.source}: its images are {model.found.shape}, those of the data"
                f" {data.name} {data.shape}; set data.resolution, or take other data"
            )
    return data.shape


def _levels(asked: Examination, found: Sequence[Model]) -> tuple[float, ...]:
    """The noise levels analysed, all within what every model knows."""
    low = max(model.found.sigma_min for model in found)
    high = min(model.found.sigma_max for model in found)
    sigmas = asked.sigmas or tuple(s for s in sigmas_of({"edm": 10}) if low <= s <= high)
    outside = [s for s in sigmas if not low <= s <= high]
    if outside or not sigmas:
        raise SpecError(
            f"sigmas: the models know noise levels from {low:.4g} to {high:.4g},"
            f" got {', '.join(f'{s:.4g}' for s in outside) or 'none'}"
        )
    return sigmas


def _subset(asked: Examination, data: Data, sigmas: tuple[float, ...]) -> Subset:
    """The training set whose oracles the models are compared with."""
    n = asked.n_train or data.n_pool
    try:
        train = data.subset(n, draw=asked.draw, split=asked.split)
    except ValueError as error:
        raise SpecError(f"analyse: {error}") from None
    return Subset(
        train=flattened(train),
        heldout=flattened(data.heldout),
        pool=pool_moments(data),
        sigmas=sigmas,
        shape=data.shape,
        stream=stream,
        sampler=Drawn(**asked.sampler.model_dump()),
    )


def _prints(
    asked: Examination,
    options: Mapping[str, dict[str, Any]],
    sigmas: tuple[float, ...],
    data: Data,
) -> dict[str, str]:
    """Fingerprint of each analysis' pieces, but for the model."""
    points = [data.content_hash, len(data.heldout), asked.n_train, asked.draw, asked.split]
    return {
        name: digest(
            [
                [name, ANALYSES[name].version, given, points],
                sigmas if ANALYSES[name].sees_sigmas else [],
                asked.sampler.model_dump(),
                [asked.numerics.eval_batch, asked.numerics.precision],
            ]
        )
        for name, given in options.items()
    }
