"""A real Kueue on the test bed, and a queue of two GPUs for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import kueue as real_kueue
from tests.bed.errors import MissingError
from tests.bed.layout import layout
from tests.conftest import _missing
from tests.e2e.kube import Kube
from tests.kueue.queues import Queue, queue

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all as needing the cluster; the time it takes to come up does not count for the first test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(240, func_only=True))
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def kueue(kube: Kube) -> Iterator[Kube]:
    """Return the cluster with a Kueue that works; only the bed can reach a manager on this machine."""
    if kube.kubeconfig != layout().kubeconfig:
        _missing("KUEUE TESTS NOT RUN: they need the test bed, and KUBECONFIG is another cluster")
    try:
        program = real_kueue.program(layout())
    except MissingError as error:
        _missing(f"KUEUE TESTS NOT RUN: no Kueue here: {error}")
    with real_kueue.kueue(kube, program):
        yield kube


@pytest.fixture
def two_gpus(kueue: Kube, namespace: str) -> Iterator[Queue]:
    """Return a queue of two GPUs in this test's namespace."""
    with queue(kueue, namespace, gpus=2) as made:
        yield made
