"""Failures that the log tells: what the engine says comes before the exit code."""

from pathlib import Path

import pytest

from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import exiting, printing
from tests.faults.sweeping import LIMITS, Bench, on_bench

LOADING = b"(EngineCore pid=9) INFO 01-01 00:00:00 [m.py:1] Starting to load model org/model...\n"
CUDA_OOM = (
    b"(EngineCore pid=9) ERROR 01-01 00:00:03 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to "
    b"allocate 786.00 MiB. GPU 0 has a total capacity of 79.19 GiB of which 552.50 MiB is free. Including "
    b"non-PyTorch memory, this process has 78.64 GiB memory in use. Of the allocated memory 74.91 GiB is allocated "
    b"by PyTorch, and 1.78 GiB is reserved by PyTorch but unallocated.\n"
)
NCCL = (
    b"[rank1]:[E101 00:00:03.1 ProcessGroupNCCL.cpp:632] [Rank 1] Watchdog caught collective operation timeout: "
    b"WorkNCCL(SeqNum=3, OpType=ALLREDUCE, NumelIn=1, Timeout(ms)=600000) ran for 600012 milliseconds.\n"
)


async def _final(bench: Bench, kind: str, words: str) -> None:
    (result,) = await bench.sweep()
    found, line = bench.failure()
    assert found == kind
    assert words in line
    assert bench.store.log(bench.run().id, result.point.hash) is not None
    await bench.sweep()
    assert len(bench.server.asked("POST", "/pods")) == 1
    assert bench.server.left() == []


@pytest.mark.fault(15, "P(oom.load)")
def test_fault_15_out_of_device_memory(tmp_path: Path) -> None:
    """Records the stage at which the device ran out of memory, with its line of the log; the same would come again."""

    async def work(bench: Bench) -> None:
        await _final(bench, "oom.load", "CUDA out of memory")

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + LOADING + CUDA_OOM, exiting(1)))


@pytest.mark.fault(43, "P(comm.failure)")
def test_fault_43_a_collective_that_times_out(tmp_path: Path) -> None:
    """Records `comm.failure` with the watchdog's line, whatever the exit code says."""

    async def work(bench: Bench) -> None:
        await _final(bench, "comm.failure", "Watchdog caught collective operation timeout")

    on_bench(tmp_path, work, script=printing(SIMULATOR_LOG + LOADING + NCCL, exiting(134)))


@pytest.mark.fault(43, "P(hang)")
def test_fault_43_a_collective_that_hangs(tmp_path: Path) -> None:
    """Records `hang` with the last line when nothing is printed for `stallSeconds`, and deletes the pod."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG + LOADING)
        await pod.forever()

    async def work(bench: Bench) -> None:
        await _final(bench, "hang", "Starting to load model")

    on_bench(tmp_path, work, script=script, timeouts=LIMITS | {"stallSeconds": 30})
