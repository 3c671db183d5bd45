"""Faults on a real Kubernetes: the bed's own programs are stopped and frozen, its nodes and pods are lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.control import Control
from tests.bed.layout import layout
from tests.bedfaults.command import ShortKprof
from tests.bedfaults.nodes import PretendNode
from tests.e2e.kube import Kube

HERE = Path(__file__).parent
LIMIT_SECONDS = 300
OUTAGE_SECONDS = float(os.environ.get("KPROF_OUTAGE_SECONDS", "300"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests; the time that the cluster takes to come up does not count."""
    for item in items:
        if HERE in item.path.parents:
            longer = OUTAGE_SECONDS if "outage" in item.name else 0
            item.add_marker(pytest.mark.timeout(LIMIT_SECONDS + longer, func_only=True))
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def kprof(kube: Kube, tmp_path: Path) -> Iterator[ShortKprof]:
    """Return a kprof whose kubeconfig is the cluster's, and whose limits can be made shorter."""
    command = ShortKprof(tmp_path, kube.kubeconfig)
    yield command
    command.close()


@pytest.fixture
def control(kube: Kube) -> Control:
    """Return the bed's programs; other clusters do not let a test stop theirs."""
    if kube.kubeconfig != layout().kubeconfig:
        pytest.skip("THIS FAULT NEEDS THE TEST BED: another cluster's programs cannot be stopped")
    return Control()


@pytest.fixture
def node(kube: Kube) -> Iterator[PretendNode]:
    """Return a second node, without a machine behind it."""
    with PretendNode.made(kube) as made:
        yield made
