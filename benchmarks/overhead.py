"""Seconds of engine time per trial, beside the documented way to nest Ray Train in Ray Tune.

The engine's trials are real ones of one step on eight images: Tune, the reused trial process,
Train in local mode, and every write to the store, synced to disk. Nothing is patched out, and
nothing is subtracted from the figure that the target is about; the processor seconds of the
training within it, as the engine stores them, stand beside it. The nested trials report one number
and do nothing else, which favours them.

Each row runs in a process of its own, one trial at a time, with a Ray session of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

TARGET = 0.1
"""Seconds of engine time per trial that are asked for."""
WARM = 10
"""Trials before the processes of the analyses are up, in the row that has analyses."""
ROWS = {
    "engine": "engine: training",
    "engine-analyses": "engine: training, an analysis task each, TensorBoard",
    "nested": "Tune function around TorchTrainer, defaults",
    "nested-tuned": "the same, reuse_actors and health checks each 0.2 s",
}


def sweep_of(count, analyses):
    """A sweep of `count` trials of one step each."""
    return {
        "name": "overhead",
        "data": {"name": "digits", "n_heldout": 32},
        "backbone": {"name": "mlp", "depth": 1},
        "axes": {"width": [64], "n_train": [8], "seed": list(range(count))},
        "kimg": [0.008],
        "sigmas": [1.0],
        "training": {"batch": 8},
        "analyses": analyses,
        "resources": {"concurrency": 1},
    }


def engine(count, analyses):
    """Run the trials; when each ended, and the seconds of its training."""
    with tempfile.TemporaryDirectory() as storage:
        driver = driven(count, analyses, storage, timed_driver)
        trials = driver.todo.trials
        return driver.ends, [train_seconds(driver.job.store, trial) for trial in trials]


def driven(count, analyses, storage, kind):
    """The trials as `diffphase run` drives them, up to the gathering: a driver that has worked.

    `kind` gives the class of the driver once Ray's environment is set, which Ray reads at import.
    """
    from engine.cluster import cluster, configure

    configure(None)
    from engine.job import Job
    from engine.run import prepare, record_run
    from engine.spec import parse
    from engine.work import PENDING

    ready = prepare(parse(sweep_of(count, analyses), "overhead"), "overhead", storage)
    record_run(ready, "overhead")
    todo = ready.survey()
    todo.pieces[:, :, 0] = PENDING  # a sweep without analyses counts as finished
    job = Job(ready.sweep, ready.facts, ready.prints, ready.store)
    driver = kind()(job, ready.data, todo, None)
    with cluster(None, ready.data.nbytes, groups=False):
        driver.work(ready.survey)
    if driver.failures:
        raise RuntimeError(f"{driver.failures} failures: the figures would mean nothing")
    return driver


def timed_driver():
    """The engine's driver, which notes when a trial ended."""
    from engine.driver import Driver
    from engine.grid import Cell

    class Timed(Driver):
        """A trial ends with its analyses' receipt, or at its last result if it has none."""

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.ends = []

        def on_snapshot(self, trial, result):
            super().on_snapshot(trial, result)
            if result.get("done") and not self.job.sweep.analyses:
                self.ends.append(time.monotonic())

        def on_receipt(self, receipt):
            super().on_receipt(receipt)
            if isinstance(receipt["at"], Cell):
                self.ends.append(time.monotonic())

    return Timed


def train_seconds(store, trial):
    """Processor seconds that a trial's training took, as the engine stored them."""
    (numbers,) = store.trial_record(trial)["snapshots"].values()
    return numbers["train_seconds"]


def nested(count, *, tuned):
    """Tune function trials that each run a one-worker TorchTrainer; when each one ended."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    if tuned:
        os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    import ray
    from ray import tune

    class Ends(tune.Callback):
        """Notes when a trial ends."""

        def on_trial_complete(self, iteration, trials, trial, **info):
            ends.append(time.monotonic())

    ends = []
    ray.init("local", resources={"tune_slot": 1}, log_to_driver=False, logging_level="warning")
    with tempfile.TemporaryDirectory() as storage:
        # A resource of its own: a trial that holds a CPU would keep it from its worker.
        results = tune.Tuner(
            tune.with_resources(nested_trial, {"tune_slot": 1}),
            param_space={"seed": tune.grid_search(list(range(count))), "storage": storage},
            tune_config=tune.TuneConfig(reuse_actors=tuned),
            run_config=tune.RunConfig("nested", storage, verbose=0, callbacks=[Ends()]),
        ).fit()
    ray.shutdown()
    if results.errors:
        raise results.errors[0]
    return ends, [0.0] * count


def nested_trial(config):
    """What Ray's guide shows: the trial drives a Train run, whose reports become Tune's."""
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop(config):
        ray.train.report({"loss": 0.0})

    TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=f"{config['storage']}/train",
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def part(row, count):
    """One row, measured in this process."""
    start = time.monotonic()
    if row.startswith("engine"):
        with_analyses = row == "engine-analyses"
        skip = WARM if with_analyses else 1
        ends, training = engine(count + skip - 1, {"generalization": {}} if with_analyses else {})
    else:
        skip = 1
        ends, training = nested(count, tuned=row == "nested-tuned")
    wall = time.monotonic() - start
    gaps = [b - a for a, b in zip(ends[skip - 1 :], ends[skip:], strict=False)]
    return {
        "trials": len(ends),
        "first": ends[0] - start,
        "marginal": mean(gaps),
        "median": median(gaps),
        "training": mean(training[skip:]),
        "overall": wall / len(ends),
    }


def measured(row, count):
    """One row, measured in a process of its own: Ray reads its settings when it is imported."""
    print(f"{ROWS[row]}: {count} trials ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--part", row, "--trials", str(count)]
        subprocess.run([*command, "--result", str(result)], check=True, stdout=sys.stderr)
        return json.loads(result.read_text())


def table(rows):
    """The rows as Markdown, seconds per trial."""
    lines = [
        "| seconds per trial, one at a time | trials | marginal, mean | marginal, median"
        " | training within it | overall | up to the end of the first |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, r in rows.items():
        lines.append(
            f"| {ROWS[row]} | {r['trials']} | {r['marginal']:.3f} | {r['median']:.3f}"
            f" | {r['training']:.3f} | {r['overall']:.2f} | {r['first']:.1f} |"
        )
    return "\n".join(lines)


def verdict(rows):
    """The ratios, and the target with what was found."""
    ours = rows["engine"]["marginal"]
    lines = [
        f"{ROWS[row]}: {r['marginal'] / ours:.0f} times the engine's marginal seconds"
        for row, r in rows.items()
        if row.startswith("nested")
    ]
    word = "met" if ours <= TARGET else "MISSED"
    found = f"{ours:.3f} s with its training, {word}"
    return "\n".join([*lines, f"engine, target at most {TARGET} s per trial: {found}"])


def main():
    """Measure every row and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30, help="of the engine")
    parser.add_argument("--nested", type=int, default=3, help="trials of the nested idiom")
    parser.add_argument("--quick", action="store_true", help="few trials: does it run at all?")
    parser.add_argument("--part", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        given.result.write_text(json.dumps(part(given.part, given.trials)))
        return
    ours, theirs = (5, 2) if given.quick else (given.trials, given.nested)
    before = os.getloadavg()[0]
    rows = {r: measured(r, ours if r.startswith("engine") else theirs) for r in ROWS}
    print(f"{os.cpu_count()} cores, load before the start {before:.1f}\n")
    print(table(rows), verdict(rows), sep="\n\n")


if __name__ == "__main__":
    main()
