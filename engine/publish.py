"""From pieces to what people read: the cube, its boundaries, the figures, the findings.

Needs the store alone: no torch, no Ray, no data, so it works on a copy of the folder on a laptop.
"""

import errno
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine import export, records
from engine.gather import SCHEMA_VERSION, Gathered, labelled, of_subsets, scattered
from engine.opened import stored
from engine.spec import SpecError, Sweep, as_mapping, digest
from engine.store import Store
from engine.work import Survey, survey

FIGURES = "figures"
FINDINGS = f"{FIGURES}/findings.txt"
MADE_OF = "cube.json"
"""What the cube that is there was made of."""
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError)
"""What the netCDF library and xarray raise for a damaged cube."""


def versions() -> dict[str, str]:
    """What computes the results."""
    found = {"python": sys.version.split()[0]}
    for name in ("diffphase", "torch", "numpy", "scipy", "ray", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def publish(
    sweep: Sweep,
    facts: dict,
    prints: dict,
    store: Store,
    found: Survey,
    *,
    force: bool = False,
    figures: bool = True,
) -> None:
    """Gather the cube, its boundaries and its figures, where they are older than the pieces."""
    state = digest(
        [
            as_mapping(sweep),
            prints,
            blake2b(found.pieces.tobytes()).hexdigest(),
            sorted(map(str, found.errors.items())),
            [[subset.address, states] for subset, states in found.subsets.items()],
        ]
    )
    noted = _noted(store)
    fresh = (
        noted.get("state") == state
        and store.out.exists(export.ZARR)
        and store.out.exists(export.NETCDF)
    )
    # Of torn files the cube is short.
    fresh = fresh and noted["bytes"] == export.size(store.out)
    if not force and fresh and (store.out.exists(FINDINGS) or not figures):
        return
    if force or not fresh:
        gather(sweep, facts, prints, store, found, state)
    if figures:
        draw(store)


def gather(
    sweep: Sweep, facts: dict, prints: dict, store: Store, found: Survey, state: str = ""
) -> None:
    """Bring results.zarr and results.nc up to date with the pieces.

    Trials whose folders are as they were are taken from the cube that is there; without
    results.nc or cube.json, everything is read again.
    """
    from analyses.derived import derived
    from analyses.phase import phase

    record = store.record() or {}
    asked = digest(
        [SCHEMA_VERSION, version("diffphase"), sweep.axes, sweep.kimg, sweep.sigmas, prints]
    )
    before = _gathered(store, found, asked)
    arrays = scattered(store, sweep, facts, found, before)
    cube = labelled(arrays, facts, found, record.get("versions", versions()))
    cube = derived(cube)
    cube.attrs["history"] = "\n".join(record.get("history", []))
    cube.attrs["source"] = f"diffphase {version('diffphase')} {record.get('commit', '')}".strip()
    cube.attrs["date_created"] = time.strftime("%Y-%m-%dT%H:%M:%S")
    export.write(store, cube, phase(cube))
    # Drawn of another cube; written last of all, so that it stands for every figure.
    store.out.delete(FINDINGS)
    made_of = {
        "state": state,
        "asked": asked,
        "written": store.out.modified(export.NETCDF),
        "bytes": export.size(store.out),
        "labels": arrays.labels,
        "names": list(arrays.arrays),
        "subsets": sorted(of_subsets(found)),
        "signatures": {place: s.signature for place, s in found.found.items() if s.signature},
    }
    store.out.write_json(MADE_OF, made_of, indent=None)  # long, and for no person


def _noted(store: Store) -> dict[str, Any]:
    """What was noted of the cube that is there."""
    return store.out.read_record(MADE_OF, records.CUBE) or {}


def _gathered(store: Store, found: Survey, asked: str) -> Gathered | None:
    """The cube that is there, if it was made for the same sweep by the same version."""
    noted = _noted(store)
    written = store.out.modified(export.NETCDF)
    if written is None or (noted.get("asked"), noted.get("written")) != (asked, written):
        return None
    names, then, now = noted["names"], noted["signatures"], found.found
    try:
        variables = export.read_variables(store, [*names, "piece_status"])
    except UNREADABLE:
        return None  # torn in place: everything is read again
    return Gathered(
        variables,
        noted["labels"],
        names,
        frozenset(place for place in then if place in now and now[place].signature == then[place]),
        frozenset(noted["subsets"]),
    )


def draw(store: Store) -> dict[str, str]:
    """Draw every figure that the cube supports (PNG, PDF, CSV) and write the findings.

    Returns:
        figures that could not be drawn, with the reason.
    """
    from analyses.figures import FIGURES as figures
    from analyses.figures import plotted
    from analyses.findings import as_text, findings

    cube, boundaries = export.read(store)
    missing = {}
    for name, figure in figures.items():
        try:
            picture, numbers = figure(cube, boundaries), plotted(name, cube, boundaries)
        except ValueError as error:
            missing[name] = str(error)
            continue
        _write_figure(store, name, picture, numbers)
    store.out.write(FINDINGS, (as_text(findings(cube, boundaries)) + "\n").encode())
    return missing


def draw_paper(
    store: Store, figures: Sequence[str], train: Callable | None = None
) -> tuple[list[str], dict[str, str]]:
    """Draw figures of the paper from the cube, each with its numbers beside it.

    Args:
        train: training images at given coordinates (`engine.neighbours`), for those that show
            the nearest one beside a sample.
    """
    from analyses.paper import FIGURES_OF_PAPER
    from analyses.paper import draw as draw_one

    known = {f"paper/{number}": number for number in FIGURES_OF_PAPER}
    asked = list(known) if "paper" in figures else list(figures)
    for name in asked:
        if name not in known:
            raise ValueError(f"--figure {name}: wanted paper, or one of {', '.join(known)}")
    cube, boundaries = export.read(store)
    drawn, missing = [], {}
    for name in asked:
        try:
            picture, numbers = draw_one(known[name], cube, boundaries, train)
        except ValueError as error:
            missing[name] = str(error)
            continue
        drawn += _write_figure(store, name, picture, numbers)
    return drawn, missing


def _write_figure(store: Store, name: str, picture: Any, numbers: Any) -> list[str]:
    """A figure as PNG and PDF, and the numbers that it shows; where they lie."""
    from analyses.style import render

    for kind in ("png", "pdf"):
        store.out.write(f"{FIGURES}/{name}.{kind}", render(picture, kind))
    store.out.write(f"{FIGURES}/{name}.csv", numbers.to_csv(index=False).encode())
    return [f"{store.out.shown}/{FIGURES}/{name}.{kind}" for kind in ("png", "pdf", "csv")]


@contextmanager
def _telling_where(store: Store) -> Iterator[None]:
    """A store that may only be read is bad input: the way out is `--out`."""
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY and "ACCESS_DENIED" not in str(error):
            raise
        raise SpecError(
            f"{store.out.shown} cannot be written ({error.strerror or error}):"
            " name another folder for what is made with --out FOLDER"
        ) from error


def gather_at(path: str, to: str = "netcdf", out: str | None = None) -> str:
    """Rebuild the cube of the sweep in a folder; with csv or parquet, a long table of it as well.

    Args:
        out: where the cube and the table go, if not into the sweep's folder.

    Returns:
        where it lies.

    Raises:
        SpecError: the folder may only be read.
    """
    if to not in ("netcdf", "csv", "parquet"):
        raise ValueError(f"--to: wanted netcdf, csv or parquet, got {to!r}")
    sweep, record, store = stored(path, out)
    with _telling_where(store):
        publish(
            sweep,
            record["facts"],
            record["prints"],
            store,
            survey(sweep, store, record["prints"]),
            force=True,
            figures=False,
        )
        if to == "netcdf":
            return f"{store.out.shown}/{export.ZARR}\n{store.out.shown}/{export.NETCDF}"
        return export.table(store, export.read(store)[0], to)


def plot_at(
    path: str,
    figures: Sequence[str] = (),
    train: Callable | None = None,
    out: str | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Draw the figures of the sweep in a folder: those drawn, and those not with the reason.

    Args:
        figures: figures of the paper, `paper/1` to `paper/30`, or `paper` for all of them; none:
            the sweep's own.
        train: as of `draw_paper`.
        out: where they go, if not into the sweep's folder; a cube that lies there is preferred.

    Raises:
        ValueError: a figure that does not exist.
        SpecError: the folder may only be read.
    """
    _, _, store = stored(path, out)
    with _telling_where(store):
        if figures:
            return draw_paper(store, figures, train)
        missing = draw(store)
    return [f"{store.out.shown}/{n}" for n in store.out.listing(FIGURES)], missing


def finished(store: Store) -> str:
    """What a run ends with: what was found, and where everything lies."""
    text = (store.files.read(FINDINGS) or b"").decode().rstrip()
    drawn = f"{store.folder}/{FIGURES}" if text else f"diffphase plot {store.folder}"
    places = {
        "cube": f"{store.folder}/{export.ZARR} (and {export.NETCDF})",
        "figures": drawn,
        "TensorBoard": f"tensorboard --logdir {store.folder}/tensorboard",
    }
    return "\n".join([text, "", *(f"{name:<12} {place}" for name, place in places.items())])
