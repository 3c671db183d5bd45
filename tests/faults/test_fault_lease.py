"""Two kprofs on one run: the Lease says who drives it."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.errors import RunDrivenError
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.calls import Call
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import serving
from tests.faults.server import NAMESPACE
from tests.faults.statuses import Object
from tests.faults.sweeping import Bench, on_bench

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


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_drives_the_run(tmp_path: Path) -> None:
    """Refuses at once to drive a run whose Lease another machine holds, and creates nothing."""

    async def work(bench: Bench) -> None:
        _taken_before(bench, ELSEWHERE)
        clock = asyncio.get_running_loop().time
        begin = clock()
        with pytest.raises(RunDrivenError, match="another-machine, process 77"):
            await bench.sweep()
        assert clock() - begin < 2 * 5  # two seconds of real time, on a clock five times as fast
        assert bench.server.asked("POST", "/pods") == []
        assert [lease["spec"]["holderIdentity"] for lease in bench.server.objects.select("leases")] == [ELSEWHERE]

    on_bench(tmp_path, work, factor=5)


@pytest.mark.fault(34, "A")
def test_fault_34_another_kprof_takes_over(tmp_path: Path) -> None:
    """Stops within 20 seconds of losing the Lease, creates no pod after it, and leaves the other's Lease alone."""

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        (lease,) = bench.server.objects.select("leases")
        key = ("leases", NAMESPACE, lease["metadata"]["name"])
        bench.server.objects.patch(key, {"spec": {"holderIdentity": ELSEWHERE}})
        taken = clock()
        with pytest.raises(RunDrivenError, match="took over"):
            await sweeping
        assert clock() - taken < 20
        assert [call for call in bench.server.asked("POST", "/pods") if call.seconds > taken] == []
        assert bench.server.objects.get(key)["spec"]["holderIdentity"] == ELSEWHERE

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
