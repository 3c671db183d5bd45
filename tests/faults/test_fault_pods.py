"""Pods that are taken away, refused by their node, or killed: only their status tells."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.faults import empty_list
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import exiting, first, printing, serving, starting
from tests.faults.sweeping import Bench, on_bench

LOW = "The node was low on resource: memory."


async def _final(bench: Bench, kind: str, *words: str) -> None:
    """Check the only result's failure, and that the same command does not try the point again."""
    await bench.sweep()
    found, line = bench.failure()
    assert found == kind, line
    assert all(word in line for word in words), line
    assert bench.server.left() == []
    made = len(bench.server.asked("POST", "/pods"))
    await bench.sweep()
    assert len(bench.server.asked("POST", "/pods")) == made


async def _passing(bench: Bench, kind: str, *words: str) -> None:
    """Check the only result's failure, and that the same command tries the point again, now with success."""
    await bench.sweep()
    found, line = bench.failure()
    assert found == kind, line
    assert all(word in line for word in words), line
    assert bench.server.left() == []
    bench.server.kubelet.script = serving
    (result,) = await bench.sweep()
    assert result.failure_kind is None
    assert bench.server.left() == []


@pytest.mark.fault(12, "P(pod.evicted)")
def test_fault_12_an_evicted_pod(tmp_path: Path) -> None:
    """Records `pod.evicted` with the kubelet's words when it happens again and again; the same command tries anew."""

    async def work(bench: Bench) -> None:
        await _passing(bench, "pod.evicted", "Evicted", LOW)

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG, lambda pod: pod.fail("Evicted", LOW)))


LAST_WORDS = (
    b"(Worker_TP0 pid=9) ERROR 01-01 00:00:03 [x.py:1] torch.distributed.DistBackendError: NCCL error in: "
    b"ProcessGroupNCCL.cpp:3356, remote process exited or there was a network error, NCCL version 2.27.3\n"
)


@pytest.mark.fault(10, "R")
@pytest.mark.fault(12, "R")
@pytest.mark.fault(13, "R")
@pytest.mark.parametrize(
    ("reason", "kind"), [("Evicted", "pod.evicted"), ("Preempting", "pod.preempted"), ("Terminated", "pod.node_lost")]
)
def test_fault_12_ranks_that_miss_each_other_while_they_are_killed(tmp_path: Path, reason: str, kind: str) -> None:
    """Blames the node for ranks that miss each other while it kills them one by one, and tries the point again."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert f"the attempt before this one ended in {kind}" in result.document["flags"]

    taken = printing(SIMULATOR_LOG + LAST_WORDS, lambda pod: pod.fail(reason, LOW))
    on_bench(tmp_path, work, script=first(taken, serving))


@pytest.mark.fault(43, "P(comm.failure)")
def test_fault_43_ranks_that_miss_each_other_by_themselves(tmp_path: Path) -> None:
    """Records `comm.failure`, which is final, when nobody took the pod away."""

    async def work(bench: Bench) -> None:
        await _final(bench, "comm.failure", "remote process exited")

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + LAST_WORDS, exiting(1)))


@pytest.mark.fault(14, "P(host.oom)")
def test_fault_14_out_of_host_memory(tmp_path: Path) -> None:
    """Records `host.oom`, which is final: the container would go over its limit again."""

    async def work(bench: Bench) -> None:
        await _final(bench, "host.oom", "OOMKilled")

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG, exiting(137, "OOMKilled")))


@pytest.mark.fault(14, "P(engine.died)")
def test_fault_14_killed_by_somebody_else(tmp_path: Path) -> None:
    """Does not take exit code 137 alone for a lack of memory: anybody may send SIGKILL."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure()[0] == "engine.died"

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG, exiting(137, "Error")))


@pytest.mark.fault(44, "P(pod.admission)")
@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("OutOfnvidia.com/gpu", "pod.admission"),
        ("NodeAffinity", "pod.admission"),
        ("UnexpectedAdmissionError", "pod.admission"),
        ("TopologyAffinityError", "pod.admission"),
        ("Terminated", "pod.node_lost"),
        ("NodeShutdown", "pod.node_lost"),
    ],
)
def test_fault_44_a_pod_that_the_kubelet_refuses(tmp_path: Path, reason: str, kind: str) -> None:
    """Blames the kubelet and not the configuration, and the same command tries the point again."""

    async def work(bench: Bench) -> None:
        await _passing(bench, kind, reason, "the kubelet's words")

    on_bench(tmp_path, work, script=starting(lambda pod: pod.fail(reason, "the kubelet's words")))


@pytest.mark.fault(44, "R")
def test_fault_44_a_node_that_shuts_down_once(tmp_path: Path) -> None:
    """Makes a new attempt under a new name within the same sweep."""
    script = first(printing(SIMULATOR_LOG, lambda pod: pod.fail("Terminated", "Pod was terminated")), serving)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.attempt == 1
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script)


@pytest.mark.fault(45, "P(pod.deadline)")
def test_fault_45_the_deadline_of_the_pod(tmp_path: Path) -> None:
    """Records `pod.deadline` when Kubernetes ends a pod that nobody ended in time."""
    words = "Pod was active on the node longer than the specified deadline"

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.deadline", f"DeadlineExceeded: {words}")

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG, lambda pod: pod.fail("DeadlineExceeded", words)))


@pytest.mark.fault(46, "P(kv.no_room)")
def test_fault_46_a_pod_that_is_collected_as_soon_as_it_ended(tmp_path: Path) -> None:
    """Takes the cause from what it read of the log while the pod ran: the pod need not be there any more."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG + NO_ROOM_LOG)
        await asyncio.sleep(2)
        pod.exit(1)
        pod.vanish()
        await pod.forever()

    async def work(bench: Bench) -> None:
        await _final(bench, "kv.no_room", "No available memory for the cache blocks")

    on_bench(tmp_path, work, script=script)


@pytest.mark.fault(47, "R")
def test_fault_47_a_list_that_is_falsely_empty(tmp_path: Path) -> None:
    """Asks for each pod that a list lacks by its name, and keeps those that are there."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await asyncio.sleep(60)
        await serving(pod)

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        empty = bench.server.faults.add(empty_list())
        bench.server.objects.forget_history()
        bench.server.break_connections()
        (result,) = await sweeping
        assert empty.met >= 1
        assert result.failure_kind is None
        assert len(bench.server.asked("POST", "/pods")) == 1

    on_bench(tmp_path, work, script=script)
