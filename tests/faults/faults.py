"""The faults: what each does to a scene, and what must hold at once. The end is compared later."""

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.files import Files
from tests.engine.helpers import compute, prepared
from tests.faults.processes import below, named, send
from tests.faults.scene import LIMIT, SWEEP, Missed, Scene, require, stored

ACTOR, WORKER = "ray::ResourceTrainable", "ray::_analyse"


@dataclass(frozen=True)
class Fault:
    """How to do it, and what it needs."""

    inject: Callable[[Scene], None]
    live: bool = True
    """Whether the command must be running; else it is stopped before."""
    setting: str = ""
    """What the scene needs from its start: nodes, disk, patience."""


# While the sweep runs ----------------------------------------------------------------------------


def kill_driver(scene: Scene) -> None:
    """kill -9: its workers end by themselves, while the same command goes on beside them."""
    scene.left = below(scene.process.pid)
    scene.process.kill()
    scene.process.wait()


def _signal(scene: Scene, number: int) -> None:
    scene.left = below(scene.process.pid)
    scene.process.send_signal(number)
    status = scene.ended()
    require(status == 130, f"exit status {status} instead of 130:\n{scene.said()}")
    require("the same command goes on from here" in scene.said(), scene.said())


def interrupt(scene: Scene) -> None:
    """Ctrl-C: ends in order with status 130."""
    _signal(scene, signal.SIGINT)


def terminate(scene: Scene) -> None:
    """What a scheduler sends: the same."""
    _signal(scene, signal.SIGTERM)


def _find(scene: Scene, name: str) -> int:
    """A process of the run by its title; analyses are short, so look often."""
    end = time.monotonic() + LIMIT
    while scene.runs and time.monotonic() < end:
        found = named(scene.process.pid, name)
        if scene.nodes:
            found += named(scene.nodes.process.pid, name)
        if found:
            return scene.rng.choice(found)
    raise Missed(f"no {name}")


def kill_actor(scene: Scene) -> None:
    """kill -9 of a process that trains: the trial goes on elsewhere, the run with it."""
    send([_find(scene, ACTOR)])


def kill_worker(scene: Scene) -> None:
    """kill -9 of a process that analyses: the task is tried again, the run goes on."""
    send([_find(scene, WORKER)])


def stop_actor(scene: Scene) -> None:
    """SIGSTOP of a process that trains: past its deadline it is ended and the trial retried."""
    send([_find(scene, ACTOR)], signal.SIGSTOP)


def kill_ray(scene: Scene) -> None:
    """kill -9 of every Ray process of the run at once: it ends by itself, and says why."""
    scene.left = below(scene.process.pid)
    send(scene.left)
    status = scene.ended()
    require(status not in (0, 2, 130), f"exit status {status}:\n{scene.said()}")
    require("Ray" in scene.said(), f"nothing about Ray:\n{scene.said()}")


def kill_raylet(scene: Scene) -> None:
    """kill -9 of a node of a two-node cluster: its work moves to the other."""
    scene.nodes.kill_second()


def second_driver(scene: Scene) -> None:
    """Another driver on the same store: refused with the first one's pid, the first goes on."""
    status, said = scene.alone()
    if not scene.runs:
        raise Missed("the first was over")
    require(status == 2, f"exit status {status} instead of 2:\n{said}")
    require(f"pid {scene.process.pid}" in said, said)


def full_disk(scene: Scene) -> None:
    """No space left on a small tmpfs: the run ends and says so; with more space it goes on."""
    if not scene.runs:
        scene.process = scene.start()
    status = scene.ended()
    require(status not in (0, 2, 130), f"exit status {status}:\n{scene.said()}")
    require("no space left" in scene.said().lower(), scene.said())
    _whole(scene)
    scene.disk.grow()


# While nothing runs ------------------------------------------------------------------------------


def _whole(scene: Scene, before: Mapping[str, bytes] | None = None) -> None:
    """What is stored is what an undisturbed run stores, or as it was before: nothing was torn."""
    for name, data in stored(scene.folder).items():
        untouched = before is not None and before.get(name) == data
        require(untouched or scene.truth.files[name] == data, f"{name} is torn")


def _truncate(scene: Scene, path: Path) -> None:
    length = scene.rng.randrange(path.stat().st_size)
    with open(path, "r+b") as file:
        file.truncate(length)
    scene.moment += f"; {path.relative_to(scene.folder)} cut to {length} bytes"


def _one(scene: Scene, pattern: str) -> Path:
    found = sorted(p for p in scene.folder.rglob(pattern) if ".tmp-" not in p.name)
    if not found:
        raise Missed(f"no {pattern} yet")
    return scene.rng.choice(found)


def truncate_snapshot(scene: Scene) -> None:
    """A torn snapshot that is needed: trained again to the same bytes."""
    snapshot = _one(scene, "kimg*.safetensors")
    _truncate(scene, snapshot)
    pieces = sorted(snapshot.parents[1].glob(f"pieces/{snapshot.stem},*.arrow"))
    if pieces:
        scene.rng.choice(pieces).unlink()


def truncate_checkpoint(scene: Scene) -> None:
    """A torn checkpoint costs time and no numbers."""
    checkpoint = _one(scene, "checkpoint.safetensors")
    _truncate(scene, checkpoint)
    last = checkpoint.parent / f"snapshots/kimg={SWEEP['kimg'][-1]}.safetensors"
    for path in (last, *checkpoint.parent.glob(f"pieces/{last.stem},*")):
        path.unlink(missing_ok=True)  # so that it is needed


def truncate_piece(scene: Scene) -> None:
    """A torn piece is computed again."""
    _truncate(scene, _one(scene, "*.arrow"))


def truncate_record(scene: Scene) -> None:
    """A torn trial.json is no obstacle."""
    _truncate(scene, _one(scene, "trial.json"))


def truncate_receipt(scene: Scene) -> None:
    """A torn receipt is no obstacle."""
    _truncate(scene, _one(scene, "log/*.json"))


def truncate_sweep_record(scene: Scene) -> None:
    """A torn sweep.json is written anew."""
    _truncate(scene, scene.folder / "sweep.json")


def delete_cube(scene: Scene) -> None:
    """Without results.zarr the cube is built again from the pieces."""
    scene.finish()
    shutil.rmtree(scene.folder / "results.zarr")


def tear_cube(scene: Scene) -> None:
    """A results.zarr with a torn file is built again from the pieces."""
    scene.finish()
    _truncate(scene, _one(scene, "results.zarr/**/zarr.json"))


def change_sweep(scene: Scene) -> None:
    """Other training under stored trials: refused, both values named, nothing touched."""
    before = stored(scene.folder)
    if not before:
        raise Missed("nothing stored")
    scene.write({**SWEEP, "training": {**SWEEP["training"], "lr": 1e-3}})
    status, said = scene.alone()
    scene.write(SWEEP)
    require(status == 2, f"exit status {status} instead of 2:\n{said}")
    require("training.lr: stored 0.004, now 0.001" in said, said)
    require(stored(scene.folder) == before, "the refused run has changed stored files")


def fail_write(scene: Scene) -> None:
    """No space left at the k-th write of a process: it ends there, nothing is torn."""
    k = scene.rng.randrange(1, 60)
    scene.moment += f"; write {k} fails"
    ready, left, real = prepared(SWEEP, scene.storage), [k], Files.write
    before = stored(scene.folder)  # an earlier fault may have torn something

    def write(self: Files, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        real(self, name, data)

    Files.write = write
    try:
        compute(ready)
    except OSError as error:
        require("no space left" in str(error).lower(), str(error))
    finally:
        Files.write = real
    if left[0] > 0:
        raise Missed(f"fewer than {k} writes were left")
    _whole(scene, before)


FAULTS: dict[str, Fault] = {
    "kill -9 driver": Fault(kill_driver),
    "SIGINT": Fault(interrupt),
    "SIGTERM": Fault(terminate),
    "kill -9 trial actor": Fault(kill_actor),
    "kill -9 analysis worker": Fault(kill_worker),
    "SIGSTOP trial actor": Fault(stop_actor, setting="patience"),
    "kill -9 all of Ray": Fault(kill_ray),
    "kill -9 raylet of two": Fault(kill_raylet, setting="nodes"),
    "two drivers": Fault(second_driver),
    "full disk": Fault(full_disk, setting="disk"),
    "ENOSPC at write k": Fault(fail_write, live=False),
    "truncate snapshot": Fault(truncate_snapshot, live=False),
    "truncate checkpoint": Fault(truncate_checkpoint, live=False),
    "truncate piece": Fault(truncate_piece, live=False),
    "truncate trial.json": Fault(truncate_record, live=False),
    "truncate receipt": Fault(truncate_receipt, live=False),
    "truncate sweep.json": Fault(truncate_sweep_record, live=False),
    "delete results.zarr": Fault(delete_cube, live=False),
    "truncate results.zarr": Fault(tear_cube, live=False),
    "change the sweep": Fault(change_sweep, live=False),
}
