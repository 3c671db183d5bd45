"""A small part of `make fuzz`, for every test run."""

import random

import pytest

from tests.fuzz.fuzz_vllm_log import check
from tests.fuzz.mutate import corpus, mutated


@pytest.mark.parametrize("seed", range(4))
def test_damaged_logs_raise_nothing_and_do_not_depend_on_chunks(seed: int) -> None:
    """1000 inputs for each seed; `make fuzz` takes a million."""
    logs = corpus()
    for index in range(1000):
        dice = random.Random(f"{seed}:{index}")
        check(mutated(logs, dice), dice)
