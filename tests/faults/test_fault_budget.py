"""--max-gpus holds for the devices that pods still have, whatever became of their points."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError
from orchestrator.sweep.schedule import Limits
from tests.e2e.waiting import eventually
from tests.faults.kueue import QUEUE, Kueue
from tests.faults.server import NAMESPACE
from tests.faults.sweeping import LIMITS, Bench, on_bench

LONG_SECONDS = 150.0
FAST = 100.0


def _stuck(bench: Bench) -> list[str]:
    return [item.stage for item in bench.progress if item.stage.startswith("stuck: ")]


@pytest.mark.fault(27, "W")
@pytest.mark.fault(28, "W")
@pytest.mark.parametrize("queue", [None, QUEUE], ids=["pods", "jobs"])
def test_fault_27_pods_that_stay_hold_all_devices_of_the_limit(tmp_path: Path, queue: str | None) -> None:
    """Makes no pod beyond --max-gpus while pods that stay hold all of it: it waits, and goes on when they are gone."""

    async def work(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            if queue is not None:
                await stack.enter_async_context(Kueue(bench.server).admitting())
            bench.server.kubelet.stuck = True
            sweeping = asyncio.create_task(bench.sweep(Limits(max_gpus=1)))

            async def stays() -> bool:
                return bool(_stuck(bench))

            await eventually("a pod stays", stays, seconds=LONG_SECONDS)
            await asyncio.sleep(LONG_SECONDS)
            assert not sweeping.done()
            assert len(bench.server.kubelet.history) == 1
            bench.server.kubelet.stuck = False
            bench.server.api.change(("pods", NAMESPACE, bench.server.pods[0]["metadata"]["name"]), {})
            results = await sweeping
        assert [result.failure_kind for result in results] == [None, None]
        assert len(bench.server.kubelet.history) == 2
        assert bench.left_behind == []
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=2, queue=queue, factor=FAST)


@pytest.mark.fault(27, "A")
def test_fault_27_a_sweep_that_waits_for_a_pod_to_go_is_told_to_stop(tmp_path: Path) -> None:
    """Ends when it is told to, and names the pod for which it waited."""

    async def work(bench: Bench) -> None:
        bench.server.kubelet.stuck = True
        sweeping = asyncio.create_task(bench.sweep(Limits(max_gpus=1)))

        async def stays() -> bool:
            return bool(_stuck(bench))

        await eventually("a pod stays", stays, seconds=LONG_SECONDS)
        await asyncio.sleep(20)
        assert not sweeping.done()
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        assert bench.left_behind == [bench.server.kubelet.history[0].key[2]]
        assert len(bench.results()) == 1

    on_bench(tmp_path, work, points=2, factor=FAST)


@pytest.mark.fault(27, "A")
def test_fault_27_pods_that_stay_too_long(tmp_path: Path) -> None:
    """Ends the sweep when pods that stay leave no room for `queueSeconds`, and names them."""
    limits = LIMITS | {"queueSeconds": 60}

    async def work(bench: Bench) -> None:
        bench.server.kubelet.stuck = True
        with pytest.raises(ClusterError, match="g1 within --max-gpus 1: pods that do not go away hold it: ") as caught:
            await bench.sweep(Limits(max_gpus=1))
        (stuck,) = bench.server.kubelet.history
        assert stuck.key[2] in caught.value.message
        assert caught.value.remedy == f"look at their nodes: kubectl -n default describe pod {stuck.key[2]}"
        assert [result.failure_kind for result in bench.results()] == [None]

    on_bench(tmp_path, work, points=2, factor=FAST, timeouts=limits)
