"""Pods that are there already: one that holds a result which could not be written, one that a killed kprof left."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import KprofError
from orchestrator.profile.point_run import UnsavedResultError
from orchestrator.store import Store
from orchestrator.sweep.schedule import Limits
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.faults import on, refusal
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import be_ready
from tests.faults.sweeping import LIMITS, Bench, matrix_of, on_bench

FAST = 100.0
MEANWHILE_SECONDS = 200.0


@contextmanager
def _full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no result be written."""

    def no_room(*_arguments: object, **_options: object) -> None:
        raise KprofError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "record", no_room)
        yield


async def _unsaved(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sweep the first point without being able to write its result; return the pod that stays."""
    with _full(monkeypatch), pytest.raises(UnsavedResultError, match="g0: database or disk is full"):
        await bench.sweep(only=bench.matrix.points[:1])
    (pod,) = bench.server.pods
    return str(pod["metadata"]["name"])


async def _read_again(bench: Bench, pod: str, run: str) -> None:
    """Let the same command run once more: it reads that pod, and leaves nothing."""
    made = len(bench.server.kubelet.history)
    await bench.sweep(only=bench.matrix.points[:1])
    first = next(result for result in bench.store.results(run) if result.point.id == bench.matrix.points[0].id)
    assert (first.failure_kind, first.document["pod"]) == (None, pod)
    assert len(bench.server.kubelet.history) == made
    assert bench.server.left() == []


@pytest.mark.fault(35, "A")
def test_fault_35_an_unsaved_result_and_a_sweep_of_another_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves the pod of a result that could not be written to the command that reads it, also in other sweeps."""

    async def work(bench: Bench) -> None:
        pod, run, own = await _unsaved(bench, monkeypatch), bench.run().id, bench.matrix
        bench.matrix = matrix_of(2)
        results = await bench.sweep()
        assert [result.failure_kind for result in results] == [None, None]
        assert [left["metadata"]["name"] for left in bench.server.pods] == [pod]
        bench.matrix = own
        await _read_again(bench, pod, run)

    on_bench(tmp_path, work, factor=FAST)


async def _killed(bench: Bench, pods: int = 1) -> None:
    """End a sweep so that its pods stay, as SIGKILL does."""
    sweeping = asyncio.create_task(bench.sweep())

    async def read() -> bool:
        return bench.server.streams > pods

    await eventually("the watch and the logs are being read", read)
    with bench.server.faults.during(refusal(403, "Forbidden", "not now", where=on("DELETE"))):
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    for lease in bench.server.objects.select("leases"):
        bench.server.objects.remove(("leases", "default", lease["metadata"]["name"]))
    assert len(bench.server.pods) == pods


def _devices(bench: Bench, count: int) -> None:
    """Give the only node so many devices."""
    bench.server.objects.patch(("nodes", "", "node-1"), {"status": {"allocatable": {"nvidia.com/gpu": str(count)}}})


@pytest.mark.fault(33, "R")
def test_fault_33_durations_of_a_pod_that_was_taken_over(tmp_path: Path) -> None:
    """Tells no duration of a pod that ran while no kprof looked, and says so: the figures of its log hold."""
    go = asyncio.Event()

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        await _killed(bench)
        await asyncio.sleep(MEANWHILE_SECONDS)
        go.set()
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 0)
        assert len(bench.server.kubelet.history) == 1
        assert {"queued", "startup", "total"} & set(result.document["seconds"]) == set()
        assert result.document["adopted"] is True
        assert result.document["start_up"]["facts"]["kv_cache_tokens"] == 184_704
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, factor=FAST)


@pytest.mark.fault(33, "R")
def test_fault_33_durations_of_the_pods_beside_it(tmp_path: Path) -> None:
    """Tells the durations of every other pod of the same run, and takes none of these for taken over."""
    go = asyncio.Event()

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        _devices(bench, 1)
        await _killed(bench)
        go.set()
        results = await bench.sweep()
        taken = bench.server.kubelet.history[0].key[2]
        assert len(bench.server.kubelet.history) == 2
        for result in results:
            known = {"queued", "startup", "total"} <= set(result.document["seconds"])
            told = result.document["adopted"]
            assert (known, told) == ((False, True) if result.document["pod"] == taken else (True, False))

    on_bench(tmp_path, work, script=script, points=2, factor=FAST)


@pytest.mark.fault(33, "R")
@pytest.mark.fault(45, "R")
def test_fault_45_deadlines_that_passed_while_no_kprof_looked(tmp_path: Path) -> None:
    """Tries points again whose pods ended by their deadline after a kill, and takes none of it for a sign of today."""
    played: list[str] = []

    async def script(pod: PodPlay) -> None:
        played.append(pod.key[2])
        pod.run()
        pod.say(SIMULATOR_LOG)
        if len(played) > 3:
            be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        _devices(bench, 3)
        await _killed(bench, 3)
        for pod in bench.server.kubelet.history:
            pod.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        results = await bench.sweep()
        assert [result.failure_kind for result in results] == [None] * 6
        assert sorted(result.attempt for result in results) == [0, 0, 0, 1, 1, 1]
        ended = "the attempt before this one ended in pod.deadline"
        assert sum(ended in result.document["flags"] for result in results) == 3
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, points=6, factor=FAST)


@pytest.mark.fault(33, "R")
@pytest.mark.parametrize("limits", [Limits(max_gpus=1), Limits(max_parallel=1)], ids=["gpus", "parallel"])
def test_fault_33_limits_that_are_narrower_after_a_kill(tmp_path: Path, limits: Limits) -> None:
    """Takes over no more running pods than the limits given now allow; the points of the others start anew in turn."""
    played: list[PodPlay] = []
    together = 0

    async def script(pod: PodPlay) -> None:
        nonlocal together
        played.append(pod)
        pod.run()
        pod.say(SIMULATOR_LOG)
        together = max(together, sum(play.exists for play in played))
        await asyncio.sleep(60)
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        nonlocal together
        _devices(bench, 4)
        await _killed(bench, 4)
        left, together = {play.uid for play in played}, 0
        results = await bench.sweep(limits)
        assert [(result.failure_kind, result.attempt) for result in results] == [(None, 0)] * 4
        assert together == 1
        assert sum(result.document["adopted"] for result in results) == 1
        assert len({play.uid for play in played} - left) == 3
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, points=4, factor=FAST)


@pytest.mark.fault(33, "R")
def test_fault_33_a_matrix_whose_limits_changed_after_a_kill(tmp_path: Path) -> None:
    """Replaces a pod that differs from what the matrix says now, and tells the new one's durations as its own."""
    go = asyncio.Event()

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        await _killed(bench)
        go.set()
        bench.matrix = matrix_of(1, timeouts=LIMITS | {"startupSeconds": 900})
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 0)
        assert len(bench.server.kubelet.history) == 2
        assert result.document["adopted"] is False
        assert {"queued", "startup", "total"} <= set(result.document["seconds"])
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, factor=FAST)
