"""Whether the 2,000th trial of a run costs more than the 100th, in seconds and in memory.

The no-op trials of `overhead.py` through the engine's own driver: real ones of one step on eight
images, one at a time, each with its writes to the store; with `--analyses` an analysis task and a
TensorBoard run each. Nothing is subtracted: the seconds from the end of one trial to the end of
the next, medians of 100 trials around the 100th and up to the last; resident memory of the driver,
by a line through what it was at the end of each trial after the 100th.
"""

import argparse
import os
import tempfile

import numpy as np
from overhead import driven, timed_driver

AROUND = 100
"""Trials of a median, and the trial that the last ones are compared with."""
SLOWER, KILOBYTES = 2.0, 150.0
"""Ratio of seconds, and growth of the driver per trial, that are allowed."""


def resident():
    """Resident memory of this process in kB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def watched_driver():
    """The driver that notes when a trial ended, and its own memory then."""

    class Watched(timed_driver()):
        """Notes the driver's memory whenever a trial ends."""

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.memory = []

        def on_snapshot(self, trial, result):
            super().on_snapshot(trial, result)
            if result.get("done"):
                self.memory.append(resident())

    return Watched


def measured(count, analyses):
    """Seconds when each trial ended, and kB of the driver then."""
    with tempfile.TemporaryDirectory() as storage:
        driver = driven(count, analyses, storage, watched_driver)
        return np.array(driver.ends), np.array(driver.memory)


def verdict(ends, memory):
    """What was found beside what is allowed."""
    gaps, around = np.diff(ends), min(AROUND, len(ends) // 4)
    early = np.median(gaps[around // 2 : around + around // 2])
    late = np.median(gaps[-around:])
    trials = np.arange(around, len(memory))
    growth = np.polyfit(trials, memory[around:], 1)[0]
    kept = late <= SLOWER * early and growth <= KILOBYTES
    return "\n".join(
        [
            f"{len(ends)} trials: {early:.4f} s a trial around the {around}th, {late:.4f} s at the"
            f" end: {late / early:.2f} times (limit {SLOWER:g})",
            f"driver {memory[around] / 1024:.0f} MB at the {around}th, {memory[-1] / 1024:.0f} MB"
            f" at the end: {growth:.0f} kB a trial (limit {KILOBYTES:g})",
            "kept" if kept else "MISSED",
        ]
    )


def main():
    """Run the trials and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--analyses", action="store_true", help="an analysis task each")
    parser.add_argument("--quick", action="store_true", help="few trials: does it run at all?")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load before the start {os.getloadavg()[0]:.1f}")
    count = 40 if given.quick else given.trials
    print(verdict(*measured(count, {"generalization": {}} if given.analyses else {})))


if __name__ == "__main__":
    main()
