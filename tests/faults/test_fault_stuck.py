"""Pods that were deleted and do not go away: they are named, and counted, and never forced."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from orchestrator.cli.app import main
from orchestrator.cluster.kubernetes import adapter
from orchestrator.sweep.schedule import Limits
from tests.e2e.test_e2e_errors import write_matrix
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.background import BackgroundServer
from tests.faults.calls import Call
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import printing, serving
from tests.faults.server import FaultServer
from tests.faults.statuses import Object
from tests.faults.sweeping import Bench, on_bench

LOW = "The node was low on resource: memory."
FAST = 60.0


def _evicted_with_finalizer(server: FaultServer) -> Script:
    """Evict the first pod and hold it by a finalizer; the others come up and serve."""

    async def script(pod: PodPlay) -> None:
        if pod is not server.kubelet.history[0]:
            await serving(pod)
        server.objects.patch(pod.key, {"metadata": {"finalizers": ["example.com/hold"]}})
        await printing(SIMULATOR_LOG, lambda one: one.fail("Evicted", LOW))(pod)

    return script


def _forced(bench: Bench) -> list[Call]:
    """Return deletions that would free a name while the node may still hold the devices."""
    return [
        call
        for call in bench.server.calls
        if call.method == "DELETE" and "/pods/" in call.path and call.json().get("gracePeriodSeconds") == 0
    ]


@pytest.mark.fault(28, "W")
def test_fault_28_a_finalizer_holds_the_pod(tmp_path: Path) -> None:
    """Tries the point again under a new name when its old pod is held, and names the pod that stays."""

    async def work(bench: Bench) -> None:
        bench.server.kubelet.script = _evicted_with_finalizer(bench.server)
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 1)
        first, second = (play.key[2] for play in bench.server.kubelet.history)
        assert (first[-3:], second[-3:]) == ("-a0", "-a1")
        assert [f"stuck: pod {first} does not go away"] == [
            item.stage for item in bench.progress if item.stage.startswith("stuck: ")
        ]
        assert bench.left_behind == [first]
        assert bench.server.left() == [f"pods/{first}"]
        assert _forced(bench) == []

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(27, "W")
def test_fault_27_a_pod_that_stays_terminating(tmp_path: Path) -> None:
    """Never forces a pod away whose node does not answer: it names the pod, leaves it, and uses a new name."""

    async def work(bench: Bench) -> None:
        async def script(pod: PodPlay) -> None:
            if pod is bench.server.kubelet.history[0]:
                bench.server.kubelet.stuck = True
                pod.run()
                pod.say(SIMULATOR_LOG)
                pod.disrupt("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
                await pod.forever()
            bench.server.kubelet.stuck = False
            await serving(pod)

        bench.server.kubelet.script = script
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 1)
        first, _ = (play.key[2] for play in bench.server.kubelet.history)
        assert any(item.stage == f"stuck: pod {first} does not go away" for item in bench.progress)
        assert _forced(bench) == []

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(27, "W")
@pytest.mark.fault(28, "W")
def test_fault_28_a_pod_that_stays_counts_against_the_limit(tmp_path: Path) -> None:
    """Counts the devices of a pod that stays against --max-gpus, also while the next try of its point runs."""
    limit, most = 2, 0

    async def work(bench: Bench) -> None:
        evicted = _evicted_with_finalizer(bench.server)
        go = asyncio.Event()

        async def script(pod: PodPlay) -> None:
            nonlocal most
            most = max(most, len(bench.server.pods))
            if pod is not bench.server.kubelet.history[0]:
                pod.run()
                pod.say(SIMULATOR_LOG)
                await go.wait()
                await asyncio.sleep(60)  # long enough for another point to be chosen meanwhile
            await evicted(pod)

        async def stuck() -> bool:
            return any(item.stage.startswith("stuck: ") for item in bench.progress)

        bench.server.kubelet.script = script
        sweeping = asyncio.create_task(bench.sweep(Limits(max_gpus=limit)))
        await eventually("a pod stays", stuck, seconds=300)
        go.set()
        results = await sweeping
        assert [result.failure_kind for result in results] == [None] * 4
        assert most == limit

    on_bench(tmp_path, work, points=4, factor=FAST)


def _no_grace(_call: Call, item: Object) -> None:
    if item.get("kind") == "Pod":
        item["spec"]["terminationGracePeriodSeconds"] = 0


@pytest.mark.fault(28, "W")
def test_fault_28_the_command_names_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Tells of the pod that stays on stderr, when it happens and at the end; the exit code is the points' own."""
    monkeypatch.setattr(adapter, "GONE_GRACE_SECONDS", 1.0)
    with BackgroundServer() as background:
        server = background.server
        background.do(lambda: setattr(server.kubelet, "script", _evicted_with_finalizer(server)))
        background.do(lambda: setattr(server.api, "admission", _no_grace))
        kubeconfig, store = str(server.kubeconfig(tmp_path)), str(tmp_path / "kprof.db")
        words = ["kprof", "sweep", write_matrix(tmp_path), "--kubeconfig", kubeconfig, "--store", store]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        name = server.kubelet.history[0].key[2]
    told = capfd.readouterr().err
    assert ended.value.code == 0
    assert f"stuck: pod {name} does not go away" in told
    assert told.count(f"pod {name} was deleted and has not gone yet: look at its node") == 1


@pytest.mark.fault(28, "W")
def test_fault_28_clean_names_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ends `kprof clean` with exit code 4 and the pod's name when what it deleted does not go away."""
    monkeypatch.setattr(adapter, "GONE_GRACE_SECONDS", 1.0)
    with BackgroundServer() as background:
        server = background.server
        background.do(lambda: setattr(server.kubelet, "script", _evicted_with_finalizer(server)))
        background.do(lambda: setattr(server.api, "admission", _no_grace))
        where = ["--kubeconfig", str(server.kubeconfig(tmp_path))]
        sweep = ["sweep", write_matrix(tmp_path), *where, "--store", str(tmp_path / "kprof.db")]
        assert _exit_code(monkeypatch, *sweep) == 0
        name = server.kubelet.history[0].key[2]
        capfd.readouterr()
        assert _exit_code(monkeypatch, "clean", *where, "--format", "json") == 4
        (told,) = capfd.readouterr().out.splitlines()
        assert json.loads(told)["outcome"] == f"removed, but pod {name} has not gone yet: look at its node"
        background.do(lambda: server.objects.remove(("pods", "default", name)))
        assert _exit_code(monkeypatch, "clean", *where) == 0
        assert "nothing of kprof is there" in capfd.readouterr().out


def _exit_code(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["kprof", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
