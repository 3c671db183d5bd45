"""Two kprofs on one run: the Lease says who drives it."""

import asyncio
import datetime
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes.lease import LEASE_SECONDS, RENEW_SECONDS
from orchestrator.errors import RunDrivenError
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults import objects
from tests.faults.calls import Call
from tests.faults.faults import is_create, refusal
from tests.faults.kubelet import PodPlay
from tests.faults.objects import Key
from tests.faults.scripts import serving
from tests.faults.server import NAMESPACE
from tests.faults.statuses import Object
from tests.faults.sweeping import Bench, on_bench

DEAD_RUN = "deadbeef"
ELSEWHERE = "another-machine/12345678-4026531836/77/1234/0badcafe"


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


def _taken_before(bench: Bench, holder: str) -> None:
    """Let somebody else create the Lease right before kprof does."""

    def admission(call: Call, item: Object) -> None:
        if call.path.endswith("/leases") and not call.is_dry and not bench.server.objects.select("leases"):
            lease = item | {"spec": item["spec"] | {"holderIdentity": holder}}
            bench.server.objects.add(("leases", NAMESPACE, item["metadata"]["name"]), lease)

    bench.server.api.admission = admission


def _changes_of_pods(bench: Bench) -> list[Call]:
    """Return every creation and deletion of a pod that was asked for."""
    made = bench.server.asked("POST", "/pods")
    return [*made, *(call for call in bench.server.calls if call.method == "DELETE" and "/pods/" in call.path)]


def _renewals(bench: Bench) -> list[Call]:
    return [call for call in bench.server.calls if call.method == "PUT" and "/leases/" in call.path]


def _key_of_lease(bench: Bench) -> Key:
    (lease,) = bench.server.objects.select("leases")
    return "leases", NAMESPACE, lease["metadata"]["name"]


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_drives_the_run(tmp_path: Path) -> None:
    """Refuses at once to drive a run whose Lease another machine holds, and creates nothing."""

    async def work(bench: Bench) -> None:
        _taken_before(bench, ELSEWHERE)
        clock = asyncio.get_running_loop().time
        begin = clock()
        with pytest.raises(RunDrivenError, match="another-machine, process 77"):
            await bench.sweep()
        assert clock() - begin < LEASE_SECONDS, "it waited for the other one's Lease to run out"
        assert bench.server.asked("POST", "/pods") == []
        assert [lease["spec"]["holderIdentity"] for lease in bench.server.objects.select("leases")] == [ELSEWHERE]

    on_bench(tmp_path, work, factor=1)


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_takes_over(tmp_path: Path) -> None:
    """Stops within 20 seconds of losing the Lease, changes no pod after it, and leaves the other's Lease alone."""

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        key = _key_of_lease(bench)
        bench.server.objects.patch(key, {"spec": {"holderIdentity": ELSEWHERE}})
        taken = clock()
        with pytest.raises(RunDrivenError, match="took over"):
            await sweeping
        assert clock() - taken < 20
        assert [call for call in _changes_of_pods(bench) if call.seconds > taken] == []
        assert bench.server.objects.get(key)["spec"]["holderIdentity"] == ELSEWHERE

    on_bench(tmp_path, work, script=_loading, factor=4)


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_takes_over_while_a_pod_is_asked_for(tmp_path: Path) -> None:
    """Asks for the pod no more once the run is another's, though its request was only to be repeated."""

    async def work(bench: Bench) -> None:
        refused = refusal(500, "InternalError", "etcdserver: request timed out", where=is_create)
        with bench.server.faults.during(refused):
            sweeping = asyncio.create_task(bench.sweep())

            async def asked() -> bool:
                return refused.met > 0

            await eventually("a pod is asked for", asked)
            bench.server.objects.patch(_key_of_lease(bench), {"spec": {"holderIdentity": ELSEWHERE}})
            await asyncio.sleep(3 * RENEW_SECONDS)
        await asyncio.sleep(60)
        assert bench.server.pods == []
        with pytest.raises(RunDrivenError, match="took over"):
            await sweeping

    on_bench(tmp_path, work, script=_loading, factor=10)


@pytest.mark.fault(34, "R")
def test_fault_34_a_lease_that_nobody_renews(tmp_path: Path) -> None:
    """Takes over a Lease that was not renewed for longer than it lasts, and measures the point."""

    async def work(bench: Bench) -> None:
        _taken_before(bench, ELSEWHERE)
        stamp = "2020-01-01T00:00:00Z"
        old = bench.server.api.admission

        def admission(call: Call, item: Object) -> None:
            old(call, item)
            for lease in bench.server.objects.select("leases"):
                if lease["spec"]["holderIdentity"] == ELSEWHERE:
                    lease["metadata"] |= {"creationTimestamp": stamp, "managedFields": [{"time": stamp}]}

        bench.server.api.admission = admission
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=serving)


@pytest.mark.fault(34, "R")
def test_fault_34_an_outage_longer_than_the_lease(tmp_path: Path) -> None:
    """Renews its Lease after an outage before it deletes anything: another kprof could drive the run by then."""

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        await bench.server.down()
        bench.server.kubelet.history[0].fail("Evicted", "The node was low on resource: memory.")
        bench.server.kubelet.script = serving
        await asyncio.sleep(4 * LEASE_SECONDS)
        before = len(bench.server.calls)
        await bench.server.up()
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 1)
        after = bench.server.calls[before:]
        renewed = next(number for number, call in enumerate(after) if call in _renewals(bench))
        changed = next(number for number, call in enumerate(after) if call in _changes_of_pods(bench))
        assert renewed < changed

    on_bench(tmp_path, work, script=_loading, factor=20)


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_takes_over_during_an_outage(tmp_path: Path) -> None:
    """Deletes and creates nothing when it finds after an outage that another kprof drives the run, not even its own."""

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        await bench.server.down()
        bench.server.objects.patch(_key_of_lease(bench), {"spec": {"holderIdentity": ELSEWHERE}})
        bench.server.kubelet.history[0].fail("Evicted", "The node was low on resource: memory.")
        await asyncio.sleep(4 * LEASE_SECONDS)
        before = len(bench.server.calls)
        await bench.server.up()
        with pytest.raises(RunDrivenError, match="took over"):
            await sweeping
        assert [call for call in bench.server.calls[before:] if call in _changes_of_pods(bench)] == []
        assert len(bench.server.pods) == 1
        assert bench.server.objects.get(_key_of_lease(bench))["spec"]["holderIdentity"] == ELSEWHERE

    on_bench(tmp_path, work, script=_loading, factor=20)


@pytest.mark.fault(34, "R")
@pytest.mark.parametrize(("minutes", "left"), [(11, 0), (9, 3)])
def test_fault_34_what_a_killed_kprof_left(tmp_path: Path, minutes: int, left: int) -> None:
    """Clears at its start what a kprof left that was killed ten minutes ago; one heard of since may come back."""

    async def work(bench: Bench) -> None:
        there, name = bench.server.objects, f"kp-{DEAD_RUN}"
        labels = {"kprof.io/run": DEAD_RUN, "app.kubernetes.io/managed-by": "kprof"}
        heard = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
        stamp = heard.strftime("%Y-%m-%dT%H:%M:%SZ")
        spec = {"holderIdentity": ELSEWHERE, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": stamp}
        lease = there.add(("leases", NAMESPACE, name), {"metadata": {"labels": labels}, "spec": spec})
        lease["metadata"] |= {"creationTimestamp": stamp, "managedFields": [{"time": stamp}]}
        there.add(("configmaps", NAMESPACE, name), {"metadata": {"labels": labels}})
        pod = {"metadata": {"labels": labels}, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}
        there.add(("pods", NAMESPACE, f"{name}-0123456789-a0"), pod)
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert len(bench.server.left()) == left

    on_bench(tmp_path, work, script=serving)


@pytest.mark.fault(31, "A")
@pytest.mark.parametrize("hours", [-1, 1])
def test_fault_31_a_lease_is_judged_by_the_clock_that_stamped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Leaves a run alone whose Lease is fresh by the API server's clock, however far this machine's clock is off."""

    def server_clock() -> str:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")

    monkeypatch.setattr(objects, "now", server_clock)

    async def work(bench: Bench) -> None:
        _taken_before(bench, ELSEWHERE)
        with pytest.raises(RunDrivenError, match="another-machine, process 77"):
            await bench.sweep()
        assert _changes_of_pods(bench) == []

    on_bench(tmp_path, work, factor=5)
