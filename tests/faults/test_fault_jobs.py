"""The pod of a Job has a life of its own: it may outlive the Job, and a list may lack it or its Job."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.profile.point_run import NODE_LOST_SECONDS
from tests.e2e.waiting import eventually
from tests.fakes.cluster import READY_LOG, SIMULATOR_LOG
from tests.faults.calls import Call
from tests.faults.faults import Answer, Hang, on
from tests.faults.kubelet import PodPlay
from tests.faults.kueue import QUEUE, Kueue
from tests.faults.scripts import first, serving
from tests.faults.server import NAMESPACE
from tests.faults.statuses import status
from tests.faults.sweeping import Bench, on_bench

FAST = 100.0


async def _until_read(bench: Bench) -> None:
    async def read() -> bool:
        return bench.server.streams >= 3

    await eventually("the watches of Jobs and pods and a log are being read", read)


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


def _let_go(bench: Bench) -> None:
    """Let the nodes end the pods that were deleted."""
    bench.server.kubelet.stuck = False
    for pod in bench.server.pods:
        bench.server.api.change(("pods", NAMESPACE, pod["metadata"]["name"]), {})


@pytest.mark.fault(27, "W")
@pytest.mark.parametrize("answered", [True, False], ids=["answered", "answer-lost"])
def test_fault_27_the_pod_of_a_deleted_job_stays(tmp_path: Path, answered: bool) -> None:
    """Names the pod of a Job that was deleted when the pod itself does not go away, also where the answer was lost."""

    async def work(bench: Bench) -> None:
        kueue = Kueue(bench.server)
        bench.server.kubelet.stuck = True
        if not answered:
            lost = status(504, "Timeout", "request timed out")
            bench.server.faults.add(Answer(lambda c: on("DELETE")(c) and "/jobs/" in c.path, 1, 504, lost, done=True))
        async with kueue.admitting():
            (result,) = await bench.sweep()
        assert kueue.jobs == []
        assert result.failure_kind is None
        (pod,) = bench.server.pods
        (left,) = bench.left_behind
        assert pod["metadata"]["name"].startswith(left)
        assert [item.stage for item in bench.progress if item.stage.startswith(f"stuck: pod {left}")]

    on_bench(tmp_path, work, queue=QUEUE, factor=FAST)


@pytest.mark.fault(27, "W")
def test_fault_27_what_a_killed_kprof_left_of_a_job(tmp_path: Path) -> None:
    """Waits at the end for a pod whose Job is gone already, and names it only when it does not go away."""

    async def work(bench: Bench) -> None:
        async with Kueue(bench.server).admitting(), bench.cluster() as cluster:
            sweeping = asyncio.create_task(bench.sweep())
            await _until_read(bench)
            run = bench.run().id
            sweeping.cancel()
            bench.server.kubelet.stuck = True
            await asyncio.gather(sweeping, return_exceptions=True)
            assert bench.server.objects.select("jobs") == []
            (pod,) = bench.server.pods
            clock = asyncio.get_running_loop().time
            (left,) = await cluster.close_run(run)
            assert pod["metadata"]["name"].startswith(left)
            closing = asyncio.create_task(cluster.close_run(run))
            await asyncio.sleep(20)
            assert not closing.done()
            _let_go(bench)
            went = clock()
            assert await closing == []
            assert clock() - went < 60
            assert bench.server.pods == []

    on_bench(tmp_path, work, queue=QUEUE, script=_loading, factor=FAST / 5)


FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "reached the backoff limit"}


@pytest.mark.fault(1, "R")
@pytest.mark.fault(11, "R")
def test_fault_11_a_node_takes_the_pod_of_a_job_along_unseen(tmp_path: Path) -> None:
    """Takes a Job that failed and has no pod for one whose pod was deleted while the watch was away: it tries again."""

    async def work(bench: Bench) -> None:
        kueue = Kueue(bench.server)
        async with kueue.admitting():
            sweeping = asyncio.create_task(bench.sweep())
            await _until_read(bench)
            with bench.server.faults.during(Hang(lambda call: call.is_watch)):
                bench.server.break_connections()
                await asyncio.sleep(2)
                (job,) = kueue.jobs
                name = job["metadata"]["name"]
                bench.server.api.change(("jobs", NAMESPACE, name), {"status": {"conditions": [FAILED]}})
                bench.server.kubelet.history[0].vanish()
            bench.server.break_connections()
            (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert "the attempt before this one ended in pod.evicted" in result.document["flags"]
        assert bench.server.left() == []

    on_bench(tmp_path, work, queue=QUEUE, script=first(_loading, serving), factor=FAST)


@pytest.mark.fault(1, "R")
@pytest.mark.fault(26, "R")
@pytest.mark.parametrize("probing", [False, True], ids=["starting", "probing"])
def test_fault_26_kueue_takes_a_job_back_unseen(tmp_path: Path, probing: bool) -> None:
    """Gives an attempt up at once whose Job runs another pod than the one it read: it was requeued meanwhile."""

    async def taken(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        if probing:
            pod.say(READY_LOG)  # and answers no request
        await pod.forever()

    async def work(bench: Bench) -> None:
        kueue, clock = Kueue(bench.server), asyncio.get_running_loop().time

        async def gone() -> bool:
            return bench.server.pods == []

        async with kueue.admitting():
            sweeping = asyncio.create_task(bench.sweep())
            await _until_read(bench)
        with bench.server.faults.during(Hang(lambda call: call.is_watch)):
            bench.server.break_connections()
            await asyncio.sleep(1)
            (job,) = kueue.jobs
            kueue.suspend(job)
            await eventually("the pod is gone", gone)
            kueue.admit(job)
            await asyncio.sleep(1)
        assert len(bench.server.kubelet.history) == 2
        begin = clock()
        bench.server.break_connections()
        async with kueue.admitting():
            (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert "the attempt before this one ended in pod.preempted" in result.document["flags"]
        assert clock() - begin < NODE_LOST_SECONDS
        assert bench.server.left() == []

    on_bench(tmp_path, work, queue=QUEUE, script=first(taken, serving), factor=FAST)


@pytest.mark.fault(47, "R")
@pytest.mark.parametrize("resource", ["pods", "jobs"])
def test_fault_47_a_list_of_jobs_or_of_their_pods_is_falsely_empty(tmp_path: Path, resource: str) -> None:
    """Takes no point for evicted because a list lacks its Job or its Job's pod: it asks for them by name first."""
    nothing = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}

    def of_the_run(call: Call) -> bool:
        """Match what a watch begins with, and not the questions for one Job's pod."""
        labels = call.query.get("labelSelector", "")
        return on("GET", f"/{resource}")(call) and labels.startswith("kprof.io/run=")

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await asyncio.sleep(60)
        await serving(pod)

    async def work(bench: Bench) -> None:
        async with Kueue(bench.server).admitting():
            sweeping = asyncio.create_task(bench.sweep())
            await _until_read(bench)
            empty = bench.server.faults.add(Answer(of_the_run, 2, 200, nothing))
            bench.server.objects.forget_history()
            bench.server.break_connections()
            (result,) = await sweeping
        assert empty.met == 2
        assert (result.failure_kind, result.attempt) == (None, 0)
        assert len(bench.server.kubelet.history) == 1
        assert bench.server.left() == []

    on_bench(tmp_path, work, queue=QUEUE, script=script, factor=FAST)
