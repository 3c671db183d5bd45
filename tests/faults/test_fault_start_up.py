"""Start-ups that take long, and start-ups that never end."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.kubelet import PodPlay
from tests.faults.reading import RUNTIME_BYTES
from tests.faults.scripts import be_ready, serving
from tests.faults.sweeping import LIMITS, Bench, on_bench

STALL_SECONDS = 60
DOWNLOAD_SECONDS = 240.0  # long: what this machine itself held up does not count
PARTS = 6
BAR = b"(EngineCore pid=9) Loading safetensors checkpoint shards:  %d%% Completed | 1/9 [00:01<00:00]\n"


@pytest.mark.fault(40, "W")
def test_fault_40_a_download_that_takes_long(tmp_path: Path) -> None:
    """Takes each line of a progress bar for progress: nothing but silence and `startupSeconds` limits a download."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        for part in range(PARTS):
            await asyncio.sleep(DOWNLOAD_SECONDS / PARTS)
            pod.say(BAR % part)
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.document["seconds"]["startup"] > STALL_SECONDS

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"stallSeconds": STALL_SECONDS})


def _without_line_feeds(pod: PodPlay, percent: int) -> None:
    pod.say(b"\rmodel-00001.safetensors: %d%%" % percent + b"#" * RUNTIME_BYTES)


@pytest.mark.fault(40, "W")
def test_fault_40_a_bar_without_line_feeds(tmp_path: Path) -> None:
    """Takes a progress bar that moves for progress, though it never ends its line."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        for percent in range(2 * PARTS):
            _without_line_feeds(pod, percent)
            await asyncio.sleep(DOWNLOAD_SECONDS / (2 * PARTS))
        pod.say(b"\n")
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.document["seconds"]["startup"] > STALL_SECONDS

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"stallSeconds": STALL_SECONDS})


@pytest.mark.fault(41, "P(hang)")
def test_fault_41_a_bar_that_stops(tmp_path: Path) -> None:
    """Records `hang` when a progress bar moves no more, though every new stream sends its unfinished line again."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        _without_line_feeds(pod, 17)
        await pod.forever()

    async def work(bench: Bench) -> None:
        await bench.sweep()
        kind, line = bench.failure()
        assert kind == "hang"
        (silent,) = re.findall(r"no line for (\d+) s", line)
        assert STALL_SECONDS <= int(silent) < 2 * STALL_SECONDS
        assert sum(call.is_log for call in bench.server.calls) > 1

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"stallSeconds": STALL_SECONDS})


@pytest.mark.fault(41, "P(hang)")
def test_fault_41_a_start_up_that_hangs(tmp_path: Path) -> None:
    """Records `hang` with the last line after `stallSeconds` of silence, keeps the log, and frees the devices."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG + BAR % 11)
        await pod.forever()

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        kind, line = bench.failure()
        assert kind == "hang"
        assert "11% Completed" in line
        assert 60 <= result.document["seconds"]["startup"] < 120
        assert BAR % 11 in (bench.store.log(bench.run().id, result.point.hash) or b"")
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"stallSeconds": STALL_SECONDS})


@pytest.mark.fault(41, "P(hang)")
def test_fault_41_a_start_up_that_prints_for_ever(tmp_path: Path) -> None:
    """Records `hang` after `startupSeconds`, however much is printed."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        while True:
            await asyncio.sleep(10)
            pod.say(BAR % 7)

    async def work(bench: Bench) -> None:
        await bench.sweep()
        kind, line = bench.failure()
        assert kind == "hang"
        assert "not ready after" in line
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"startupSeconds": 60})


CREATING = "ContainerCreating"
PLACED_LIMITS = LIMITS | {"queueSeconds": 100, "startupSeconds": 200}


@pytest.mark.fault(16, "W")
@pytest.mark.fault(19, "W")
def test_fault_16_an_image_that_is_pulled_for_long(tmp_path: Path) -> None:
    """Counts the pull of an image against `startupSeconds`: `queueSeconds` limit only the time without a node."""

    async def script(pod: PodPlay) -> None:
        pod.unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
        await asyncio.sleep(PLACED_LIMITS["queueSeconds"] - 30)
        pod.schedule()
        pod.wait(CREATING)
        await asyncio.sleep(PLACED_LIMITS["startupSeconds"] - 30)
        await serving(pod)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert (result.failure_kind, result.attempt) == (None, 0)

    on_bench(tmp_path, work, script=script, timeouts=PLACED_LIMITS, factor=100)


@pytest.mark.fault(18, "P(pod.config)")
def test_fault_18_a_container_that_is_created_for_ever(tmp_path: Path) -> None:
    """Records `pod.config` with node and reason when a pod has a node, and no container after `startupSeconds`."""
    limit = PLACED_LIMITS["startupSeconds"]

    async def script(pod: PodPlay) -> None:
        pod.schedule()
        pod.wait(CREATING)
        await pod.forever()

    async def work(bench: Bench) -> None:
        (stuck,) = await bench.sweep()
        kind, line = bench.failure()
        assert kind == "pod.config"
        assert CREATING in line
        assert "node-1" in line
        assert f"see kubectl -n default describe pod {bench.server.kubelet.history[0].key[2]}" in line
        # By the point's own clock, which does not count a stall of this machine.
        assert limit <= stuck.document["seconds"]["queued"] < limit + 60
        bench.server.kubelet.script = serving
        (result,) = await bench.sweep()
        assert result.failure_kind is None

    on_bench(tmp_path, work, script=script, timeouts=PLACED_LIMITS, factor=100)
