"""A sweep as its file describes it: read, checked, frozen.

YAML (1.2, so `1e-3` is a number) or Python becomes a `Sweep`; whatever is wrong is a `SpecError`
naming the file, the key, the value and what is allowed. Only what the file alone can tell is
checked here; names and sizes that need the registries or the data are `engine.resolve`'s.
"""

import difflib
import json
import math
import re
import runpy
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML, YAMLError

from engine.limits import MAX_FILE_BYTES, check_cells, check_count, check_entries

STANDARD_AXES = ("width", "n_train", "seed", "draw", "split")
"""The across axes that every cube has; further ones are hyper-parameters by dotted key."""
SWEEPABLE = ("training", "backbone")
"""Sections whose options may become an axis, e.g. `training.lr`."""


T = TypeVar("T", bound=BaseModel)


class SpecError(ValueError):
    """Bad input: which file and key, what came, what is allowed. Nothing has been started."""


def canonical(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, 16.0 written as 16."""

    def plain(v: Any) -> Any:
        if isinstance(v, float) and v.is_integer() and abs(v) < 2**53:
            return int(v)
        if isinstance(v, Mapping):
            return {str(k): plain(x) for k, x in v.items()}
        if isinstance(v, list | tuple):
            return [plain(x) for x in v]
        return v

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """A fingerprint: 128 bits of blake2b over canonical JSON."""
    return blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def expand(value: Any, *, whole: bool = False) -> tuple:
    """The values of an axis: a list, or one of the rules log2, log and range.

    >>> expand({"log2": [16, 128]}, whole=True)
    (16, 32, 64, 128)
    >>> expand({"log": [1, 100, 3]})
    (1.0, 10.0, 100.0)
    >>> expand({"range": [2, 8, 3]})
    (2, 5, 8)
    """
    if isinstance(value, Mapping):
        if len(value) != 1 or next(iter(value)) not in ("log2", "log", "range"):
            raise ValueError(
                "wanted a list, {log2: [lo, hi]}, {log: [lo, hi, n]} or {range: [lo, hi, step]}"
            )
        kind, bounds = next(iter(value.items()))
        size = 2 if kind == "log2" else 3
        if (
            not isinstance(bounds, Sequence)
            or len(bounds) != size
            or not all(map(_is_number, bounds))
        ):
            raise ValueError(f"{kind} wants {size} numbers")
        values = _expand_rule(kind, *bounds)
        if whole:
            values = [round(v) for v in values]
        return tuple(dict.fromkeys(values))
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("wanted a list of values")
    return tuple(value)


def _expand_rule(kind: str, lo: float, hi: float, last: float | None = None) -> list[float]:
    if hi < lo or (kind != "range" and lo <= 0):
        raise ValueError(f"{kind} wants 0 < lo <= hi")
    if kind == "log2":
        if math.isinf(hi / lo):
            raise ValueError("log2 wants bounds less far apart")
        return [lo * 2**k for k in range(math.floor(math.log2(hi / lo) + 1e-9) + 1)]
    if kind == "log":
        n = int(last)
        if n < 2 or n != last:
            raise ValueError("log wants a whole number n >= 2 of values")
        check_count(n)
        return [lo * (hi / lo) ** (k / (n - 1)) for k in range(n)]
    if last <= 0:
        raise ValueError("range wants step > 0")
    check_count((hi - lo) / last)
    return [lo + k * last for k in range(math.floor((hi - lo) / last + 1e-9) + 1)]


def _is_number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)


def _distinct(values: tuple) -> tuple:
    if not values:
        raise ValueError("wanted at least one value")
    check_count(len(values))
    seen = set()
    for value in values:
        if not isinstance(value, str | int | float):
            raise ValueError(f"wanted numbers or text, got {value!r:.60}")
        if value in seen:
            raise ValueError(f"lists {value!r} twice")
        seen.add(value)
    return values


def _axes(raw: Any) -> dict[str, tuple]:
    """Every axis expanded, checked, sorted; the five standard ones first, defaults filled in."""
    if not isinstance(raw, Mapping):
        raise ValueError("wanted a mapping from axis to values, e.g. {width: [64, 128]}")
    axes = {}
    for name in sorted(raw, key=lambda n: STANDARD_AXES.index(n) if n in STANDARD_AXES else 9):
        try:
            axes[name] = _axis(name, raw[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}, got {shown(raw[name])}") from None
    for name in ("width", "n_train"):
        if name not in axes:
            raise ValueError(f"{name} is missing")
    defaults = {"seed": (0,), "draw": (0,), "split": ("a",)}
    standard = {name: axes.pop(name, defaults.get(name)) for name in STANDARD_AXES}
    return standard | dict(sorted(axes.items()))


def _axis(name: str, raw: Any) -> tuple:
    if name not in STANDARD_AXES and not re.fullmatch(
        rf"({'|'.join(SWEEPABLE)})\.[a-z_]+", str(name)
    ):
        if str(name).startswith("data."):
            raise ValueError(
                "options of the data cannot be an axis (cells would differ in their dims)"
            )
        near = nearest(str(name), STANDARD_AXES)
        raise ValueError(
            f"unknown axis{near}; allowed: {', '.join(STANDARD_AXES)}, or an option of"
            f" {' or '.join(SWEEPABLE)} by its dotted key"
        )
    whole = name in STANDARD_AXES and name != "split"
    values = _distinct(expand(raw, whole=whole))
    if name == "split":
        if not set(values) <= {"a", "b"}:
            raise ValueError("allowed: a, b")
    elif whole:
        least = {"width": 1, "n_train": 2}.get(name, 0)
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
            raise ValueError(f"wanted whole numbers >= {least}")
    elif not all(isinstance(v, str | bool) or _is_number(v) for v in values):
        raise ValueError("wanted numbers or text")
    return tuple(sorted(values)) if all(map(_is_number, values)) or name == "split" else values


def _kimg(raw: Any) -> tuple[float, ...]:
    values = expand(raw)
    if not values or not all(_is_number(v) and v > 0 for v in values):
        raise ValueError("wanted positive numbers, in thousands of images")
    if any(b <= a for a, b in pairwise(values)):
        raise ValueError("must increase")
    return tuple(int(v) if float(v).is_integer() else v for v in values)


def sigmas_of(raw: Any) -> tuple[float, ...]:
    """Noise levels in increasing order; `{edm: n}` is the EDM grid of n levels, .002 to 80."""
    if isinstance(raw, Mapping) and set(raw) == {"edm"}:
        n = raw["edm"]
        if not isinstance(n, int) or n < 2:
            raise ValueError("edm wants a whole number of levels >= 2")
        check_count(n)
        top, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
        raw = [(top + i / (n - 1) * (low - top)) ** 7 for i in range(n)]
        raw[0], raw[-1] = 80.0, 0.002
    values = _distinct(expand(raw))
    if not all(_is_number(v) and v > 0 for v in values):
        raise ValueError("wanted positive noise levels, or {edm: n}")
    return tuple(sorted(float(v) for v in values))


def analyses_of(raw: Any) -> dict[str, dict]:
    """Options by analysis, from such a mapping or from a list of names."""
    if isinstance(raw, Mapping):
        wrong = [k for k, v in raw.items() if v is not None and not isinstance(v, Mapping)]
        if wrong:
            raise ValueError(f"{wrong[0]}: wanted a mapping of options")
        return {str(k): dict(v or {}) for k, v in raw.items()}
    return {str(name): {} for name in _distinct(expand(raw))}


def _custom(raw: Any) -> dict[str, float]:
    if not isinstance(raw, Mapping) or not all(_is_number(v) and v > 0 for v in raw.values()):
        raise ValueError("wanted a mapping from a custom resource of Ray's to an amount > 0")
    taken = sorted({"CPU", "GPU", "memory", "object_store_memory"} & set(raw))
    if taken:
        raise ValueError(f"{taken[0]} is not a custom resource")
    return {str(name): float(amount) for name, amount in raw.items()}


class Strict(BaseModel):
    """A section of a file: no unknown keys, no conversions, never edited."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Choice(BaseModel):
    """An entry of a registry by name, with its own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything beside the name; `engine.resolve` checks it against the entry."""
        return dict(self.__pydantic_extra__ or {})


class Resources(Strict):
    """Where and how much at once; never part of a result's identity."""

    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(0, ge=0)
    gpus_per_analysis: float = Field(0, ge=0)
    """Share of a GPU that an analysis task reserves; 0: analyses run on CPUs."""
    workers: int = Field(1, ge=1)
    """Processes that train one trial together (2 or more: DDP)."""
    concurrency: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Trials at a time; auto: as many as the cluster's CPUs (GPUs) hold."""
    checkpoint_seconds: float = Field(60, gt=0)
    custom: Annotated[dict[str, float], BeforeValidator(_custom)] = {}
    """Ray's custom resources of a trial, e.g. {a100: 0.5}: which nodes may hold it."""
    analysis_custom: Annotated[dict[str, float], BeforeValidator(_custom)] = {}
    """The same of an analysis."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How the workers of one trial lie on the nodes."""


class Numerics(Strict):
    """What changes bits: part of a result's identity (`eval_batch` of a piece's alone)."""

    threads: int = Field(1, ge=1)
    eval_batch: int = Field(512, ge=2)
    precision: Literal["float32", "float64"] = "float32"


class Sampler(Strict):
    """How every analysis that samples draws: one setting, so that all see the same samples."""

    samples: int = Field(512, ge=4)
    steps: int = Field(18, ge=2)
    solver: Literal["heun", "euler"] = "heun"


class Optuna(Strict):
    """Optuna picks among the listed across-points; what it does not ask for is skipped."""

    objective: Literal["heldout_loss", "stream_loss"] = "heldout_loss"
    """A number that training reports at the last kimg."""
    mode: Literal["min", "max"] = "min"
    trials: int = Field(ge=1)


class Boundary(Strict):
    """Trials that locate, per width, the n_train at which a share of samples passes a level."""

    metric: str = "memorized_fraction"
    """A share that an analysis measures and that falls with n_train."""
    level: float = Field(0.5, gt=0, lt=1)
    budget: int = Field(ge=1)
    """Trials at most, those that are stored included."""
    target_width: float = Field(gt=0)
    """Octaves of n_train that every 95 % interval may be wide."""
    kimg: Literal["last", "every"] = "last"
    """The training times whose boundary is wanted; a trial gives all of them anyway."""


class Search(Strict):
    """Which points of the grid to train when not all of them: one of the two."""

    optuna: Optuna | None = None
    boundary: Boundary | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Search":
        if (self.optuna is None) == (self.boundary is None):
            raise ValueError("wanted one of optuna and boundary")
        return self


class Sweep(Strict):
    """A named, validated, frozen description of a grid of trials and of what is measured on it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    question: str = ""
    data: Choice
    backbone: Choice
    axes: Annotated[dict[str, tuple], BeforeValidator(_axes)]
    kimg: Annotated[tuple[float, ...], BeforeValidator(_kimg)]
    sigmas: Annotated[tuple[float, ...], BeforeValidator(sigmas_of)]
    training: dict[str, Any] = {}
    analyses: Annotated[dict[str, dict], BeforeValidator(analyses_of)]
    sampler: Sampler = Sampler()
    resources: Resources = Resources()
    numerics: Numerics = Numerics()
    search: Search | None = None

    @model_validator(mode="after")
    def _grid_is_not_too_large(self) -> "Sweep":
        check_cells(self.axes, self.kimg)
        return self

    @model_validator(mode="after")
    def _constants_are_not_axes(self) -> "Sweep":
        for axis in self.further_axes:
            section, option = axis.split(".", 1)
            constants = self.training if section == "training" else self.backbone.options
            if option in constants:
                raise ValueError(f"axes.{axis} is also set as the constant {section}.{option}")
        return self

    @model_validator(mode="after")
    def _a_boundary_has_an_axis(self) -> "Sweep":
        if self.search and self.search.boundary and len(self.axes["n_train"]) < 3:
            raise ValueError(
                "search.boundary: wanted at least 3 values on axes.n_train, along which it"
                f" searches, got {list(self.axes['n_train'])}"
            )
        return self

    @property
    def further_axes(self) -> tuple[str, ...]:
        """The swept hyper-parameters, by dotted key."""
        return tuple(axis for axis in self.axes if axis not in STANDARD_AXES)


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a mistyped name, empty when nothing is near."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def shown(value: Any) -> str:
    """A value as errors show it: whole if it is short."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def load(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep in a YAML file, or `SWEEP` in a Python file, with `key=value` overrides applied.

    Raises:
        SpecError: missing or unreadable file, unknown key, value out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f"{path}: no such sweep file")
    if path.suffix == ".py":
        raw = _from_python(path)
    else:
        raw = _from_yaml(path)
    for each in overrides:
        raw = override(raw, each)
    return parse(raw, str(path))


def parse(raw: Any, origin: str) -> Sweep:
    """The sweep that a mapping describes; `origin` names it in errors."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"{origin}: wanted a mapping of keys, got {type(raw).__name__}")
    return validated(Sweep, raw, origin)


def validated(model: type[T], raw: Mapping[str, Any], origin: str) -> T:
    """`raw` as `model`, or a SpecError with a line for each mistake."""
    try:
        check_entries(raw)
    except ValueError as error:
        raise SpecError(f"{origin}: {error}") from None
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        lines = (f"{origin}: {_explain(each, model)}" for each in error.errors())
        raise SpecError("\n".join(lines)) from None


def _explain(error: Mapping[str, Any], whole: type[BaseModel]) -> str:
    """One line per mistake: key, what is wrong, what came."""
    loc = [
        str(part) for part in error["loc"] if part not in ("constrained-int", "literal['auto']")
    ]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        model = _model_at(loc[:-1], whole)
        known = list(model.model_fields)
        return f"unknown key {key!r}{nearest(loc[-1], known)}; allowed: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        if key == "axes":
            return f"axes.{message}"
        return f"{key}: {message}, got {shown(error['input'])}" if key else message
    if error["type"] == "string_pattern_mismatch":
        return f"{key}: wanted letters, digits, dot, dash, underscore, got {shown(error['input'])}"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, got {shown(error['input'])}"


def _model_at(loc: Sequence[str], whole: type[BaseModel]) -> type[BaseModel]:
    models = {
        "sampler": Sampler,
        "resources": Resources,
        "numerics": Numerics,
        "search": Search,
        "search.optuna": Optuna,
        "search.boundary": Boundary,
    }
    return models.get(".".join(loc), whole)


def _from_yaml(path: Path) -> Any:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SpecError(f"{path}: larger than {MAX_FILE_BYTES} bytes: not a sweep file")
    try:
        return yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not readable as YAML: not UTF-8 text ({error.reason})") from None
    except ValueError as error:
        raise SpecError(f"{path}:{error}") from None


def yaml(text: str) -> Any:
    """The value that a YAML text spells.

    Raises:
        ValueError: the line where known, and what is wrong.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{line} not readable as YAML: {problem}") from None
    except RecursionError:
        raise ValueError(" not readable as YAML: nested too deep") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # What the library lets through, e.g. of a date in a month 13.
        raise ValueError(f" not readable as YAML: {error}") from None


def _from_python(path: Path) -> Any:
    sweep = runpy.run_path(str(path)).get("SWEEP")
    if not isinstance(sweep, Sweep):
        raise SpecError(f"{path}: wanted a module that sets SWEEP = Sweep(...), got {sweep!r}")
    return as_mapping(sweep)


def as_mapping(sweep: Sweep) -> dict[str, Any]:
    """The sweep as plain JSON values, complete with defaults; `parse` undoes it."""
    return json.loads(sweep.model_dump_json(exclude_none=True))


def override(raw: Any, given: str) -> dict[str, Any]:
    """`raw` with one dotted `key=value` replaced; an axis keeps its dots (`axes.training.lr`)."""
    key, equals, text = given.partition("=")
    if not equals or not key or not isinstance(raw, Mapping):
        raise SpecError(f"--set {given}: wanted key=value, e.g. axes.width=[8,16]")
    try:
        value = yaml(text)
    except ValueError:
        raise SpecError(f"--set {given}: the value is not readable as YAML") from None
    head, _, rest = key.partition(".")
    parts = [head, rest] if head == "axes" and rest else key.split(".")
    result = dict(raw)
    node = result
    for part in parts[:-1]:
        child = node.get(part, {})
        if not isinstance(child, Mapping):
            child = {name: {} for name in child} if part == "analyses" else {}
        node[part] = dict(child)
        node = node[part]
    node[parts[-1]] = value
    return result
