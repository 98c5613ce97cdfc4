"""Streams: equal arguments give equal numbers in every process, others do not."""

import os
import subprocess
import sys

import pytest
import torch

from trainables.streams import PURPOSES, seed_of, stream

KEY = (0, "a", 0.1, (1, None), True)


def test_a_seed_is_the_same_in_another_process_with_another_hash_seed():
    code = f"from trainables.streams import seed_of; print(seed_of('noise', *{KEY!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(out.stdout) == seed_of("noise", *KEY)


def test_seeds_never_change():
    assert seed_of("batch", 0, 0, 1) == 9163494485690244202


def test_purposes_keys_and_their_order_all_matter():
    seeds = [seed_of(p, *key) for p in PURPOSES for key in ((), (0,), (0, 1), (1, 0), (1.0,))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_float_and_its_hex_text_name_one_stream():
    assert seed_of("probe", 0.1) == seed_of("probe", (0.1).hex())


def test_a_stream_starts_over_every_time():
    first, second = (torch.randn(5, generator=stream("latents", 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_an_unknown_purpose_is_an_error_naming_the_choices():
    with pytest.raises(ValueError, match="Unknown purpose 'lunch': choose from init, batch"):
        seed_of("lunch")


def test_a_key_that_is_neither_text_nor_number_is_an_error():
    with pytest.raises(ValueError, match="text, numbers and lists"):
        seed_of("batch", {"a": 1})
