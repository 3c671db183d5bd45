"""What is free on the nodes is good to know, and no more: a sweep goes on where a large cluster does not tell."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes import adapter
from orchestrator.sweep import budget
from orchestrator.sweep.schedule import Limits
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.calls import Call
from tests.faults.faults import HTML, Answer, Fault, Hang, Slow, refusal
from tests.faults.kubelet import PodPlay, node
from tests.faults.scripts import be_ready, serving
from tests.faults.server import FaultServer
from tests.faults.statuses import Object, status
from tests.faults.sweeping import LIMITS, Bench, on_bench

GPU = "nvidia.com/gpu"
PAGE = 500
TOLD_SECONDS = 60.0  # how often to ask again while nothing of the sweep ends
IN_TIME_SECONDS = 30.0
# A busy machine may stand still for 2 seconds: each factor keeps these within what its tests allow.
UNHURRIED = 5.0  # of 30 s
HURRIED = 10.0  # less than the 30 s that kprof takes for a sleep, and flags
FAST = 20.0  # less than the minute between two questions


def _all_pods(call: Call) -> bool:
    return call.method == "GET" and call.path == "/api/v1/pods"


def _all_nodes(call: Call) -> bool:
    return call.method == "GET" and call.path == "/api/v1/nodes"


def _of_others(server: FaultServer, name: str, gpus: int, on: str = "node-1") -> None:
    limits = {"limits": {GPU: str(gpus)} if gpus else {}}
    spec: Object = {"nodeName": on, "containers": [{"name": "c", "resources": limits}]}
    server.objects.add(("pods", "others", name), {"metadata": {}, "spec": spec, "status": {"phase": "Running"}})


def _hurry_retries(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Hurry what is timed by another clock than the loop's."""
    monkeypatch.setattr(adapter, "DEVICES_SECONDS", adapter.DEVICES_SECONDS / factor)


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


@pytest.mark.fault(42, "R")
def test_fault_42_a_cluster_with_many_pods(tmp_path: Path) -> None:
    """Reads the nodes and pods of a large cluster in pages of 500, and counts what is free over all of them."""

    async def work(bench: Bench) -> None:
        for number in range(2 * PAGE):
            _of_others(bench.server, f"a{number:04}", 0)
        _of_others(bench.server, "on-the-last-page", 3)
        async with bench.cluster() as cluster:
            assert await cluster.free_devices(GPU) == 5
        asked = [call for call in bench.server.calls if _all_pods(call) or _all_nodes(call)]
        assert [call.query.get("limit") for call in asked] == [str(PAGE)] * 4

    on_bench(tmp_path, work, factor=1)


@pytest.mark.fault(10, "R")
@pytest.mark.parametrize("how", ["cordoned", "lost", "deleted"])
def test_fault_10_devices_of_a_node_that_takes_no_pods(tmp_path: Path, how: str) -> None:
    """Holds what runs on a cordoned, lost or deleted node against no other node: what is free there stays free."""
    closed = node("node-2")
    if how == "cordoned":
        closed["spec"]["unschedulable"] = True
    closed["status"]["conditions"][0]["status"] = "Unknown" if how == "lost" else "True"

    async def work(bench: Bench) -> None:
        _of_others(bench.server, "here", 2)
        _of_others(bench.server, "there", 8, on="node-2")
        if how != "deleted":
            bench.server.objects.add(("nodes", "", "node-2"), closed)
        async with bench.cluster() as cluster:
            assert await cluster.free_devices(GPU) == 6

    on_bench(tmp_path, work, factor=1)


SILENT: list[tuple[str, Fault]] = [
    *((str(code), refusal(code, "Reason", "words", where=_all_pods)) for code in (401, 403, 404, 405, 500, 503, 504)),
    (
        "410",
        Answer(lambda call: _all_pods(call) and "continue" in call.query, None, 410, status(410, "Expired", "old")),
    ),
    ("html", Answer(_all_nodes, None, 200, HTML, "text/html")),
    ("slow", Slow(_all_pods, None, 45.0)),
    ("hanging", Hang(_all_nodes)),
]


@pytest.mark.fault(3, "R")
@pytest.mark.fault(4, "R")
@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in SILENT])
def test_fault_03_a_cluster_that_does_not_tell_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Takes no answer about free devices for not knowing, within seconds, and says nothing of an outage."""
    _hurry_retries(monkeypatch, UNHURRIED)

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        for number in range(PAGE + 1):
            _of_others(bench.server, f"a{number:04}", 0)
        bench.server.faults.add(fault)
        async with bench.cluster() as cluster:
            assert await cluster.get("x") is None
            begin = clock()
            assert await cluster.free_devices(GPU) is None
            assert clock() - begin < IN_TIME_SECONDS
            assert cluster.answering
        assert fault.met

    on_bench(tmp_path, work, factor=UNHURRIED)


@pytest.mark.fault(3, "P(hang)")
@pytest.mark.parametrize("fault", [refusal(504, "Timeout", "words", where=_all_pods), Slow(_all_pods, None, 45.0)])
def test_fault_03_limits_run_while_nobody_tells_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Lets the limits of a point run on while only the question for free devices goes without an answer."""
    _hurry_retries(monkeypatch, HURRIED)
    monkeypatch.setattr(budget, "DEVICES_SECONDS", 10.0)  # asked also while the point is silent, which is short here
    stall = 40

    async def script(pod: PodPlay) -> None:
        await (_loading if bench_of[0].server.kubelet.history[0] is pod else serving)(pod)

    bench_of: list[Bench] = []

    async def work(bench: Bench) -> None:
        bench_of.append(bench)
        bench.server.faults.add(fault)
        results = await bench.sweep(Limits(max_parallel=1))
        (silent,) = [result for result in results if result.failure_kind is not None]
        assert silent.failure_kind == "hang"
        assert silent.document["seconds"]["startup"] < stall + 30
        assert [flag for flag in silent.document["flags"] if "did not answer" in flag] == []
        first, second = bench.server.asked("POST", "/pods")
        assert second.seconds - first.seconds < stall + 90

    limits = LIMITS | {"stallSeconds": stall}
    on_bench(tmp_path, work, script=script, points=2, factor=HURRIED, timeouts=limits)


@pytest.mark.fault(2, "R")
def test_fault_02_how_often_a_large_cluster_is_asked_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asks for all pods of a cluster once a minute at most while nothing of the sweep ends, and soon when it does."""
    seconds = 150.0
    monkeypatch.setattr(adapter, "DEVICES_SECONDS", 30.0)  # this machine is slow for a hurried clock

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await asyncio.sleep(seconds)
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        bench.server.objects.patch(("nodes", "", "node-1"), {"status": {"allocatable": {GPU: "1"}}})
        sweeping = asyncio.create_task(bench.sweep())

        async def gone() -> bool:
            return len(bench.server.kubelet.history) == 1 and bench.server.pods == []

        await bench.until_read()
        before = len([call for call in bench.server.calls if _all_pods(call)])
        await asyncio.sleep(seconds - 30)
        meanwhile = len([call for call in bench.server.calls if _all_pods(call)]) - before
        assert 0 < meanwhile <= seconds / TOLD_SECONDS
        # From here on only the end of the first pod makes kprof ask in time, however slow this machine is.
        monkeypatch.setattr(budget, "DEVICES_SECONDS", 10 * TOLD_SECONDS)
        bench.server.kubelet.script = serving
        await eventually("the first pod is gone", gone, seconds=120)
        freed = asyncio.get_running_loop().time()
        results = await sweeping
        assert [result.failure_kind for result in results] == [None, None]
        assert bench.server.asked("POST", "/pods")[1].seconds - freed < 5 * TOLD_SECONDS

    on_bench(tmp_path, work, script=script, points=2, factor=FAST)
