"""A node that was started anew: its kubelet finds the containers gone and says what it can of their end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import first, printing, serving
from tests.faults.sweeping import Bench, on_bench

NOT_LOCATED = "The container could not be located when the pod was terminated"
ENDS = pytest.mark.parametrize(("code", "reason"), [(255, "Unknown"), (137, "ContainerStatusUnknown")])


def _lost(code: int, reason: str) -> Callable[[PodPlay], None]:
    return lambda pod: pod.exit(code, reason, NOT_LOCATED)


@pytest.mark.fault(10, "R")
@ENDS
def test_fault_10_a_node_is_rebooted(tmp_path: Path, code: int, reason: str) -> None:
    """Runs a point again whose container was gone when its node came back: no exit code was ever seen."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 1)
        assert "the attempt before this one ended in pod.node_lost" in result.document["flags"]
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=first(printing(SIMULATOR_LOG, _lost(code, reason)), serving))


@pytest.mark.fault(10, "P(pod.node_lost)")
@ENDS
def test_fault_10_nodes_are_rebooted_again_and_again(tmp_path: Path, code: int, reason: str) -> None:
    """Records `pod.node_lost` when that happens twice, with the kubelet's reason; the same command tries anew."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        kind, line = bench.failure()
        assert kind == "pod.node_lost"
        assert reason in line
        assert len(bench.server.kubelet.history) == 2
        bench.server.kubelet.script = serving
        (result,) = await bench.sweep()
        assert result.failure_kind is None

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG, _lost(code, reason)))


@pytest.mark.fault(10, "P(kv.no_room)")
def test_fault_10_a_node_is_rebooted_after_the_engine_had_failed(tmp_path: Path) -> None:
    """Keeps to the cause that the log gave before the node went away."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure()[0] == "kv.no_room"
        assert len(bench.server.kubelet.history) == 1

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + NO_ROOM_LOG, _lost(255, "Unknown")))
