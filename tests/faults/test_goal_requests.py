"""The goal for the API server: few requests while nothing happens, and few while a watch fails again and again."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.faults import Answer, Fault, refusal, watch_error
from tests.faults.kubelet import GPUS, PodPlay
from tests.faults.reading import JSON_LINES
from tests.faults.sweeping import Bench, on_bench

POINTS = 3 * GPUS  # two thirds of them wait for devices
STEADY_SECONDS = 40.0  # no watch and no log is opened anew before, for all its silence
FAILING_SECONDS = 40.0
WINDOW_SECONDS = 4.0
FAILURES: dict[str, Fault] = {
    "ends-at-once": Answer(lambda call: call.is_watch, None, 200, b"", JSON_LINES),
    "410": refusal(410, "Expired", "too old resource version", where=lambda call: call.is_watch),
    "event-410": watch_error(410, "Expired", "too old resource version", times=None),
    "500": refusal(500, "InternalError", "etcdserver: leader changed", where=lambda call: call.is_watch),
}


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


async def _interrupted(sweep: asyncio.Task[object]) -> None:
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


def test_at_most_5_requests_a_second_while_pods_start(tmp_path: Path) -> None:
    """Hears of pods by its watch, and of lines by its streams: it asks for free devices and renews its Lease."""

    async def work(bench: Bench) -> None:
        async def read() -> bool:
            return bench.server.streams == GPUS + 1

        sweep = asyncio.create_task(bench.sweep())
        await eventually("the watch and every log are being read", read)
        heard = len(bench.server.calls)
        await asyncio.sleep(STEADY_SECONDS)
        calls = bench.server.calls[heard:]
        await _interrupted(sweep)
        assert len(calls) <= 5 * STEADY_SECONDS
        assert {"PUT"} <= {call.method for call in calls} <= {"GET", "PUT"}
        assert not any(call.is_list or call.is_watch or call.is_log for call in calls)

    # Slow: a renewal that this machine holds up is an outage, after which every stream is opened anew.
    on_bench(tmp_path, work, script=_loading, points=POINTS, factor=5)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_at_most_10_requests_in_4_seconds_for_a_watch_that_fails(tmp_path: Path, failure: Fault) -> None:
    """Waits longer each time: the watch is tried again for as long as it fails, and never in a hurry."""

    async def work(bench: Bench) -> None:
        sweep = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with bench.server.faults.during(failure):
            bench.server.break_connections()
            heard = len(bench.server.calls)
            await asyncio.sleep(FAILING_SECONDS)
            calls = bench.server.calls[heard:]
        await _interrupted(sweep)
        times = [call.seconds for call in calls if call.is_watch or call.is_list]
        assert len(times) >= 3
        assert max(sum(at <= other < at + WINDOW_SECONDS for other in times) for at in times) <= 10

    on_bench(tmp_path, work, script=_loading, factor=10)
