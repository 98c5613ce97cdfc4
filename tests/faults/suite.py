"""Plays seeded sequences of faults and says which were survived."""

import random
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.nodes import SmallDisk, TwoNodes, may_mount
from tests.faults.processes import gone
from tests.faults.scene import Missed, Scene, Undisturbed

PER_SCENE = 3
LAST = ("delete results.zarr", "truncate results.zarr")
"""They need a finished sweep."""
PATIENCE = 20.0
"""Seconds of silence after which a trial counts as stuck, where a scene asks for it."""


@dataclass
class Row:
    """One injected fault."""

    fault: str
    moment: str
    seconds: float
    error: str = ""
    left: dict[int, int] = field(default_factory=dict)
    """Processes that have to end by themselves."""


def plan(seed: int, count: int, names: Sequence[str]) -> list[list[str]]:
    """Every fault in turn until there are `count`, in shuffled scenes of up to three."""
    rng, scenes, plain = random.Random(seed), [], []
    for i in range(count):
        if i % len(names) == 0:
            deck = rng.sample(names, len(names))
        name = deck.pop()
        if FAULTS[name].setting:
            scenes.append([name])
        else:
            plain.append(name)
    while plain:
        scene, plain = plain[:PER_SCENE], plain[PER_SCENE:]
        scenes.append(sorted(scene, key=lambda name: name in LAST))
    rng.shuffle(scenes)
    return scenes


def play(names: Sequence[str], folder: Path, seed: object, truth: Undisturbed) -> list[Row]:
    """One scene: its faults one after the other, then to the end, then the comparison.

    Raises:
        Missed: the run was over before a fault's moment had come.
    """
    shutil.rmtree(folder, ignore_errors=True)
    scene, start = Scene(folder, seed, truth), time.monotonic()
    rows = [Row(name, "", 0.0) for name in names]
    try:
        _set(scene, FAULTS[names[0]].setting)
        for i, name in enumerate(names):
            fault = FAULTS[name]
            resting = not fault.live and i > 0 and not scene.runs
            if fault.setting != "disk" and not resting:
                scene.wait(within=(0.8 * (i + 0.1) / len(names), 0.8 * (i + 0.9) / len(names)))
            if not fault.live:
                scene.stop()
            try:
                fault.inject(scene)
            finally:
                rows[i].moment, rows[i].left = scene.moment, scene.left
                scene.left = {}
        scene.finish()
        scene.compare()
    except Missed:
        deserted(rows)
        if not rows[0].error:
            raise
    except Exception as error:
        # Whichever of the scene's faults it was: none of them counts as survived.
        for row in rows:
            row.error = "".join(traceback.format_exception(error))
    finally:
        _unset(scene)
    for row in rows:
        row.seconds = (time.monotonic() - start) / len(rows)
    return rows


def deserted(rows: Sequence[Row]) -> None:
    """If processes of an ended command live on, none of these faults counts as survived.

    To be called late: Ray's own agents take a minute to end.
    """
    if not all(gone(row.left) for row in rows):
        for row in rows:
            row.error = row.error or "processes of the ended command live on"


def _set(scene: Scene, setting: str) -> None:
    if setting == "nodes":
        scene.nodes = TwoNodes()
        scene.more = ["--address", scene.nodes.address]
        scene.environment = {"RAY_AUTH_MODE": "disabled"}
    elif setting == "disk":
        share = scene.rng.uniform(0.6, 0.9)  # with less than half a run does not start
        size = int(share * scene.truth.disk)
        scene.disk, scene.moment = SmallDisk(scene.storage, size), f"{size // 1024} kB of disk"
    elif setting == "patience":
        scene.module = ["-m", "tests.faults.child", str(PATIENCE)]


def _unset(scene: Scene) -> None:
    scene.close()
    for standing in (scene.nodes, scene.disk):
        if standing is not None:
            standing.close()


def possible(folder: Path) -> list[str]:
    """The faults that can be injected here."""
    mounts = may_mount(folder)
    return [name for name, fault in FAULTS.items() if fault.setting != "disk" or mounts]


def suite(seed: int, count: int, names: Sequence[str], folder: Path) -> Iterator[list[Row]]:
    """Rows of one scene after the other until `count` faults were injected."""
    truth, injected, again = Undisturbed(folder / "undisturbed"), 0, 0
    while injected < count:
        for i, scene in enumerate(plan(seed + again, count - injected, names)):
            try:
                rows = play(scene, folder / "scene", f"{seed}-{again}-{i}", truth)
            except Missed as error:
                print(f"missed ({', '.join(scene)}): {error}", flush=True)
                continue
            deserted(rows)
            injected += len(rows)
            yield rows
        again += 1
