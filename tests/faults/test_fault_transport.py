"""Between kprof and the API server: outages, cut answers, old versions. None of it is a verdict on a point."""

import asyncio
import copy
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes import transport
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import ClusterError
from tests.contract.subject import following, printing
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.conftest import RUN
from tests.faults.faults import (
    HTML,
    Answer,
    CutOff,
    Fault,
    Hang,
    is_create,
    on,
    refusal,
    too_many_requests,
    watch_error,
)
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import be_ready
from tests.faults.server import FaultServer
from tests.faults.statuses import status_bytes
from tests.faults.sweeping import Bench, on_bench

OUTAGE_SECONDS = 60.0
LONG_OUTAGE_SECONDS = 14 * 60.0
EXPIRED = "too old resource version: 1 (1000)"


def _ready_after(go: asyncio.Event) -> Script:
    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    return script


async def _sweep_through_outage(bench: Bench, seconds: float) -> None:
    go = asyncio.Event()
    bench.server.kubelet.script = _ready_after(go)
    sweeping = asyncio.create_task(bench.sweep())
    await bench.until_read()
    await bench.server.down()
    await asyncio.sleep(seconds)
    await bench.server.up(forget=True)
    go.set()
    (result,) = await sweeping
    assert result.failure_kind is None
    assert "the log has gaps" not in result.document["flags"]
    assert len(bench.server.asked("POST", "/pods")) == 1
    assert bench.server.left() == []


@pytest.mark.fault(1, "R")
def test_fault_01_an_api_server_restarts(tmp_path: Path) -> None:
    """Goes on where it was: the watch lists anew, the log is resumed, and the point keeps its pod and its result."""

    async def work(bench: Bench) -> None:
        await _sweep_through_outage(bench, OUTAGE_SECONDS)
        assert sum(call.is_list for call in bench.server.calls) >= 2

    on_bench(tmp_path, work)


@pytest.mark.fault(1, "R")
@pytest.mark.fault(4, "R")
def test_fault_01_an_api_server_is_away_for_14_minutes(tmp_path: Path) -> None:
    """Fails no point for it, though the point may be silent for no more than 5 minutes."""

    async def work(bench: Bench) -> None:
        await _sweep_through_outage(bench, LONG_OUTAGE_SECONDS)

    on_bench(tmp_path, work, factor=200)


@pytest.mark.fault(2, "R")
def test_fault_02_too_many_requests(tmp_path: Path) -> None:
    """Asks again, and not before the Retry-After that it was told."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(too_many_requests(7, where=on("GET", "/pods/x"), times=2))
        async with bench.cluster() as cluster:
            assert await cluster.get("x") is None
        at = [call.seconds for call in bench.server.asked("GET", "/pods/x")]
        assert len(at) == 3
        assert min(at[1] - at[0], at[2] - at[1]) >= 7

    on_bench(tmp_path, work)


LOST_ANSWERS = {
    "leader-changed": Answer(is_create, 1, 500, status_bytes(500, "InternalError", "etcdserver: leader changed")),
    "timeout": Answer(is_create, 1, 504, status_bytes(504, "Timeout", "etcdserver: request timed out")),
    "unavailable": Answer(is_create, 1, 503, status_bytes(503, "ServiceUnavailable", "apiserver is shutting down")),
    "load-balancer": Answer(is_create, 1, 502, HTML, "text/html"),
    "half-json": Answer(is_create, 1, 201, b'{"kind": "Pod", "metad'),
    "broken-off": CutOff(is_create, 1, after=20, how="abort"),
    "reset": CutOff(is_create, 1, after=20, how="reset"),
}


@pytest.mark.fault(3, "R")
@pytest.mark.parametrize("fault", LOST_ANSWERS.values(), ids=LOST_ANSWERS.keys())
async def test_fault_03_the_answer_to_a_create_is_lost(
    server: FaultServer, cluster: KubernetesCluster, fault: Fault
) -> None:
    """Creates again, finds its own pod under the name, and goes on with it: there is never a second one."""
    fault = server.faults.add(copy.copy(fault))
    if isinstance(fault, Answer):
        fault.done = True  # the pod was made, but nobody learns of it
    await cluster.open_run(RUN)
    pod = await cluster.create(printing(RUN, ""))
    assert fault.met == 1
    assert len(server.asked("POST", "/pods")) == 2
    assert [found["metadata"]["uid"] for found in server.pods] == [pod.uid]


@pytest.mark.fault(3, "R")
@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_fault_03_nothing_was_done(server: FaultServer, cluster: KubernetesCluster, code: int) -> None:
    """Asks again until the API server does it."""
    server.faults.add(refusal(code, "InternalError", "etcdserver: leader changed", where=is_create, times=2))
    await cluster.open_run(RUN)
    pod = await cluster.create(printing(RUN, ""))
    assert [found["metadata"]["uid"] for found in server.pods] == [pod.uid]
    assert len(server.asked("POST", "/pods")) == 3


@pytest.mark.fault(4, "R")
def test_fault_04_a_call_that_is_never_answered(tmp_path: Path) -> None:
    """Gives the call up after half a minute and asks again."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(Hang(on("GET", "/pods/x"), times=1))
        async with bench.cluster() as cluster:
            begin = asyncio.get_running_loop().time()
            assert await cluster.get("x") is None
        _, second = (call.seconds for call in bench.server.asked("GET", "/pods/x"))
        assert 25 <= second - begin <= 60

    on_bench(tmp_path, work, factor=10)


@pytest.mark.fault(4, "R")
def test_fault_04_a_watch_that_stays_silent(tmp_path: Path) -> None:
    """Takes a watch without so much as a bookmark for dead, and opens another one from the version that it knows."""

    async def work(bench: Bench) -> None:
        silent = bench.server.faults.add(Hang(lambda call: call.is_watch, times=1))
        async with bench.cluster() as cluster:
            await cluster.open_run(RUN)
            async with following(cluster, RUN) as follower:
                await follower.until("there is a listing", lambda change: change.listing is not None)
                pod = await cluster.create(printing(RUN, ""))

                async def seen() -> bool:
                    return any(change.pod and change.pod.uid == pod.uid for change in follower.changes)

                await eventually("the pod is seen", seen, seconds=200)
        assert silent.met == 1

    on_bench(tmp_path, work)


@pytest.mark.fault(5, "R")
@pytest.mark.parametrize("how", ["status", "event"])
async def test_fault_05_a_version_is_forgotten(server: FaultServer, cluster: KubernetesCluster, how: str) -> None:
    """Lists anew, told by the answer's status or by an ERROR event, and watches from there."""
    fault: Fault = watch_error(410, "Expired", EXPIRED)
    if how == "status":
        fault = refusal(410, "Expired", EXPIRED, where=lambda call: call.is_watch, times=1)
    server.faults.add(fault)
    await cluster.open_run(RUN)
    async with following(cluster, RUN) as follower:

        async def listed_again() -> bool:
            return sum(change.listing is not None for change in follower.changes) == 2

        await eventually("there is a second listing", listed_again)
        pod = await cluster.create(printing(RUN, ""))
        await follower.until("the watch goes on", lambda change: change.pod is not None and change.pod.uid == pod.uid)
    assert sum(call.is_watch for call in server.calls) == 2


@pytest.mark.fault(6, "R")
async def test_fault_06_a_version_of_the_future(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Drops the version that the server does not have (its etcd was restored), lists anew, and watches from there."""
    await cluster.open_run(RUN)
    async with PodWatch(cluster, RUN) as watch:
        await eventually("the watch is open", lambda: _is(server.streams == 1))
        server.objects.version -= 500
        server.objects.history.clear()
        server.break_connections()
        pod = await cluster.create(printing(RUN, ""))
        await eventually("the pod is seen", lambda: _is(watch.get(pod.uid) is not None), seconds=20)
        await eventually("it watches from there", lambda: _is(_watched_from(server) < 1000))


def _watched_from(server: FaultServer) -> int:
    return min(int(call.query["resourceVersion"]) for call in server.calls if call.is_watch)


async def _is(fact: bool) -> bool:
    return fact


async def test_a_redirect_is_not_followed(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Credentials never go where an answer points."""
    server.faults.add(Answer(on("GET", "/pods/x"), None, 302, b"", "text/html", {"Location": f"{server.url}/trap"}))
    with pytest.raises(ClusterError):
        await cluster.get("x")
    assert server.asked("GET", "/trap") == []


async def test_credentials_that_ran_out_are_renewed_once(
    server: FaultServer, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 401 costs one repeated request; two in a row are a refusal, which is an error when it lasts."""
    monkeypatch.setattr(transport, "REFUSED_SECONDS", 0)
    once = server.faults.add(refusal(401, "Unauthorized", "Unauthorized", where=on("GET", "/pods/x"), times=1))
    assert await cluster.get("x") is None
    assert once.met == 1
    server.faults.add(refusal(401, "Unauthorized", "Unauthorized", where=on("GET", "/pods/y")))
    with pytest.raises(ClusterError, match="Unauthorized"):
        await cluster.get("y")
    assert len(server.asked("GET", "/pods/y")) == 2
