"""What the JSON files of a store hold, checked when they are read: a store may come from anywhere.

Entries of a later version are kept. A record that cannot be read counts as absent: each can be
made again from what else is stored. What holds results (pieces, snapshots, bundles) is `Damaged`.
"""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # Python 3.12's own is what pydantic wants, or this

from engine.spec import canonical

OPEN = ConfigDict(extra="allow")


def _finite(value: Any) -> Any:
    canonical(value)  # raises ValueError for what is no JSON: nan, infinity
    return value


Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Number = Whole | float
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[Whole, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[\w.+-]+$")]
"""What netCDF takes as the name of an attribute."""


class Damaged(ValueError):
    """A file of the store is torn or foreign; the message says which, and what to do."""


class Prints(TypedDict):
    """Fingerprints that snapshots and pieces must have."""

    __pydantic_config__ = OPEN
    snapshot: str
    pieces: dict[str, str]
    subset_pieces: dict[str, str]
    needs: NotRequired[dict[str, list[str]]]


class DataFacts(TypedDict):
    """What the cube says of the data."""

    __pydantic_config__ = OPEN
    name: str
    content_hash: str | Whole
    shape: Annotated[list[Size], Field(min_length=1)]
    sigma_data: float
    n_pool: Whole
    n_heldout: Whole
    n_leaked: Whole
    n_duplicates: Whole
    n_constant_pixels: Whole
    n_near_duplicates: NotRequired[Whole | None]
    n_near_leaked: NotRequired[Whole | None]
    near_threshold: NotRequired[float | None]


class TrainingFacts(TypedDict):
    """What the cube says of the training; which of the noise levels, its `noise` decides."""

    __pydantic_config__ = OPEN
    batch: Size
    sigma_data: float | None
    noise: NotRequired[str]
    p_mean: NotRequired[float]
    p_std: NotRequired[Positive]
    sigma: NotRequired[Positive | None]
    sigma_min: NotRequired[Positive]
    sigma_max: NotRequired[Positive]


class AnalysisFacts(TypedDict):
    """One analysis with its complete options."""

    __pydantic_config__ = OPEN
    options: dict[str, Any]
    needs: NotRequired[list[str]]
    without: NotRequired[list[str]]


class Facts(TypedDict):
    """What gathering needs of `engine.resolve.Facts`, which imports torch."""

    __pydantic_config__ = OPEN
    data: DataFacts
    backbone: dict[str, Any]
    training: TrainingFacts
    analyses: dict[str, AnalysisFacts]
    sizes: dict[str, tuple[Whole, float]]


class Sweep(TypedDict):
    """sweep.json."""

    __pydantic_config__ = OPEN
    sweep: dict[str, Any]
    facts: Facts
    identity: dict[str, Any]
    prints: Prints
    versions: NotRequired[dict[Name, str]]
    commit: NotRequired[str]
    history: NotRequired[list[str]]
    ingredients: NotRequired[dict[str, dict[str, Any]]]


class Trial(TypedDict, total=False):
    """trial.json."""

    __pydantic_config__ = OPEN
    status: str
    fingerprint: str
    snapshots: dict[str, dict[str, Number]]
    heartbeat: float
    attempts: Whole
    losses: Whole
    error: str
    errors: list[str]
    traceback: str


class Analysis(TypedDict):
    """One analysis in a receipt."""

    __pydantic_config__ = OPEN
    seconds: NotRequired[float]
    fingerprint: str
    attempts: NotRequired[Whole]
    error: NotRequired[str]
    errors: NotRequired[list[str]]
    traceback: NotRequired[str]


class Receipt(TypedDict):
    """A receipt in log/."""

    __pydantic_config__ = OPEN
    analyses: dict[str, Analysis]


class Point(TypedDict):
    """One point that a search has asked for."""

    __pydantic_config__ = OPEN
    point: Annotated[dict[str, Any], AfterValidator(_finite)]
    value: float | None


class Search(TypedDict):
    """search.json."""

    __pydantic_config__ = OPEN
    asked: list[Point]
    over: NotRequired[str | None]


class Cube(TypedDict):
    """cube.json."""

    __pydantic_config__ = OPEN
    state: str
    asked: str
    written: float
    bytes: Whole
    labels: dict[str, list[str | Number]]
    names: list[str]
    subsets: list[tuple[str, str]]
    signatures: dict[str, str]


class Claim(TypedDict):
    """A driver's claim on an object store (`engine.lock`)."""

    __pydantic_config__ = OPEN
    host: str
    pid: int
    started: str
    holds: int


class Notes(TypedDict, total=False):
    """What the index says of a trial beside numbers, by index of kimg."""

    stale: dict[Whole, dict[str, str | None]]
    errors: dict[Whole, str]


SWEEP = TypeAdapter(Annotated[Sweep, AfterValidator(_finite)])
TRIAL, RECEIPT, SEARCH, CUBE, CLAIM, NOTES = map(
    TypeAdapter, (Trial, Receipt, Search, Cube, Claim, Notes)
)


def mistake(error: ValidationError) -> str:
    """The first thing that is wrong with a record, in one line."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
