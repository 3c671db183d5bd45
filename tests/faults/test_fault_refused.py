"""Refusals in the middle of a sweep: whose trouble is it, and how long may it last?"""

import asyncio
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError
from orchestrator.sweep.schedule import Limits
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.calls import Call
from tests.faults.faults import Answer, Hang, Where, is_create, is_dry_run, on, refusal
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import be_ready, serving
from tests.faults.sweeping import LIMITS, Bench, matrix_of, on_bench

FAST = 60.0
REFUSED_SECONDS = 60.0  # how long a refused watch is borne
REASONS = {401: "Unauthorized", 403: "Forbidden"}
KUBELET = "the server has asked for the client to provide credentials ( pods/log kp )"
WATCH = 'pods is forbidden: User "u" cannot watch resource "pods": role.rbac.authorization.k8s.io "kprof" not found'
PROTECTED = 'admission webhook "protect.example.com" denied the request: this pod must not be deleted'


def _watches(call: Call) -> bool:
    return call.is_watch


def _watches_and_lists(call: Call) -> bool:
    return call.is_watch or call.is_list


def _refused(code: int, words: str, where: Where) -> Answer:
    return refusal(code, REASONS[code], words, where=where)


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


@pytest.mark.fault(9, "P(pod.node_lost)")
@pytest.mark.parametrize("code", [401, 403])
def test_fault_09_a_kubelet_that_refuses_one_log(tmp_path: Path, code: int) -> None:
    """Blames one node for a log that its kubelet refuses to hand out, and measures all the other points."""

    async def work(bench: Bench) -> None:
        unlucky = bench.matrix.points[1].hash[:10]
        bench.server.faults.add(_refused(code, KUBELET, lambda call: call.is_log and unlucky in call.path))
        results = await bench.sweep(Limits(max_parallel=4))
        assert [result.failure_kind for result in results] == [None, "pod.node_lost", None, None]
        assert KUBELET in results[1].document["failure"]["line"]
        assert len(bench.server.kubelet.history) == 5  # the node's pod was tried once more
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=4, factor=1.5 * FAST)


@pytest.mark.fault(9, "R")
def test_fault_09_a_kubelet_that_refuses_a_log_for_a_while(tmp_path: Path) -> None:
    """Reads a log whole that was refused for some minutes, and makes no second pod for it."""

    async def work(bench: Bench) -> None:
        refused = _refused(401, KUBELET, lambda call: call.is_log)

        async def again_and_again() -> bool:
            return refused.met > 2

        with bench.server.faults.during(refused):
            sweeping = asyncio.create_task(bench.sweep())
            await eventually("the log is refused again and again", again_and_again)
            await asyncio.sleep(200)
        (result,) = await sweeping
        assert (result.failure_kind, result.attempt) == (None, 0)
        assert "the log has gaps" not in result.document["flags"]

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(23, "W")
@pytest.mark.parametrize(("code", "where"), [(401, _watches_and_lists), (403, _watches)])
def test_fault_23_a_watch_that_is_refused_for_a_moment(tmp_path: Path, code: int, where: Where) -> None:
    """Goes on when the watch is refused for less than a minute, as while a Role is written anew."""
    go = asyncio.Event()

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        refused = _refused(code, WATCH, where)
        with bench.server.faults.during(refused):
            bench.server.break_connections()
            await asyncio.sleep(REFUSED_SECONDS - 20)
            assert not sweeping.done()
        go.set()
        (result,) = await sweeping
        assert refused.met
        assert (result.failure_kind, result.attempt) == (None, 0)
        assert len(bench.server.kubelet.history) == 1

    on_bench(tmp_path, work, script=script, factor=FAST / 6)  # 2 s are left for a machine that is busy


@pytest.mark.fault(23, "A")
@pytest.mark.parametrize(("code", "where"), [(401, _watches_and_lists), (403, _watches)])
def test_fault_23_a_watch_that_stays_refused(tmp_path: Path, code: int, where: Where) -> None:
    """Ends the sweep with the server's words when the watch was refused for a minute, and blames no point."""

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with bench.server.faults.during(_refused(code, WATCH, where)):
            bench.server.break_connections()
            begin = clock()
            with pytest.raises(ClusterError, match='"kprof" not found'):
                await sweeping
        assert REFUSED_SECONDS <= clock() - begin < 5 * REFUSED_SECONDS
        assert bench.results() == []
        assert len(bench.server.kubelet.history) == 1

    on_bench(tmp_path, work, script=_loading, factor=FAST)


@pytest.mark.fault(23, "A")
def test_fault_23_a_watch_that_ends_while_a_server_is_probed(tmp_path: Path) -> None:
    """Does not call a server measured whose pod was not seen any more while it was probed: the point has no result."""

    def health(call: Call) -> bool:
        return "/proxy/health" in call.path

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        waits = bench.server.faults.add(Hang(health))

        async def probed() -> bool:
            return waits.met > 0

        await eventually("the server is probed", probed)
        bench.server.faults.add(_refused(403, WATCH, _watches))
        bench.server.break_connections()
        with pytest.raises(ClusterError, match='"kprof" not found'):
            await sweeping
        assert bench.results() == []
        assert bench.server.left() == []

    on_bench(tmp_path, work, timeouts=LIMITS | {"probeSeconds": 1000}, factor=FAST)


def _no_right(verb: str, resource: str) -> str:
    words = f'User "u" cannot {verb} resource "{resource}" in API group "": role.rbac.authorization.k8s.io "kprof"'
    return f"{resource} is forbidden: {words} not found"


def _of_pod(method: str) -> Where:
    return lambda call: call.method == method and "/pods/kp-" in call.path and call.path.count("/") == 6


CALLS: dict[str, tuple[Where, str]] = {
    "create": (is_create, _no_right("create", "pods")),
    "delete": (_of_pod("DELETE"), _no_right("delete", "pods")),
    "get": (_of_pod("GET"), _no_right("get", "pods")),
    "anchor": (on("POST", "/configmaps"), _no_right("create", "configmaps")),
    "lease": (on("POST", "/leases"), _no_right("create", "leases")),
}


@pytest.mark.fault(1, "R")
@pytest.mark.fault(23, "W")
@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("call", CALLS)
def test_fault_23_a_call_that_is_refused_for_a_moment(tmp_path: Path, call: str, code: int) -> None:
    """Asks again when a call is refused, as by an API server that has just started and does not know the rules yet."""
    where, words = CALLS[call]

    async def work(bench: Bench) -> None:
        refused = bench.server.faults.add(refusal(code, REASONS[code], words, where=where, times=4))
        results = await bench.sweep()
        assert refused.met == 4
        assert [(result.failure_kind, result.attempt) for result in results] == [(None, 0)] * 2
        assert len(bench.server.kubelet.history) == 2
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=2, factor=FAST)


@pytest.mark.fault(23, "A")
@pytest.mark.parametrize("code", [401, 403])
def test_fault_23_a_create_that_stays_refused(tmp_path: Path, code: int) -> None:
    """Ends the sweep with the server's words when pods may not be created for a minute, and blames no point."""
    words = _no_right("create", "pods")

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        bench.server.faults.add(_refused(code, words, is_create))
        begin = clock()
        with pytest.raises(ClusterError, match='"kprof" not found'):
            await bench.sweep()
        assert REFUSED_SECONDS <= clock() - begin < 3 * REFUSED_SECONDS
        assert bench.results() == []
        assert bench.server.left() == []

    on_bench(tmp_path, work, factor=FAST / 2)


@pytest.mark.fault(24, "P(pod.admission)")
@pytest.mark.parametrize("words", ["exceeds the LimitRange", 'admission webhook "w" denied: cannot create resource'])
def test_fault_24_an_admission_that_refuses_is_asked_once(tmp_path: Path, words: str) -> None:
    """Does not ask again where it is no right that lacks: a policy answers the same to the same pod."""

    async def work(bench: Bench) -> None:
        refused = bench.server.faults.add(_refused(403, f'pods "kp" is forbidden: {words}', is_create))
        await bench.sweep()
        assert bench.failure()[0] == "pod.admission"
        assert refused.met == 1

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(23, "A")
@pytest.mark.parametrize("code", [401, 403])
def test_fault_23_a_refusal_from_the_start(tmp_path: Path, code: int) -> None:
    """Says at once what is refused before anything was created: that is no matter of waiting."""

    async def work(bench: Bench) -> None:
        refused = bench.server.faults.add(_refused(code, _no_right("create", "pods"), is_dry_run))
        with pytest.raises(ClusterError, match="cannot create resource"):
            await bench.sweep()
        assert refused.met == (2 if code == 401 else 1)  # credentials are renewed once
        assert bench.server.left() == []

    on_bench(tmp_path, work)


@pytest.mark.fault(24, "R")
def test_fault_24_an_old_pod_that_a_webhook_protects(tmp_path: Path) -> None:
    """Does not let what a webhook keeps of an old run stand in the way of a new one."""

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        (old,) = [pod["metadata"]["name"] for pod in bench.server.pods]

        def its_deletion(call: Call) -> bool:
            return call.method == "DELETE" and call.path.endswith(old)

        with bench.server.faults.during(_refused(403, PROTECTED, its_deletion)):
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            bench.server.kubelet.script = serving
            bench.matrix = matrix_of(2)
            results = await bench.sweep()
            assert [result.failure_kind for result in results] == [None, None]
            assert [pod["metadata"]["name"] for pod in bench.server.pods] == [old]

    on_bench(tmp_path, work, script=_loading, factor=FAST)
