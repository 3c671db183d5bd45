"""Logs over connections that break, from nodes that rotate them, and with bytes that no log should have."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from tests.contract.subject import following, printing, read_all, until_finished
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.conftest import RUN
from tests.faults.faults import CutOff, Hang
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import be_ready
from tests.faults.server import FaultServer
from tests.faults.sweeping import LIMITS, Bench, on_bench

MOST_BYTES_OF_A_LINE = 64 << 10
LINES = 400
STAMP_SECONDS = 0.05  # from line to line, so that a log is many seconds long
CUTS = (5, 31, 777, 2_000, 40, 1_500, 1, 900)
TOKEN = "hf_" + "Canary" * 6


def _numbered(unfinished: Callable[[], bool]) -> Script:
    """Print numbered lines that seem to take seconds, slowly while something is unfinished."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        for number in range(LINES):
            pod.say(f"line {number}\n".encode(), seconds=number * STAMP_SECONDS)
            if number % 20 == 19 or (number > LINES // 2 and unfinished()):
                await asyncio.sleep(0.02)
        pod.exit(0)
        await pod.forever()

    return script


def _all_lines() -> bytes:
    return b"".join(f"line {number}\n".encode() for number in range(LINES))


@pytest.mark.fault(7, "R")
@pytest.mark.parametrize("how", ["clean", "abort", "reset"])
async def test_fault_07_a_log_is_cut(server: FaultServer, cluster: KubernetesCluster, how: str) -> None:
    """Resumes a log that ends or breaks in the middle of a line, and gives each line once and in order."""
    cuts = [server.faults.add(CutOff(lambda call: call.is_log, 1, after, how)) for after in CUTS]
    server.kubelet.script = _numbered(lambda: any(not cut.met for cut in cuts))
    await cluster.open_run(RUN)
    pod = await cluster.create(printing(RUN, ""))
    reader = await read_all(cluster, pod)
    assert reader.data == _all_lines()
    assert reader.gaps == 0
    assert [cut.met for cut in cuts] == [1] * len(CUTS)


@pytest.mark.fault(7, "R")
@pytest.mark.parametrize("how", ["clean", "abort"])
async def test_fault_07_the_last_read_is_cut(server: FaultServer, cluster: KubernetesCluster, how: str) -> None:
    """Reads a log that ended once more when its last read breaks, so that the lines that say why are not lost."""
    server.kubelet.script = _numbered(lambda: False)
    last = server.faults.add(CutOff(lambda call: call.is_log and call.query["follow"] == "false", 1, 500, how))
    await cluster.open_run(RUN)
    pod = await until_finished(cluster, await cluster.create(printing(RUN, "")))
    chunks = [chunk async for chunk in cluster.logs(pod, lambda: True)]
    assert last.met == 1
    assert b"".join(chunk.data for chunk in chunks) == _all_lines()


async def _any_log(server: FaultServer) -> bool:
    return any(call.is_log for call in server.calls)


@pytest.mark.fault(8, "R")
def test_fault_08_a_log_is_rotated(tmp_path: Path) -> None:
    """Goes on with what is left of a rotated log, and the result says that the log has gaps."""
    seen = asyncio.Event()

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await seen.wait()
        pod.rotate()
        await asyncio.sleep(60)  # no line of the last second is left
        be_ready(pod)
        await pod.forever()

    async def work(bench: Bench) -> None:
        # The stream breaks with the last line that was read, and the log is rotated before it is resumed.
        bench.server.faults.add(CutOff(lambda call: call.is_log, 1, after=len(SIMULATOR_LOG) + 32, how="abort"))
        sweeping = asyncio.create_task(bench.sweep())
        await eventually("the log is read", lambda: _any_log(bench.server))
        seen.set()
        (result,) = await sweeping
        assert result.failure_kind is None
        assert "the log has gaps" in result.document["flags"]

    on_bench(tmp_path, work, script=script)


@pytest.mark.fault(8, "R")
def test_fault_08_a_log_falls_silent(tmp_path: Path) -> None:
    """Takes up anew a log that has been silent for long, since a node may follow a file that is written no more."""

    async def work(bench: Bench) -> None:
        silent = bench.server.faults.add(Hang(lambda call: call.is_log, times=1))
        (result,) = await bench.sweep()
        assert silent.met == 1
        assert result.failure_kind is None
        assert "the log has gaps" not in result.document["flags"]

    on_bench(tmp_path, work, factor=100, timeouts=LIMITS | {"stallSeconds": 900})


ODD_LINES = (
    b"a NUL \x00 inside",
    b"no UTF-8: \xff\xfe\xf0",
    b"bar 10 %\rbar 20 %\rbar 30 %",
    "next line \u0085, line separator \u2028".encode(),
    b"form feed \x0c and tab \x0b",
    b"",
)


@pytest.mark.fault(37, "R")
async def test_fault_37_odd_bytes_and_a_giant_line(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Ends a line at a line feed and nowhere else, keeps its bytes, and cuts a line of 20 MB to 64 KiB."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(b"x" * 20_000_000 + b"\n" + b"\n".join(ODD_LINES) + b"\n")
        pod.exit(0)
        await pod.forever()

    server.kubelet.script = script
    await cluster.open_run(RUN)
    reader = await read_all(cluster, await cluster.create(printing(RUN, "")))
    giant, *others = [chunk.data for chunk in reader.chunks]
    assert set(giant) == {ord("x"), ord("\n")}
    assert 1 << 10 < len(giant) <= MOST_BYTES_OF_A_LINE
    assert tuple(line.removesuffix(b"\n") for line in others) == ODD_LINES


@pytest.mark.fault(37, "R")
async def test_fault_37_odd_text_in_an_annotation(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Reads a pod whose annotations hold U+0085 and other line ends: events end at a line feed and nowhere else."""
    manifest = printing(RUN, "")
    manifest.body["metadata"]["annotations"] = {"odd": "a\u0085b\u2028c\x1fd" + "y" * 200_000}
    await cluster.open_run(RUN)
    async with following(cluster, RUN) as follower:
        await follower.until("there is a listing", lambda change: change.listing is not None)
        pod = await cluster.create(manifest)
        await follower.until("it runs", lambda change: change.pod is not None and change.pod.started)
        assert {change.pod.uid for change in follower.changes if change.pod} == {pod.uid}
    assert sum(call.is_watch for call in server.calls) == 1


@pytest.mark.fault(38, "R")
def test_fault_38_a_token_in_the_log(tmp_path: Path) -> None:
    """Takes tokens out of the log, of the failure's words and of the result before anything is written."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG + f"login with {TOKEN} and --api-key=sk-{TOKEN[3:]}\n".encode())
        pod.say(f"ERROR 01-01 00:00:03 [x.py:1] ValueError: the token {TOKEN} is refused\n".encode())
        await asyncio.sleep(0.5)
        pod.exit(1)
        await pod.forever()

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is not None
        kept = bench.store.log(bench.run().id, result.point.hash)
        assert kept is not None
        assert b"login with" in kept
        assert b"Canary" not in kept
        assert "Canary" not in str(result.document)

    on_bench(tmp_path, work, script=script)
    assert all(b"Canary" not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.fault(48, "W")
def test_fault_48_the_log_of_a_pod_that_has_not_started(tmp_path: Path) -> None:
    """Asks for no log before the container runs: the API server answers for a waiting pod with an empty log."""
    asked_early: list[int] = []

    async def script(pod: PodPlay) -> None:
        await asyncio.sleep(5)  # not on a node yet: the log would be empty
        pod.schedule()
        pod.wait("ContainerCreating")
        await asyncio.sleep(5)
        asked_early.append(sum(call.is_log for call in servers[0].calls))
        pod.run()
        pod.say(SIMULATOR_LOG)
        be_ready(pod)
        await pod.forever()

    servers: list[FaultServer] = []

    async def work(bench: Bench) -> None:
        servers.append(bench.server)
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert asked_early == [0]
        assert any(call.is_log for call in bench.server.calls)

    on_bench(tmp_path, work, script=script)
