"""`python -m tests.faults.child SECONDS run ...`: the command with another deadline."""

import sys

from engine import cli, vigil

if __name__ == "__main__":
    vigil.PATIENCE = float(sys.argv.pop(1))
    cli.main()
