"""The pod's name is the lock: what kprof does when it is taken."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.port import SPEC_LABEL
from tests.contract.subject import printing
from tests.faults.calls import Call
from tests.faults.conftest import RUN
from tests.faults.faults import is_create
from tests.faults.objects import Key, now
from tests.faults.server import NAMESPACE, FaultServer
from tests.faults.statuses import Object, already_exists
from tests.faults.sweeping import Bench, on_bench


def _before_the_first(server: FaultServer, act: Callable[[Key, Object], None]) -> None:
    """Do something right before the first pod is stored under its name."""
    done: list[str] = []

    def admission(call: Call, item: Object) -> None:
        if is_create(call) and not done:
            done.append(item["metadata"]["name"])
            act(("pods", NAMESPACE, done[0]), item)

    server.api.admission = admission


@pytest.mark.fault(30, "R")
async def test_fault_30_its_own_pod_is_there(server: FaultServer, cluster: KubernetesCluster, tmp_path: Path) -> None:
    """Takes over a pod of the same run, point, attempt and specification that a killed kprof left."""
    await cluster.open_run(RUN)
    left = await cluster.create(printing(RUN, ""))
    async with KubernetesCluster.connect(str(server.kubeconfig(tmp_path)), None, None) as second:
        await second.open_run(RUN)
        adopted = await second.create(printing(RUN, ""))
    assert adopted.uid == left.uid
    assert len(server.pods) == 1


@pytest.mark.fault(30, "R")
async def test_fault_30_its_own_pod_of_another_specification(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Replaces a pod of the same name whose specification is another: nothing of it was measured yet."""
    await cluster.open_run(RUN)
    left = await cluster.create(printing(RUN, "print('old')"))
    other = printing(RUN, "print('new')")
    labels = {**other.labels, SPEC_LABEL: "another"}
    body = {**other.body, "metadata": {**other.body["metadata"], "labels": labels}}
    made = await cluster.create(replace(other, labels=labels, body=body))
    assert made.uid != left.uid
    assert [pod["metadata"]["uid"] for pod in server.pods] == [made.uid]


@pytest.mark.fault(30, "R")
def test_fault_30_a_pod_that_is_being_deleted(tmp_path: Path) -> None:
    """Waits until a pod of that name that is being deleted is gone, or takes the next name; the point succeeds."""

    async def work(bench: Bench) -> None:
        gone = asyncio.Event()

        async def leave(key: Key) -> None:
            await asyncio.sleep(20)
            bench.server.objects.remove(key)
            gone.set()

        tasks: list[asyncio.Task[None]] = []

        def act(key: Key, item: Object) -> None:
            leaving = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 30}
            changes = {"metadata": item["metadata"] | leaving, "status": {"phase": "Pending"}}
            bench.server.objects.add(key, item | changes)
            tasks.append(asyncio.create_task(leave(key)))
            raise already_exists("pods", key[2], deleting=True)

        _before_the_first(bench.server, act)
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        await gone.wait()
        assert bench.server.left() == []

    on_bench(tmp_path, work)


@pytest.mark.fault(30, "R")
def test_fault_30_a_pod_of_somebody_else(tmp_path: Path) -> None:
    """Leaves somebody else's pod of that name alone, and takes the name of the next attempt."""

    async def work(bench: Bench) -> None:
        def act(key: Key, _item: Object) -> None:
            bench.server.objects.add(key, {"metadata": {"labels": {}}, "spec": {}, "status": {"phase": "Running"}})

        _before_the_first(bench.server, act)
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert len(bench.server.pods) == 1  # theirs

    on_bench(tmp_path, work)
