"""Faults injected into a running sweep: `python -m tests.faults --seed 0 --count 30`."""
