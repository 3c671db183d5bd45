"""Signals: from a node that is drained, from a keyboard, and from a terminal that goes away."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tenacity import wait_random_exponential

from orchestrator.cluster.kubernetes import lease, transport
from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.test_e2e_errors import write_matrix
from tests.e2e.waiting import eventually, wait_until
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.background import BackgroundServer
from tests.faults.faults import Hang, Slow, is_create, too_many_requests
from tests.faults.kubelet import PodPlay
from tests.faults.sweeping import Bench, on_bench

EXIT_SECONDS = 20.0
FACTOR = 5.0


async def _loading(pod: PodPlay) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


@pytest.mark.fault(32, "A")
def test_fault_32_sigterm(tmp_path: Path) -> None:
    """Deletes what it started and ends within 20 seconds; the point has no result and is run by the next command."""
    with BackgroundServer(_loading) as background:
        server = background.server
        kprof = Kprof(tmp_path, server.kubeconfig(tmp_path))
        running = kprof.start("sweep", write_matrix(tmp_path))
        try:
            wait_until("the log is being read", lambda: server.streams >= 2, seconds=30)
            running.signal(signal.SIGTERM)
            outcome = running.outcome(EXIT_SECONDS)
        finally:
            kprof.close()
        assert outcome.code == 130
        assert "interrupted" in outcome.stderr
        assert stored.results(kprof.store) == []
        assert server.left() == []


def _sweep_into(writer: int, kprof: Kprof) -> "subprocess.Popen[bytes]":
    """Start a sweep that writes all it says into a file descriptor."""
    sweep = [sys.executable, "-m", "orchestrator.cli", "sweep", write_matrix(kprof.folder)]
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests under nohup has it ignored
    try:
        return subprocess.Popen(sweep, cwd=kprof.folder, env=kprof.environment(), stdout=writer, stderr=writer)
    finally:
        signal.signal(signal.SIGHUP, ours)
        os.close(writer)


@pytest.mark.fault(32, "A")
@pytest.mark.parametrize(("number", "opened"), [(signal.SIGINT, os.pipe), (signal.SIGHUP, pty.openpty)])
def test_fault_32_nobody_reads_any_more(
    tmp_path: Path, number: signal.Signals, opened: Callable[[], tuple[int, int]]
) -> None:
    """Deletes what it started although what it says cannot be written: Ctrl-C ended `tee`, or the terminal has gone."""
    with BackgroundServer(_loading) as background:
        server = background.server
        kprof = Kprof(tmp_path, server.kubeconfig(tmp_path))
        reader, writer = opened()
        process = _sweep_into(writer, kprof)
        try:
            wait_until("the log is being read", lambda: server.streams >= 2, seconds=30)
            os.close(reader)
            with server.faults.during(Slow(lambda call: call.method == "DELETE", seconds=2.0)):
                process.send_signal(number)
                if number is signal.SIGHUP:
                    wait_until("it deletes", lambda: any(call.method == "DELETE" for call in server.calls), seconds=10)
                    process.send_signal(number)  # by the kernel, after the shell
                assert process.wait(EXIT_SECONDS) == 130
        finally:
            process.kill()
            process.wait()
        assert server.left() == []


@pytest.mark.fault(32, "A")
def test_fault_32_a_second_ctrl_c_that_nobody_reads(tmp_path: Path) -> None:
    """Ends at once at the second one, also when its words cannot be written."""
    with BackgroundServer(_loading) as background:
        server = background.server
        kprof = Kprof(tmp_path, server.kubeconfig(tmp_path))
        reader, writer = os.pipe()
        process = _sweep_into(writer, kprof)
        try:
            wait_until("the log is being read", lambda: server.streams >= 2, seconds=30)
            os.close(reader)
            with server.faults.during(Hang(lambda call: call.method == "DELETE")):
                process.send_signal(signal.SIGINT)
                wait_until("it deletes", lambda: any(call.method == "DELETE" for call in server.calls), seconds=10)
                process.send_signal(signal.SIGINT)
                assert process.wait(10) == 130  # giving up on the call would take 15
        finally:
            process.kill()
            process.wait()


@pytest.mark.fault(32, "A")
def test_fault_32_sigterm_during_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends within 20 seconds also when the API server does not answer; the next command removes what is left."""
    # Retries are timed by another clock than the loop's, so everything that takes its time here is made shorter.
    saved = transport.HURRIED_OUTAGE_SECONDS * (1 - 1 / FACTOR)
    monkeypatch.setattr(transport, "HURRIED_OUTAGE_SECONDS", transport.HURRIED_OUTAGE_SECONDS / FACTOR)
    monkeypatch.setattr(transport, "_BACKOFF", wait_random_exponential(multiplier=0.25 / FACTOR, max=30 / FACTOR))
    monkeypatch.setattr(lease, "RELEASE_SECONDS", lease.RELEASE_SECONDS / FACTOR)

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        await bench.server.down()
        begin = clock()
        bench.connected[0].hurry()  # what the command does when it is told to stop
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await bench.server.up()
        assert clock() - begin <= EXIT_SECONDS - saved

    on_bench(tmp_path, work, script=_loading, factor=1)


@pytest.mark.fault(2, "A")
@pytest.mark.fault(32, "A")
def test_fault_32_sigterm_while_a_call_is_held_off(tmp_path: Path) -> None:
    """Does not sit out the minute that an overloaded API server asked for before it was told to stop."""

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        held_off = bench.server.faults.add(too_many_requests(60, where=is_create))
        sweeping = asyncio.create_task(bench.sweep())

        async def refused() -> bool:
            return held_off.met > 0

        await eventually("the create is held off", refused)
        await asyncio.sleep(0.2)  # the wait has begun
        begin = clock()
        bench.connected[0].hurry()  # what the command does when it is told to stop
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        assert clock() - begin <= EXIT_SECONDS
        assert bench.server.left() == []

    on_bench(tmp_path, work, factor=1)
