"""`python -m engine` is `diffphase`."""

from engine.cli import main

main()
