"""Fixtures shared by all tests."""

import copy

import pytest
import torch

from tests.engine.helpers import TINY


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread: the machine may have two cores, and sums must not depend on how many."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Images prepared by tests go to a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFPHASE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny():
    """A sweep file's mapping that trains in well under a second a trial."""
    return copy.deepcopy(TINY)
