"""Points in a queue of Kueue: they wait without a clock, and what Kueue takes back is no failure."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.profile.queueing import FITS_NOWHERE_SECONDS
from tests.e2e.waiting import eventually
from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.faults import refusal
from tests.faults.kubelet import PodPlay
from tests.faults.kueue import QUEUE, Kueue
from tests.faults.scripts import exiting, printing
from tests.faults.statuses import Object
from tests.faults.sweeping import LIMITS, Bench, on_bench

FAST = 100.0
WAITING = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 1 more needed"
TOO_MUCH = "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor h100, request > "
NEVER = TOO_MUCH + "maximum capacity (8 > 4)"


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


async def _job(kueue: Kueue, end: str) -> Object:
    """Return the Job of an attempt as soon as it is there."""

    async def there() -> Object | None:
        return next((job for job in kueue.jobs if job["metadata"]["name"].endswith(end)), None)

    return await eventually(f"there is a Job {end}", there)


async def _until_running(bench: Bench) -> None:
    async def running() -> bool:
        return bench.server.streams >= 3  # the watches of Jobs and pods, and a log

    await eventually("the log of a Job's pod is being read", running)


def _on_kueue(folder: Path, work: Any, **options: Any) -> None:
    async def with_kueue(bench: Bench) -> None:
        await work(bench, Kueue(bench.server))
        assert bench.server.left() == []

    on_bench(folder, with_kueue, factor=FAST, queue=QUEUE, **options)


@pytest.mark.fault(26, "W")
def test_fault_26_a_job_that_waits(tmp_path: Path) -> None:
    """Waits in the queue without a clock, says Kueue's words, and measures the point when Kueue admits it."""

    async def work(bench: Bench, kueue: Kueue) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        job = await _job(kueue, "-a0")
        kueue.hold(job, WAITING)
        await asyncio.sleep(LIMITS["queueSeconds"] + 300)
        assert not sweeping.done()
        assert bench.server.pods == []
        kueue.admit(job)
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 0)
        said = [item.stage for item in bench.progress]
        assert [stage for stage in said if stage.endswith(WAITING)] == [
            f"queued: waiting in Kueue's queue {QUEUE}: {WAITING}"
        ]

    _on_kueue(tmp_path, work)


@pytest.mark.fault(26, "R")
def test_fault_26_a_job_that_kueue_takes_back(tmp_path: Path) -> None:
    """Counts no failure when Kueue suspends an admitted Job: the next attempt queues, and says so in its result."""

    async def work(bench: Bench, kueue: Kueue) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        first = await _job(kueue, "-a0")
        kueue.admit(first)
        await _until_running(bench)
        kueue.suspend(first)
        second = await _job(kueue, "-a1")
        assert second["spec"]["suspend"] is True
        bench.server.kubelet.script = printing(SIMULATOR_LOG + NO_ROOM_LOG, exiting(1))
        kueue.admit(second)
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == ("kv.no_room", 1)
        assert "the attempt before this one ended in pod.preempted" in result.document["flags"]

    _on_kueue(tmp_path, work, script=_loading)


@pytest.mark.fault(26, "R")
def test_fault_26_a_pod_of_a_job_that_somebody_deletes(tmp_path: Path) -> None:
    """Tries the point again under a new name when somebody deletes the pod of its Job."""

    async def work(bench: Bench, kueue: Kueue) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        kueue.admit(await _job(kueue, "-a0"))
        await _until_running(bench)
        bench.server.kubelet.history[-1].vanish()
        second = await _job(kueue, "-a1")
        bench.server.kubelet.script = printing(SIMULATOR_LOG + NO_ROOM_LOG, exiting(1))
        kueue.admit(second)
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == ("kv.no_room", 1)
        assert any("the attempt before this one ended in pod." in flag for flag in result.document["flags"])

    _on_kueue(tmp_path, work, script=_loading)


@pytest.mark.fault(26, "P(pod.unschedulable)")
def test_fault_26_a_job_that_no_queue_could_admit(tmp_path: Path) -> None:
    """Gives a Job up after 10 minutes that asks for more than the queue has when it is empty, with Kueue's words."""

    async def work(bench: Bench, kueue: Kueue) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        kueue.hold(await _job(kueue, "-a0"), NEVER)
        (result,) = await sweeping
        # By the point's own clock, which does not count a stall of this machine.
        assert FITS_NOWHERE_SECONDS <= result.document["seconds"]["queued"] < FITS_NOWHERE_SECONDS + 120
        kind, line = bench.failure()
        assert kind == "pod.unschedulable"
        assert NEVER in line

    _on_kueue(tmp_path, work)


@pytest.mark.fault(26, "W")
def test_fault_26_no_right_to_read_workloads(tmp_path: Path) -> None:
    """Says only that the Job waits where it may not read what Kueue says, and measures the point all the same."""

    async def work(bench: Bench, kueue: Kueue) -> None:
        words = 'workloads.kueue.x-k8s.io is forbidden: User "u" cannot list resource "workloads"'
        bench.server.faults.add(refusal(403, "Forbidden", words, where=lambda call: call.path.endswith("/workloads")))
        sweeping = asyncio.create_task(bench.sweep())
        job = await _job(kueue, "-a0")
        kueue.hold(job, NEVER)
        await asyncio.sleep(FITS_NOWHERE_SECONDS + 120)
        assert not sweeping.done()
        kueue.admit(job)
        (result,) = await sweeping
        assert result.failure_kind is None
        queued = {item.stage for item in bench.progress if item.stage.startswith("queued: ")}
        assert queued == {f"queued: waiting in Kueue's queue {QUEUE}"}

    _on_kueue(tmp_path, work)
