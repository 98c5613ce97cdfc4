"""Fixtures shared by all tests."""

import copy

import pytest
import torch

from tests.engine.helpers import TINY


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread: the machine may have two cores, and sums must not depend on how many."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    """A sweep file's mapping that trains in well under a second a trial."""
    return copy.deepcopy(TINY)
