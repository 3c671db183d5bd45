"""What mends itself elsewhere or later is tried again within the sweep, so often and no more."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError
from orchestrator.sweep.schedule import Limits
from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import exiting, printing, serving, starting
from tests.faults.statuses import Object
from tests.faults.sweeping import Bench, on_bench

XID = b"NVRM: Xid (PCI:0000:1b:00): 79, pid=2211, GPU has fallen off the bus.\n"
FAST = 100.0


def _removed_with_its_node() -> Script:
    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        pod.condition("DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists")
        await asyncio.sleep(1)
        pod.vanish()
        await pod.forever()

    return script


def _disrupted(reason: str) -> Script:
    return printing(SIMULATOR_LOG, lambda pod: pod.disrupt(reason, "the cluster's words"))


def _failed(reason: str) -> Script:
    return printing(SIMULATOR_LOG, lambda pod: pod.fail(reason, "the kubelet's words"))


def _refused(reason: str) -> Script:
    return starting(lambda pod: pod.fail(reason, "the kubelet's words"))


CASES = [
    pytest.param(_removed_with_its_node(), "pod.node_lost", 2),
    pytest.param(_failed("Evicted"), "pod.evicted", 3),
    pytest.param(_disrupted("EvictionByEvictionAPI"), "pod.evicted", 3),
    pytest.param(_disrupted("TerminationByKubelet"), "pod.evicted", 3),
    pytest.param(_disrupted("PreemptionByScheduler"), "pod.preempted", 6),
    pytest.param(_refused("OutOfnvidia.com/gpu"), "pod.admission", 3),
    pytest.param(_refused("NodeAffinity"), "pod.admission", 3),
    pytest.param(_refused("NodeShutdown"), "pod.node_lost", 2),
]


@pytest.mark.fault(11, "P(pod.node_lost)")
@pytest.mark.fault(12, "P(pod.evicted)")
@pytest.mark.fault(13, "P(pod.preempted)")
@pytest.mark.fault(44, "P(pod.admission)")
@pytest.mark.parametrize(("script", "kind", "pods"), CASES)
def test_fault_12_how_often_a_point_is_tried(tmp_path: Path, script: Script, kind: str, pods: int) -> None:
    """Tries a point again 5 times after preemption, twice after eviction or a kubelet's no, once after a lost node."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind == kind
        assert result.attempt == pods - 1
        assert f"the attempt before this one ended in {kind}" in result.document["flags"]
        names = [play.key[2] for play in bench.server.kubelet.history]
        assert len(set(names)) == len(names) == pods
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, factor=FAST)


@pytest.mark.fault(11, "R")
@pytest.mark.fault(12, "R")
@pytest.mark.fault(13, "R")
@pytest.mark.fault(44, "R")
@pytest.mark.parametrize(
    ("script", "kind", "times"),
    [
        (_removed_with_its_node(), "pod.node_lost", 1),
        (_failed("Evicted"), "pod.evicted", 2),
        (_disrupted("PreemptionByScheduler"), "pod.preempted", 5),
        (_refused("OutOfnvidia.com/gpu"), "pod.admission", 2),
    ],
)
def test_fault_12_the_last_try_counts(tmp_path: Path, script: Script, kind: str, times: int) -> None:
    """Measures the point as if nothing had been when its last try goes well, and names the trouble in a flag."""
    played: list[str] = []

    async def chosen(pod: PodPlay) -> None:
        played.append(pod.key[2])
        await (script if len(played) <= times else serving)(pod)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, times)
        assert f"the attempt before this one ended in {kind}" in result.document["flags"]
        tried = [item.stage for item in bench.progress if item.stage.endswith("to be tried again")]
        assert tried == [f"{kind}: to be tried again"] * times

    on_bench(tmp_path, work, script=chosen, factor=FAST)


@pytest.mark.fault(12, "R")
def test_fault_12_the_engine_is_not_tried_again(tmp_path: Path) -> None:
    """Takes a failure of the configuration for final, also after a try that the cluster broke."""
    played: list[str] = []
    evicted, no_room = _failed("Evicted"), printing(SIMULATOR_LOG + NO_ROOM_LOG, exiting(1))

    async def script(pod: PodPlay) -> None:
        played.append(pod.key[2])
        await (evicted if len(played) == 1 else no_room)(pod)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == ("kv.no_room", 1)
        assert len(await bench.sweep()) == 1
        assert len(played) == 2

    on_bench(tmp_path, work, script=script, factor=FAST)


def _kept_off(pod: Object) -> list[str]:
    """Return the nodes that a pod is kept off, by their names."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return [
        name
        for term in terms
        for field in term.get("matchFields") or []
        if (field["key"], field["operator"]) == ("metadata.name", "NotIn")
        for name in field["values"]
    ]


@pytest.mark.fault(42, "R")
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (printing(SIMULATOR_LOG + XID, exiting(1)), "gpu.hardware"),
        (_refused("UnexpectedAdmissionError"), "pod.admission"),
    ],
)
def test_fault_42_a_node_whose_gpus_fail(tmp_path: Path, script: Script, kind: str) -> None:
    """Keeps pods off a node after the second failure of its devices: one that fails fast draws all points to it."""
    placed: list[tuple[str, list[str]]] = []

    async def chosen(pod: PodPlay) -> None:
        kept_off = _kept_off(pod.object)
        placed.append((pod.key[2], kept_off))
        await (serving if "node-1" in kept_off else script)(pod)

    async def work(bench: Bench) -> None:
        results = await bench.sweep(Limits(max_parallel=1))
        assert [kept_off for _, kept_off in placed[:3]] == [[], [], ["node-1"]]
        assert all(kept_off == ["node-1"] for _, kept_off in placed[2:])
        failed = [result.failure_kind for result in results if result.failure_kind is not None]
        assert failed == ([kind] if kind == "gpu.hardware" else [])  # both tries of the first point failed so
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=chosen, points=4, factor=FAST)


HUB = (
    b"OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
    b"cached files.\n"
)
PASSING = pytest.mark.parametrize(
    ("log", "kind", "pods"), [(XID, "gpu.hardware", 2), (HUB, "model.unreachable", 1)], ids=["gpu", "hub"]
)


@pytest.mark.fault(40, "P(model.unreachable)")
@pytest.mark.fault(42, "P(gpu.hardware)")
@PASSING
def test_fault_42_what_the_configuration_cannot_help(tmp_path: Path, log: bytes, kind: str, pods: int) -> None:
    """Records a broken device or a hub that is away without taking it for final: the same command tries anew."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure()[0] == kind
        assert len(bench.server.kubelet.history) == pods
        bench.server.kubelet.script = serving
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert len(bench.server.kubelet.history) == pods + 1
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + log, exiting(1)), factor=FAST)


@pytest.mark.fault(40, "A")
@pytest.mark.fault(42, "A")
@PASSING
def test_fault_42_what_every_point_meets(tmp_path: Path, log: bytes, kind: str, pods: int) -> None:
    """Ends the sweep when the first three points met the same broken device or the same hub that is away."""

    async def work(bench: Bench) -> None:
        with pytest.raises(ClusterError, match=f"the first 3 points failed alike: {kind}"):
            await bench.sweep(Limits(max_parallel=1))
        assert [result.failure_kind for result in bench.results()] == [kind] * 3
        assert len(bench.server.kubelet.history) == 3 * pods
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + log, exiting(1)), points=6, factor=FAST)


@pytest.mark.fault(42, "R")
def test_fault_42_a_gpu_that_fails_once(tmp_path: Path) -> None:
    """Tries a point once more when its device failed; the result says so."""
    pods: list[str] = []

    async def script(pod: PodPlay) -> None:
        pods.append(pod.uid)
        await (serving if len(pods) > 1 else printing(SIMULATOR_LOG + XID, exiting(1)))(pod)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert "the attempt before this one ended in gpu.hardware" in result.document["flags"]

    on_bench(tmp_path, work, script=script, factor=FAST)
