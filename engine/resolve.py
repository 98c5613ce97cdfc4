"""A sweep checked against the registries and the data: all that can be wrong, before Ray starts.

`resolve` returns the sweep's `Facts`: complete options, sizes of the networks, what the data are.
They are stored in sweep.json, so that status and gather need neither torch nor the data again.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

import trainables
from analyses.registry import ANALYSES, PAIRS, Analysis
from analyses.relations import RELATIONS
from engine.boundary import METRICS, coarse
from engine.grid import Trial, trials
from engine.spec import SpecError, Sweep, canonical, digest, nearest
from trainables.architectures import (
    ARCHITECTURES,
    CHECKPOINTED,
    DENOISERS,
    forward_flops,
    n_params,
)
from trainables.architectures.labelled import tell
from trainables.augmentation import LABEL
from trainables.datasets import DATASETS
from trainables.datasets.data import Data
from trainables.datasets.data import load as load_data
from trainables.train import TrainConfig, steps_at

IDLE = frozenset({"checkpointing"})
"""Options of a training that change none of its numbers: no part of a snapshot's identity."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataFacts(_Record):
    """What the data are; `content_hash` covers every pixel after preprocessing."""

    name: str
    options: dict[str, Any]
    content_hash: str
    shape: tuple[int, int, int]
    sigma_data: float
    n_pool: int
    n_heldout: int
    n_leaked: int
    n_duplicates: int
    n_constant_pixels: int
    n_near_duplicates: int | None = None
    """Points of the pool near an earlier one; None where it was not searched for."""
    n_near_leaked: int | None = None
    near_threshold: float | None = None
    n_classes: int = 0
    labels_hash: str = ""
    """Of the classes of the training points; they count where a training is told them."""
    sources: dict[str, tuple[int, int]]
    """Files read: path -> (bytes, time of last write in ns); unchanged files keep the facts."""


class AnalysisFacts(_Record):
    """One analysis with its complete options."""

    version: int
    group: str
    per_sigma: bool
    has_reference: bool
    samples: bool
    """Whether its numbers depend on how samples are drawn."""
    needs: list[str] = []
    """Of a pair: the analyses whose stored pieces it compares."""
    without: list[str] = []
    """Of a pair: the dims in which the cells differ."""
    options: dict[str, Any]


class Facts(_Record):
    """All that the engine knows of a sweep beyond its file."""

    version: int
    data: DataFacts
    backbone: dict[str, Any]
    training: dict[str, Any]
    analyses: dict[str, AnalysisFacts]
    sizes: dict[str, tuple[int, float]]
    """Network by `size_key` -> (parameters, FLOPs of one forward per image)."""

    @property
    def alone(self) -> list[str]:
        """The analyses that look at one cell alone; the others compare what is stored of two."""
        return [name for name, analysis in self.analyses.items() if analysis.group != "pairs"]


def size_key(trial: Trial) -> str:
    """What the size of a trial's network depends on."""
    return canonical({"width": trial["width"], **trial.options("backbone")})


def resolve(
    sweep: Sweep, origin: str, known: Facts | None = None, *, count_flops: bool = True
) -> tuple[Facts, Data | None]:
    """Facts of a sweep, and its data if they had to be read (unchanged files are not).

    Args:
        sweep: what its file describes.
        origin: what errors call its file.
        known: facts stored by an earlier run; what they still say right is not found out again.
        count_flops: counting imports a second's worth of torch; a plan does without (nan).

    Raises:
        SpecError: unknown name or option, value out of range, too little data, missing file.
    """
    configs = _configs(sweep, origin)
    backbone = _backbone_options(sweep, origin)
    mirrors = any(config.mirrors for config in configs)
    analyses = {
        name: analysis_facts(name, options, sweep.analyses, origin, mirrors=mirrors)
        for name, options in sweep.analyses.items()
    }
    _check_boundary(sweep, origin)
    data, loaded = _data(sweep, origin, known)
    _check_sizes(sweep, data, origin)
    _check_labels(sweep, data, origin)
    facts = Facts(
        version=trainables.VERSION,
        data=data,
        backbone=backbone,
        training=_training(configs),
        analyses=analyses,
        sizes=_sizes(
            sweep, data.shape, origin, _known_sizes(known, backbone, data), count_flops=count_flops
        ),
    )
    return facts, loaded


def load(sweep: Sweep, origin: str) -> Data:
    """The data of a sweep.

    Raises:
        SpecError: unknown name or option, missing or unreadable file, too few points.
    """
    if sweep.data.name not in DATASETS:
        raise SpecError(f"{origin}: data.name: {unknown('data set', sweep.data.name, DATASETS)}")
    try:
        return load_data(sweep.data.name, **sweep.data.options)
    except (ValueError, TypeError, OSError) as error:
        raise SpecError(f"{origin}: data: {error}") from error


def _data(sweep: Sweep, origin: str, known: Facts | None) -> tuple[DataFacts, Data | None]:
    options = sweep.data.options
    if (
        known
        and known.version == trainables.VERSION
        and (known.data.name, known.data.options) == (sweep.data.name, options)
        and known.data.sources == _stamps(known.data.sources)
    ):
        return known.data, None
    data = load(sweep, origin)
    facts = DataFacts(
        name=sweep.data.name,
        options=options,
        content_hash=data.content_hash,
        shape=data.shape,
        sigma_data=data.sigma_data,
        n_pool=data.n_pool,
        n_heldout=len(data.heldout),
        n_leaked=data.n_leaked,
        n_duplicates=data.n_duplicates,
        n_constant_pixels=data.n_constant_pixels,
        n_classes=data.n_classes,
        labels_hash=data.labels_hash,
        sources=_stamps(data.sources),
        **({} if data.near is None else dataclasses.asdict(data.near)),
    )
    return facts, data


def _stamps(paths: Any) -> dict[str, tuple[int, int]]:
    stamps = {}
    for path in map(Path, paths):
        if path.exists():
            stat = path.stat()
            stamps[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return stamps


def unknown(kind: str, name: str, registry: Mapping[str, Any]) -> str:
    """The message for a name that a registry does not hold."""
    return (
        f"unknown {kind} {name!r}{nearest(name, list(registry))}; allowed: {', '.join(registry)}"
    )


def options_of(function: Callable, given: Mapping[str, Any], skip: int) -> dict[str, Any]:
    """The complete options of a registry entry: its defaults, overridden by the given ones.

    Raises:
        ValueError: an option that the entry does not have, naming those it has.
    """
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    defaults = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    for name in given:
        if name not in defaults:
            allowed = ", ".join(defaults) or "none"
            raise ValueError(
                f"unknown option {name!r}{nearest(name, list(defaults))}; allowed: {allowed}"
            )
    complete = {**defaults, **given}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in complete.items()}


def _backbone_options(sweep: Sweep, origin: str) -> dict[str, Any]:
    name = sweep.backbone.name
    if name not in ARCHITECTURES:
        raise SpecError(f"{origin}: backbone.name: {unknown('architecture', name, ARCHITECTURES)}")
    swept = {
        a.removeprefix("backbone."): v[0]
        for a, v in sweep.axes.items()
        if a.startswith("backbone.")
    }
    try:
        return options_of(ARCHITECTURES[name], {**sweep.backbone.options, **swept}, skip=2)
    except ValueError as error:
        raise SpecError(f"{origin}: backbone {name}: {error}") from None


def analysis_facts(
    name: str,
    given: Mapping[str, Any],
    asked: Mapping[str, Any],
    origin: str,
    *,
    mirrors: bool = False,
) -> AnalysisFacts:
    """An analysis with its complete options, checked; `asked` are all of the sweep's.

    `mirrors`: mirror images of the training points are trained on, so that those that look for
    the nearest training point count them unless told otherwise.

    Raises:
        SpecError: unknown name or option, value out of range.
    """
    if name in PAIRS:
        return _pair(name, given, asked, origin)
    if name not in ANALYSES:
        raise SpecError(f"{origin}: analyses: {unknown('analysis', name, {**ANALYSES, **PAIRS})}")
    analysis: Analysis = ANALYSES[name]
    try:
        options = options_of(analysis.measure, given, skip=1)
    except ValueError as error:
        raise SpecError(f"{origin}: analyses.{name}: {error}") from None
    defaults = options_of(analysis.measure, {}, skip=1)
    if mirrors and "flips" in defaults:
        options = {**options, "flips": given.get("flips", True)}
    for option, value in given.items():
        number = isinstance(defaults[option], int | float) and defaults[option] is not False
        same = (
            isinstance(value, int | float) if number else isinstance(value, type(defaults[option]))
        )
        if not same or (number and (value < 0 or (value == 0 and defaults[option] > 0))):
            wanted = "a positive number" if number else type(defaults[option]).__name__
            raise SpecError(f"{origin}: analyses.{name}.{option}: wanted {wanted}, got {value!r}")
    return AnalysisFacts(
        version=analysis.version,
        group=analysis.group,
        per_sigma=analysis.per_sigma,
        has_reference=analysis.reference is not None,
        samples=analysis.samples or "path" in options.get("laws", ()),
        options=options,
    )


def _pair(
    name: str, given: Mapping[str, Any], asked: Mapping[str, Any], origin: str
) -> AnalysisFacts:
    pair = PAIRS[name]
    if given:
        raise SpecError(f"{origin}: analyses.{name}: has no options, got {', '.join(given)}")
    missing = [need for need in pair.needs if need not in asked]
    if missing:
        raise SpecError(
            f"{origin}: analyses.{name}: compares stored results of {', '.join(missing)};"
            f" wanted {missing[0]!r} among the analyses too"
        )
    return AnalysisFacts(
        version=pair.version,
        group="pairs",
        per_sigma=False,
        has_reference=False,
        samples=False,
        needs=[need for need in (*pair.needs, *pair.uses) if need in asked],
        without=list(RELATIONS[name].without),
        options={},
    )


def config_of(sweep: Sweep, trial: Trial | None = None) -> TrainConfig:
    """The training options of a trial (of the sweep, with the first value of each swept one).

    A batch of every training point (`sampling: full`) is as large as the trial's training set.
    """
    swept = (
        trial.options("training")
        if trial
        else {
            a.removeprefix("training."): v[0]
            for a, v in sweep.axes.items()
            if a.startswith("training.")
        }
    )
    options = {**sweep.training, **swept}
    if options.get("sampling") == "full":
        n_train = trial["n_train"] if trial else sweep.axes["n_train"][0]
        options = {"batch": n_train, **options}
    return TrainConfig(**options)


def _configs(sweep: Sweep, origin: str) -> list[TrainConfig]:
    """The distinct training options of the trials, checked."""
    fields = [f.name for f in dataclasses.fields(TrainConfig)]
    swept = [a.removeprefix("training.") for a in sweep.axes if a.startswith("training.")]
    for name in [*sweep.training, *swept]:
        if name not in fields:
            raise SpecError(
                f"{origin}: training: unknown key {name!r}{nearest(name, fields)};"
                f" allowed: {', '.join(fields)}"
            )
    configs = []
    distinct = {(t["n_train"], *t.options("training").items()): t for t in trials(sweep)}
    for trial in distinct.values():
        try:
            configs.append(config_of(sweep, trial))
        except (ValueError, TypeError) as error:
            raise SpecError(f"{origin}: training: {error}") from None
        if configs[-1].sampling == "full" and configs[-1].batch != trial["n_train"]:
            raise SpecError(
                f"{origin}: training.batch: {configs[-1].batch} is not the full batch of"
                f" axes.n_train {trial['n_train']}; leave it out: with training.sampling full it"
                " is the training set's size"
            )
    for config in configs:
        _check_training(sweep, config, origin)
    return configs


def _training(configs: Sequence[TrainConfig]) -> dict[str, Any]:
    """The options of the first trial, as they are recorded."""
    options = dataclasses.asdict(configs[0])
    # A full batch is no option of the sweep: it follows n_train.
    return options | ({"batch": None} if configs[0].sampling == "full" else {})


def _check_training(sweep: Sweep, config: TrainConfig, origin: str) -> None:
    if sweep.backbone.name in DENOISERS and config.preconditioning != "none":
        raise SpecError(
            f"{origin}: training.preconditioning: {config.preconditioning!r} does not fit backbone"
            f" {sweep.backbone.name!r}, which is a denoiser itself; wanted 'none'"
        )
    if config.checkpointing and sweep.backbone.name not in CHECKPOINTED:
        raise SpecError(
            f"{origin}: training.checkpointing: backbone {sweep.backbone.name!r} has no blocks"
            " that could be computed again; wanted false, or one of"
            f" {', '.join(sorted(CHECKPOINTED))}"
        )
    if config.augment and _backbone_options(sweep, origin).get("augment_dim") != LABEL:
        raise SpecError(
            f"{origin}: training.augment: backbone {sweep.backbone.name!r} is not told of the"
            f" augmentation {config.augment:g} and would learn to draw it; wanted ncsnpp, ddpmpp"
            f" or adm with augment_dim {LABEL}, or training.xflip alone"
        )
    steps = [steps_at(kimg, config.batch) for kimg in sweep.kimg]
    pairs = zip(pairwise(steps), pairwise(sweep.kimg), strict=True)
    for (a, b), (low, high) in pairs:
        if a == b:
            raise SpecError(
                f"{origin}: kimg: {low:g} and {high:g} fall on the same step {a} at training.batch"
                f" {config.batch}; wanted at least one step ({config.batch / 1000} kimg) between"
            )
    if config.batch % sweep.resources.workers:
        raise SpecError(
            f"{origin}: training.batch: {config.batch} does not split over"
            f" resources.workers {sweep.resources.workers}; wanted a multiple"
        )


def _check_boundary(sweep: Sweep, origin: str) -> None:
    """A boundary search reads a share that is measured, and can afford its coarse grid."""
    settings = sweep.search.boundary if sweep.search else None
    if settings is None:
        return
    where = f"{origin}: search.boundary"
    if settings.metric not in METRICS:
        raise SpecError(f"{where}.metric: {unknown('share', settings.metric, METRICS)}")
    analysis = METRICS[settings.metric]
    if analysis not in sweep.analyses:
        raise SpecError(
            f"{where}.metric: {settings.metric} is measured by {analysis}; wanted {analysis!r}"
            " among the analyses"
        )
    least = len(coarse(sweep))
    if settings.budget < least:
        raise SpecError(
            f"{where}.budget: {settings.budget} does not pay for the coarse grid; wanted at least"
            f" {least} trials"
        )


def _check_sizes(sweep: Sweep, data: DataFacts, origin: str) -> None:
    copies = sweep.data.options.get("copies", 1)
    odd = [n for n in sweep.axes["n_train"] if n % copies]
    if odd:
        raise SpecError(
            f"{origin}: axes.n_train: {odd[0]} is no multiple of data.copies {copies}; n_train"
            " counts copies"
        )
    largest = max(sweep.axes["n_train"])
    splits = sweep.axes["split"]
    if largest * len(splits) > data.n_pool:
        share = " for each of two disjoint splits" if len(splits) == 2 else ""
        raise SpecError(
            f"{origin}: axes.n_train: {largest} is larger than the data: {data.name} has"
            f" {data.n_pool} training points beside {data.n_heldout} held-out ones; allowed: up to"
            f" {data.n_pool // len(splits)}{share}"
        )


def _check_labels(sweep: Sweep, data: DataFacts, origin: str) -> None:
    """A denoiser that is told labels has samples, and nothing to say of images without."""
    kinds = label_kinds(sweep)
    if kinds - {"none"}:
        width, options = sweep.axes["width"][0], _backbone_options(sweep, origin)
        try:
            with torch.device("meta"):
                tell(ARCHITECTURES[sweep.backbone.name](width, data.shape, **options), 1)
        except ValueError as error:
            raise SpecError(f"{origin}: training.labels: {error}") from None
    for kind in kinds & {"class", "random"}:
        if not data.n_classes:
            raise SpecError(
                f"{origin}: training.labels: {kind!r} needs classes, which the data set"
                f" {data.name} has not; allowed: none, unique"
            )
    for name in sweep.analyses if kinds - {"none"} else ():
        if name in ANALYSES and not ANALYSES[name].of_samples:
            allowed = ", ".join(n for n, analysis in ANALYSES.items() if analysis.of_samples)
            raise SpecError(
                f"{origin}: analyses.{name}: looks at images without labels, and training.labels"
                f" gives a denoiser that is told them; allowed: {allowed}"
            )


def label_kinds(sweep: Sweep) -> set[str]:
    """What the trainings of a sweep are told of their images."""
    swept = sweep.axes.get("training.labels")
    return set(swept) if swept else {sweep.training.get("labels", "none")}


def _known_sizes(
    known: Facts | None, backbone: dict[str, Any], data: DataFacts
) -> dict[str, tuple[int, float]]:
    """Sizes counted before: counting imports a second's worth of torch."""
    same = known and (known.version, known.backbone) == (trainables.VERSION, backbone)
    return dict(known.sizes) if same and known.data.shape == data.shape else {}


def _sizes(
    sweep: Sweep,
    shape: tuple,
    origin: str,
    known: Mapping[str, tuple[int, float]],
    *,
    count_flops: bool,
) -> dict[str, tuple[int, float]]:
    sizes: dict[str, tuple[int, float]] = {}
    for trial in trials(sweep):
        key = size_key(trial)
        if key in known:
            sizes[key] = known[key]
        if key in sizes:
            continue
        options = {**sweep.backbone.options, **trial.options("backbone")}
        try:
            with torch.device("meta"):
                backbone = ARCHITECTURES[sweep.backbone.name](trial["width"], shape, **options)
            flops = forward_flops(backbone, shape) if count_flops else math.nan
            sizes[key] = (n_params(backbone), flops)
        except (ValueError, TypeError) as error:
            message = (
                f"{origin}: backbone {sweep.backbone.name} at axes.width {trial['width']}: {error}"
            )
            raise SpecError(message) from error
    return sizes


def identity(sweep: Sweep, facts: Facts) -> dict[str, Any]:
    """All that a snapshot's numbers depend on beside its coordinates."""

    def constants(section: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in options.items() if f"{section}.{k}" not in sweep.axes}

    data = facts.data
    labels = {"labels": data.labels_hash} if label_kinds(sweep) & {"class", "random"} else {}
    return {
        "data": {
            "name": data.name,
            "content_hash": data.content_hash,
            "n_heldout": data.n_heldout,
        }
        | labels,
        "backbone": {"name": sweep.backbone.name, **constants("backbone", facts.backbone)},
        "training": {
            k: v for k, v in constants("training", facts.training).items() if k not in IDLE
        },
        "numerics": {"precision": sweep.numerics.precision, "threads": sweep.numerics.threads},
        "version": facts.version,
    }


def fingerprints(sweep: Sweep, facts: Facts) -> dict[str, Any]:
    """Fingerprint of the snapshots, and of each analysis' pieces for cells and for subsets."""
    whole = identity(sweep, facts)
    snapshot = digest(_essence(whole))
    pieces, subset_pieces = {}, {}
    for name in facts.alone:
        analysis = facts.analyses[name]
        defaults = options_of(ANALYSES[name].measure, {}, skip=1)
        measured = {
            "analysis": name,
            "options": _beside(analysis.options, defaults),
            "version": analysis.version,
            "sigmas": sweep.sigmas if ANALYSES[name].sees_sigmas else [],
        }
        if analysis.samples:
            measured["sampler"] = sweep.sampler.model_dump()
        pieces[name] = digest(
            {**measured, "snapshot": snapshot, "eval_batch": sweep.numerics.eval_batch}
        )
        if analysis.has_reference:
            subset_pieces[name] = digest({**measured, "data": whole["data"]})
    needs = {name: analysis.needs for name, analysis in facts.analyses.items() if analysis.needs}
    for name, needed in needs.items():
        parts = {need: pieces[need] for need in needed}
        pieces[name] = digest([name, facts.analyses[name].version, parts])
    prints = {"snapshot": snapshot, "pieces": pieces, "subset_pieces": subset_pieces}
    return prints | {"needs": needs}


def _essence(identity_: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without options at their defaults: a new option does not change old numbers.

    A default that changes is a change of numerics and raises `trainables.VERSION`.
    """
    defaults = _defaults(identity_)
    return {k: _beside(v, defaults[k]) if k in defaults else v for k, v in identity_.items()}


def _defaults(identity_: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    backbone = options_of(ARCHITECTURES[identity_["backbone"]["name"]], {}, skip=2)
    training = {k: v for k, v in dataclasses.asdict(TrainConfig()).items() if k not in IDLE}
    return {"backbone": backbone, "training": training}


def _beside(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from their defaults."""
    same = {k for k, v in defaults.items() if canonical(options.get(k)) == canonical(v)}
    return {k: v for k, v in options.items() if k not in same}


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the stored trials were trained with otherwise; options at their defaults count as set.

    `old` may have been written before an option existed.
    """
    defaults = _defaults(new)
    complete = {k: {**defaults.get(k, {}), **v} if k in defaults else v for k, v in old.items()}
    # An option that is swept has no constant, old or new.
    for section in defaults:
        for option in {*complete[section]} - {*old[section]} - {*new[section]}:
            del complete[section][option]
    return differences(complete, new)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two identities differ, as `key: stored value, now value`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [
            d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))
        ]
    return [] if canonical(old) == canonical(new) else [f"{path}: stored {old!r}, now {new!r}"]
