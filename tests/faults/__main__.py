"""`make faults`: injects faults, prints the table, exits with 1 if any was not survived."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.suite import possible, suite


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--only", action="append", choices=list(FAULTS))
    parser.add_argument("--keep", action="store_true", help="leave the last scene's folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    names = arguments.only or possible(folder / "probe")
    print(f"seed {arguments.seed}; not possible here: {sorted(FAULTS.keys() - set(names))}")
    print("| fault | moment | seconds | survived |\n|---|---|---|---|", flush=True)
    total, lost = 0, []
    for rows in suite(arguments.seed, arguments.count, names, folder):
        for row in rows:
            survived = "no" if row.error else "yes"
            print(f"| {row.fault} | {row.moment} | {row.seconds:.0f} | {survived} |", flush=True)
        total += len(rows)
        lost += [row for row in rows if row.error]
        for error in dict.fromkeys(row.error for row in rows if row.error):
            print(error, file=sys.stderr, flush=True)
        if lost and arguments.keep:
            break
    print(f"survived {total - len(lost)} of {total} (seed {arguments.seed})")
    if not arguments.keep:
        shutil.rmtree(folder)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
