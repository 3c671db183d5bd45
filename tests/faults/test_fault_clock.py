"""Nobody is blamed for the time in which nobody looked; a node that gives out no log is judged by another limit."""

import asyncio
import time
from pathlib import Path

import pytest

from orchestrator.profile.point_run import NODE_LOST_SECONDS
from tests.e2e.waiting import eventually
from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.calls import Call
from tests.faults.faults import Fault, refusal
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import be_ready, serving
from tests.faults.sweeping import LIMITS, Bench, on_bench

STALL_SECONDS = LIMITS["stallSeconds"]
FAST = 100.0
SLEEP_FACTOR = 200.0
ASLEEP_SECONDS = 2.0  # on the hurried clock longer than any limit of the point
NO_KUBELET = (
    'Get "https://10.0.0.7:10250/containerLogs/default/kp/vllm?follow=true": '
    "dial tcp 10.0.0.7:10250: connect: connection refused"
)


class _Gate:
    """Pods that load a model until they are let go, and then serve."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def script(self, pod: PodPlay) -> None:
        """Be such a pod."""
        pod.run()
        pod.say(SIMULATOR_LOG)
        await self.go.wait()
        be_ready(pod)
        await pod.forever()


def _no_kubelet(*pods: str, times: int | None = None) -> Fault:
    """Refuse the logs as the API server does for a node that it cannot reach; of all pods, or of those named."""

    def where(call: Call) -> bool:
        return call.is_log and (not pods or call.path.split("/")[-2] in pods)

    return refusal(500, "InternalError", NO_KUBELET, where=where, times=times)


@pytest.mark.fault(4, "R")
def test_fault_04_kprof_sleeps(tmp_path: Path) -> None:
    """Blames no point for the time in which kprof itself did not run, however long, and says how long that was."""
    gate = _Gate()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        await asyncio.sleep(10)  # every limit has begun to run
        time.sleep(ASLEEP_SECONDS)  # noqa: ASYNC251 - nothing of this process may run, as in a sleeping machine
        await asyncio.sleep(10)
        assert not sweeping.done()
        gate.go.set()
        (result,) = await sweeping
        assert result.failure_kind is None
        assert [flag for flag in result.document["flags"] if "which no duration counts" in flag]
        assert result.document["seconds"]["startup"] < STALL_SECONDS
        assert len(bench.server.asked("POST", "/pods")) == 1

    on_bench(tmp_path, work, script=gate.script, factor=SLEEP_FACTOR)


@pytest.mark.fault(9, "W")
def test_fault_09_a_kubelet_that_comes_back(tmp_path: Path) -> None:
    """Waits longer than the point may be silent for a log that its node does not give out, and reads it to its end."""
    waits = (STALL_SECONDS + NODE_LOST_SECONDS) / 4  # of each of two outages: one alone would not be too long

    async def script(pod: PodPlay) -> None:
        pod.run()
        await asyncio.sleep(2 * waits)
        await serving(pod)

    async def work(bench: Bench) -> None:
        no_kubelet = _no_kubelet()
        sweeping = asyncio.create_task(bench.sweep())
        with bench.server.faults.during(no_kubelet):
            await asyncio.sleep(waits)
        refused = sum(call.is_log for call in bench.server.calls)

        async def read_again() -> bool:
            return sum(call.is_log for call in bench.server.calls) > refused

        await eventually("the log is read again", read_again, seconds=60)
        await asyncio.sleep(10)  # what the server sends has come
        with bench.server.faults.during(no_kubelet):
            bench.server.break_connections()
            await asyncio.sleep(waits)
        (result,) = await sweeping
        assert no_kubelet.met > 2
        assert result.failure_kind is None
        assert result.attempt == 0
        assert len(bench.server.kubelet.history) == 1

    on_bench(tmp_path, work, script=script, factor=FAST)


@pytest.mark.fault(9, "P(pod.node_lost)")
@pytest.mark.fault(10, "P(pod.node_lost)")
def test_fault_09_a_kubelet_that_stays_away(tmp_path: Path) -> None:
    """Gives a pod up whose log was refused for 5 minutes, though its phase is Running, and tries once more."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(_no_kubelet())
        (result,) = await bench.sweep()
        first, second = bench.server.asked("POST", "/pods")
        assert second.seconds - first.seconds >= NODE_LOST_SECONDS
        # By the point's own clock, which does not count a stall of this machine.
        assert NODE_LOST_SECONDS <= result.document["seconds"]["startup"] < NODE_LOST_SECONDS + 60
        kind, line = bench.failure()
        assert kind == "pod.node_lost"
        assert "node node-1 gave out no log for" in line
        assert "dial tcp" in line
        assert bench.server.left() == []

    on_bench(tmp_path, work, factor=FAST)


def _dying(gate: _Gate) -> Script:
    """Load a model until let go, and then find no room for the KV cache."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await gate.go.wait()
        pod.say(NO_ROOM_LOG)
        pod.exit(1)
        await pod.forever()

    return script


@pytest.mark.fault(9, "P(kv.no_room)")
def test_fault_09_a_kubelet_that_keeps_the_last_lines_back(tmp_path: Path) -> None:
    """Waits for the last lines of a container that ended while its log is refused, since they hold the cause."""
    gate = _Gate()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with bench.server.faults.during(_no_kubelet()):
            bench.server.break_connections()
            await asyncio.sleep(10)
            gate.go.set()
            await asyncio.sleep(NODE_LOST_SECONDS * 2 / 3)
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == ("kv.no_room", 0)
        assert "the log has gaps" not in result.document["flags"]

    on_bench(tmp_path, work, script=_dying(gate), factor=FAST)


@pytest.mark.fault(9, "P(pod.node_lost)")
def test_fault_09_a_kubelet_that_never_gives_out_the_last_lines(tmp_path: Path) -> None:
    """Blames the node, not the configuration, for an end whose last lines nobody could read, and tries once more."""
    gate = _Gate()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        bench.server.faults.add(_no_kubelet())
        bench.server.break_connections()
        await asyncio.sleep(10)
        gate.go.set()
        await sweeping
        first, second = bench.server.asked("POST", "/pods")
        assert second.seconds - first.seconds >= NODE_LOST_SECONDS
        kind, line = bench.failure()
        assert kind == "pod.node_lost"
        assert "gave out no log for" in line
        (result,) = bench.results()
        assert "the log has gaps" in result.document["flags"]

    on_bench(tmp_path, work, script=_dying(gate), factor=FAST)


@pytest.mark.fault(10, "R")
def test_fault_10_another_node_runs_the_point(tmp_path: Path) -> None:
    """Measures the point with a second pod when only the first one's node was lost, and says so in the result."""

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())

        async def created() -> list[PodPlay]:
            return bench.server.kubelet.history

        (first,) = await eventually("a pod was created", created)
        bench.server.faults.add(_no_kubelet(first.key[2]))
        bench.server.break_connections()
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert "the attempt before this one ended in pod.node_lost" in result.document["flags"]

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        if pod.key[2].endswith("-a0"):
            await pod.forever()
        await serving(pod)

    on_bench(tmp_path, work, script=script, factor=FAST)


@pytest.mark.fault(10, "W")
def test_fault_10_an_outage_does_not_count_against_a_node(tmp_path: Path) -> None:
    """Counts only the time in which the API server answered: during an outage it says nothing of the node."""
    away = 400.0

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        bench.server.faults.add(_no_kubelet())
        sweeping = asyncio.create_task(bench.sweep())

        async def refused() -> bool:
            return sum(call.is_log for call in bench.server.calls) >= 3

        await eventually("the log was refused", refused)
        await bench.server.down()
        begin = clock()
        await asyncio.sleep(away)
        await bench.server.up()
        outage = clock() - begin
        await sweeping
        first, second = bench.server.asked("POST", "/pods")
        assert second.seconds - first.seconds - outage >= NODE_LOST_SECONDS - 30
        assert bench.failure()[0] == "pod.node_lost"

    on_bench(tmp_path, work, factor=FAST)
