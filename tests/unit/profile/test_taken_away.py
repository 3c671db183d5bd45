"""A container that a kubelet killed may be seen to have ended before the kubelet says why."""

import pytest

from orchestrator.cluster.manifest import render_pod
from orchestrator.cluster.port import Container, Phase
from orchestrator.cluster.watch import PodWatch
from orchestrator.profile.point_run import PointRun
from orchestrator.profile.result import PointFailure, Source
from tests.fakes.cluster import NO_ROOM_LOG, FakeCluster, later, log, running, state
from tests.fakes.matrix import point

pytestmark = pytest.mark.looptime
PEER_GONE = (
    b"(Worker_TP0 pid=9) ERROR 01-01 00:00:03 [x.py:1] torch.distributed.DistBackendError: NCCL error in: "
    b"ProcessGroupNCCL.cpp:3356, remote process exited or there was a network error, NCCL version 2.27.3\n"
)


async def _failure(last_words: bytes, **told: str) -> PointFailure:
    of = point()
    killed = state(container=Container("terminated", "Error", exit_code=1))
    late = later(0.05, state(phase=Phase.FAILED, **told))
    cluster = FakeCluster({of.hash: [running(), log(last_words), later(1.05, killed), late]})
    async with PodWatch(cluster, "0fault00") as watch:
        run = PointRun(cluster, watch, of, render_pod(of, "0fault00", 0), Source.MEASURED, 0)
        result = await run.run(lambda _pod: None, lambda _stage: None, lambda _result, _log: None)
    assert result.failure is not None
    return result.failure


@pytest.mark.parametrize(
    ("reason", "kind"), [("Evicted", "pod.evicted"), ("Terminated", "pod.node_lost"), ("", "comm.failure")]
)
async def test_the_kubelets_word_comes_after_the_end(reason: str, kind: str) -> None:
    """A rank that misses its peer says nothing about the configuration when the kubelet killed both."""
    assert (await _failure(PEER_GONE, reason=reason, message="the kubelet's words")).kind == kind


async def test_a_cause_in_the_log_stays_the_cause() -> None:
    """The engine had failed before its pod was taken away."""
    assert (await _failure(NO_ROOM_LOG, reason="Evicted")).kind == "kv.no_room"
