"""The fault server: in the test's own loop for the adapter, in a thread for kprof as a process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from tests.e2e.command import Kprof
from tests.faults.background import BackgroundServer
from tests.faults.scripts import serving
from tests.faults.server import FaultServer

RUN = "0fault00"


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """Return a server in this test's loop, whose pods come up at once and serve."""
    async with FaultServer(serving) as started:
        yield started


@pytest.fixture
async def cluster(server: FaultServer, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    """Return the adapter on that server."""
    async with KubernetesCluster.connect(str(server.kubeconfig(tmp_path)), None, None) as connected:
        yield connected


@pytest.fixture
def background() -> Iterator[BackgroundServer]:
    """Return a server in a thread, whose pods run the simulator."""
    with BackgroundServer() as running:
        yield running


@pytest.fixture
def kprof(background: BackgroundServer, tmp_path: Path) -> Iterator[Kprof]:
    """Return a kprof whose cluster is the server in the thread."""
    command = Kprof(tmp_path, background.server.kubeconfig(tmp_path))
    yield command
    command.close()
