"""The kill loop is part of the cluster suite, and has a limit of its own."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KILLS = int(os.environ.get("KPROF_KILLS", "200"))
SECONDS_EACH = 6  # far more than a kill takes, for machines that do other things too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests; the time that the cluster takes to come up does not count."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(120 + KILLS * SECONDS_EACH, func_only=True))
            item.add_marker(pytest.mark.e2e)
