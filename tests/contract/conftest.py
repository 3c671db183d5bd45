"""The two adapters, each behind the same fixture."""

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.local import LocalCluster
from tests.contract.subject import Subject
from tests.e2e.kube import Kube

LOCAL_DEVICES = 8


# Bringing the bed up for the first test may take minutes, which are not that test's.
KUBERNETES = pytest.param("kubernetes", marks=[pytest.mark.e2e, pytest.mark.timeout(func_only=True)])


@pytest.fixture(params=["local", KUBERNETES])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """Return an adapter with an open run, which is closed again at the end."""
    run = secrets.token_hex(4)
    stack = AsyncExitStack()
    if request.param == "local":
        simulator = (sys.executable, "-m", "orchestrator.simulator")
        local = LocalCluster(simulator, devices=LOCAL_DEVICES, state=tmp_path / "state")
        python = LocalCluster((sys.executable,), devices=LOCAL_DEVICES, state=tmp_path / "state")
        subject = Subject(local, python, run)
    else:
        kube: Kube = request.getfixturevalue("kube")
        namespace: str = request.getfixturevalue("namespace")
        cluster = await stack.enter_async_context(KubernetesCluster.connect(str(kube.kubeconfig), None, namespace))
        subject = Subject(cluster, cluster, run)
    async with stack:
        await subject.vllm.open_run(run)
        try:
            yield subject
        finally:
            await subject.vllm.close_run(run)
