"""This machine was suspended: its monotonic clock stood still, and another kprof may drive the run by now."""

import time

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.errors import RunDrivenError
from tests.contract.subject import printing
from tests.faults.calls import Call
from tests.faults.conftest import RUN
from tests.faults.server import NAMESPACE, FaultServer

ELSEWHERE = "another-machine/12345678-4026531836/77/1234/0badcafe"
pytestmark = pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")


def _suspended(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let only the clock go on that counts a sleep."""
    real = time.clock_gettime

    def clock_gettime(clock: int) -> float:
        return real(clock) + (seconds if clock == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", clock_gettime)


def _renews(call: Call) -> bool:
    return call.method == "PUT" and "/leases/" in call.path


@pytest.mark.fault(4, "R")
@pytest.mark.fault(34, "R")
@pytest.mark.parametrize(("seconds", "renewals"), [(0.0, 0), (60.0, 1)])
async def test_fault_04_the_lease_after_a_sleep(
    server: FaultServer, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch, seconds: float, renewals: int
) -> None:
    """Renews its Lease after a sleep of this machine before it creates anything, and asks no more often than that."""
    async with cluster.hold(RUN):
        await cluster.open_run(RUN)
        _suspended(monkeypatch, seconds)
        before = len(server.calls)
        await cluster.create(printing(RUN, ""))
        calls = server.calls[before:]
    assert len([call for call in calls if _renews(call)]) == renewals
    assert (calls[-1].method, calls[-1].path.rpartition("/")[2]) == ("POST", "pods")


@pytest.mark.fault(4, "A")
@pytest.mark.fault(34, "A")
async def test_fault_04_another_kprof_took_over_during_a_sleep(
    server: FaultServer, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creates and deletes nothing when another kprof took the Lease while this machine slept."""

    async def drive() -> None:
        async with cluster.hold(RUN):
            await cluster.open_run(RUN)
            pod = await cluster.create(printing(RUN, ""))
            (lease,) = server.objects.select("leases")
            key = "leases", NAMESPACE, lease["metadata"]["name"]
            server.objects.patch(key, {"spec": {"holderIdentity": ELSEWHERE}})
            _suspended(monkeypatch, 60.0)
            await cluster.delete(pod)

    with pytest.raises(RunDrivenError, match="took over"):
        await drive()
    assert len(server.pods) == 1


@pytest.mark.fault(34, "R")
async def test_fault_34_the_anchor_of_another_kprof(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Deletes the anchor that it knows and no other: one that another kprof made under that name owns its pods."""
    await cluster.open_run(RUN)
    (anchor,) = server.objects.select("configmaps")
    key = "configmaps", NAMESPACE, anchor["metadata"]["name"]
    server.objects.remove(key)
    theirs = server.objects.add(key, {"metadata": {"labels": anchor["metadata"]["labels"]}})
    assert await cluster.close_run(RUN) == []
    assert [item["metadata"]["uid"] for item in server.objects.select("configmaps")] == [theirs["metadata"]["uid"]]


@pytest.mark.fault(34, "R")
async def test_fault_34_its_own_anchor(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Deletes its own anchor, also one that it found."""
    await cluster.open_run(RUN)
    await cluster.open_run(RUN)
    assert await cluster.close_run(RUN) == []
    assert server.left() == []
