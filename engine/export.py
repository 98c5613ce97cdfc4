"""The cube on disk: results.zarr and results.nc for every xarray, CSV and Parquet for the rest.

Derived from the pieces and rebuildable. A new cube is built beside the old one, synced and moved
in, so a reader finds one of the two; a crash between the moves is repaired by the next gather. On
an object store, where nothing moves, the root metadata of the zarr goes first and comes last: a
reader finds a whole cube or none.
"""

import contextlib
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from pyarrow import fs

from engine.files import OLD, TEMPORARY, Files, sync
from engine.gather import RAW_DIMS
from engine.store import Store

ZARR, NETCDF = "results.zarr", "results.nc"
CHUNK_BYTES = 64 * 2**20
SYNCED = 16
"""Files that are synced at a time: a disk writes them together, six times as fast."""


def write(store: Store, cube: xr.Dataset, phase: xr.Dataset) -> None:
    """Replace results.zarr and results.nc, each with the boundaries in its group `phase`."""
    packed = {n for n, v in cube.data_vars.items() if v.dtype.kind != "f" or _shrinks(v.values)}
    _replace(store, ZARR, lambda path: _to_zarr(path, cube, phase, packed))
    _replace(store, NETCDF, lambda path: _to_netcdf(path, cube, phase, packed))


def read(store: Store) -> tuple[xr.Dataset, xr.Dataset]:
    """The cube and its boundaries, loaded.

    Raises:
        FileNotFoundError: the sweep has not been gathered.
    """
    with _local(store) as path:
        groups = [
            xr.load_dataset(path, engine="netcdf4", group=group) for group in (None, "phase")
        ]
    return groups[0], groups[1]


@contextlib.contextmanager
def _local(store: Store) -> Iterator[str]:
    """A path of results.nc on this machine."""
    files = store.out if store.out.exists(NETCDF) else store.files
    path = files.path(NETCDF)
    if not files.exists(NETCDF):
        raise FileNotFoundError(
            f"{store.folder}/{NETCDF} is missing: run `diffphase gather` first"
        )
    if files.is_local:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="diffphase-") as scratch:
        fs.copy_files(path, f"{scratch}/{NETCDF}", source_filesystem=files.system)
        yield f"{scratch}/{NETCDF}"


def read_variables(store: Store, names: Sequence[str]) -> xr.Dataset:
    """Variables of the cube as they are stored, nothing decoded, without coordinates."""
    with _local(store) as path, xr.open_dataset(path, engine="netcdf4", decode_cf=False) as cube:
        found = cube[list(names)].drop_vars(list(cube.coords)).load()
    for variable in found.variables.values():
        for written_by_xarray in ("_FillValue", "coordinates"):
            variable.attrs.pop(written_by_xarray, None)
    return found


def table(store: Store, cube: xr.Dataset, kind: str) -> str:
    """Write every variable without a raw dim as one long table; returns its path.

    Raises:
        ValueError: `kind` is neither csv nor parquet.
    """
    if kind not in ("csv", "parquet"):
        raise ValueError(f"--to: wanted netcdf, csv or parquet, got {kind!r}")
    names = [n for n, v in cube.data_vars.items() if not {*v.dims} & {*RAW_DIMS, "analysis"}]
    frame = cube[names].drop_vars("config_json", errors="ignore").to_dataframe().reset_index()
    _replace(
        store,
        f"results.{kind}",
        lambda path: frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path),
    )
    return f"{store.out.shown}/results.{kind}"


def _to_zarr(path: str, cube: xr.Dataset, phase: xr.Dataset, packed: set[Hashable]) -> None:
    encoding = {
        name: {
            "chunks": _chunks(variable),
            **({"fill_value": np.nan} if variable.dtype.kind == "f" else {}),
            **({} if name in packed or name in cube.coords else {"compressors": None}),
        }
        for name, variable in cube.variables.items()
        if variable.ndim
    }
    cube.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    phase.to_zarr(path, group="phase", mode="a", zarr_format=3, consolidated=False)
    with warnings.catch_warnings():
        # zarr warns that format 3 does not specify it; without it every reader is warned.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)


def _chunks(variable: xr.Variable) -> tuple[int, ...]:
    """Whole arrays up to 64 MiB, then split along the first dims."""
    chunks = list(variable.shape)
    for i, n in enumerate(chunks):
        rest = variable.dtype.itemsize * int(np.prod(chunks[i + 1 :], dtype=np.int64))
        chunks[i] = max(1, min(n, CHUNK_BYTES // max(rest, 1)))
        if chunks[i] > 1 or n == 1:
            break
    return tuple(chunks)


def _to_netcdf(path: str, cube: xr.Dataset, phase: xr.Dataset, packed: set[Hashable]) -> None:
    numeric = {
        n: {"zlib": True, "complevel": 1}
        for n, v in cube.data_vars.items()
        if v.ndim and v.dtype.kind == "f" and n in packed
    }
    cube.to_netcdf(path, engine="netcdf4", encoding=numeric)
    phase.to_netcdf(path, engine="netcdf4", group="phase", mode="a")


def _shrinks(values: np.ndarray) -> bool:
    """Whether zlib would spare a fifth: compressing takes most of a gather where it does not.

    Judged by evenly spaced blocks, their bytes in the order in which HDF5 shuffles them.
    """
    starts = np.linspace(0, max(0, values.size - 512), 16, dtype=int)
    flat = np.ascontiguousarray(values).ravel()
    sample = np.concatenate([flat[at : at + 512] for at in starts])
    shuffled = sample.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()
    return len(zlib.compress(shuffled, 1)) < 0.8 * len(shuffled)


def _replace(store: Store, name: str, build: Callable[[str], object]) -> None:
    """Build beside, move the old one aside, move the new one in, drop the old one.

    Raises:
        Full: no space is left.
    """
    if not store.out.is_local:
        with tempfile.TemporaryDirectory(prefix="diffphase-") as scratch:
            build(f"{scratch}/{name}")
            _publish(store.out, Path(scratch, name))
        return
    with store.out.noticing_full():
        _move_in(store.out, name, build)


def _move_in(files: Files, name: str, build: Callable[[str], object]) -> None:
    os.makedirs(files.base, exist_ok=True)
    target, old = Path(files.path(name)), Path(files.path(OLD + name))
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=files.base) as scratch:
        built = Path(scratch, name)
        build(str(built))
        with ThreadPoolExecutor(SYNCED) as threads:
            list(threads.map(sync, [built, *built.rglob("*")]))
        _remove(old)
        if target.is_dir():
            target.rename(old)
        try:
            os.replace(built, target)
        except OSError:
            if old.is_dir():
                old.rename(target)
            raise
    sync(files.base)
    _remove(old)


def _publish(files: Files, built: Path) -> None:
    """Upload a file, or a zarr store: none of its parts is found without the root's metadata."""
    if built.is_file():
        files.write(built.name, built.read_bytes())
        return
    root = f"{built.name}/zarr.json"
    last = (built / "zarr.json").read_bytes()
    files.delete(root)
    (built / "zarr.json").unlink()
    before = set(files.listing(built.name))
    files.upload(str(built), built.name)
    for name in before - {f"{built.name}/{p.relative_to(built)}" for p in built.rglob("*")}:
        files.delete(name)
    files.write(root, last)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def size(files: Files) -> int:
    """Bytes of the whole cube, both forms."""
    tree = fs.FileSelector(files.path(ZARR), recursive=True, allow_not_found=True)
    infos = files.system.get_file_info(tree)
    infos += files.system.get_file_info([files.path(NETCDF)])
    return sum(info.size or 0 for info in infos)
