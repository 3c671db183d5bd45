"""How soon after a kill another kprof reads the logs of all pods again.

    python benchmarks/adoption.py [--pods 100] [--lines 300] [--latency MS] [--runs 3]

The API server is the one of tests/faults, in a thread of this process; its pods start, print so many lines and stay so.
A `kprof sweep` makes them and is killed; the same command is started again, and timed from the start of its process.
--latency delays each answer, as a cluster that is far away does.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.e2e.command import Kprof, Running
from tests.e2e.waiting import wait_until
from tests.fakes.cluster import SIMULATOR_LOG
from tests.fakes.matrix import document, group
from tests.faults.background import BackgroundServer
from tests.faults.calls import Call
from tests.faults.faults import Slow
from tests.faults.kubelet import PodPlay, Script, node
from tests.faults.server import FaultServer

READ_SECONDS = 100.0
LINE = (
    b"(EngineCore_DP0 pid=83) DEBUG 11-21 03:08:42 [v1/engine/core.py:717] still loading, step %05d of the start-up.\n"
)


def starting_up(lines: int) -> Script:
    """Run, print, and never become ready."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG + b"".join(LINE % number for number in range(lines)))
        await pod.forever()

    return script


def write_matrix(path: Path, pods: int) -> None:
    """Write a matrix of so many points of one device each."""
    points = [group(f"g{number}", arguments={"seed": number}) for number in range(pods)]
    path.write_text(yaml.safe_dump(document(*points), sort_keys=False))


def until_read(server: FaultServer, command: Running, pods: int, heard: int) -> float:
    """Wait until every log was asked for since so many requests; returns when, by the server's clock."""

    def asked() -> float | None:
        assert command.process.poll() is None, command.outcome().stderr
        first: dict[str, float] = {}
        for call in server.calls[heard:]:
            if call.is_log:
                first.setdefault(call.path, call.seconds)
        return max(first.values()) if len(first) == pods else None

    return wait_until("every log is asked for", asked, seconds=READ_SECONDS)


def steps(calls: list[Call], begin: float) -> dict[str, float]:
    """Return when, in seconds since the start of the process, kprof was how far."""
    kinds: dict[str, Callable[[Call], bool]] = {
        "first request": lambda _call: True,
        "pods tried by dry runs": lambda call: call.is_dry and call.path.endswith("/pods"),
        "pods listed": lambda call: call.is_list,
        "first log asked for": lambda call: call.is_log,
        "last log asked for": lambda call: call.is_log,
    }
    times = {name: [call.seconds - begin for call in calls if is_kind(call)] for name, is_kind in kinds.items()}
    return {name: at[0] if name.startswith("first") else at[-1] for name, at in times.items() if at}


def adopt(folder: Path, pods: int, lines: int, latency: float) -> tuple[float, list[Call], float]:
    """Make the pods, kill kprof, and start it again: returns the seconds, what it asked for, and when it began."""
    write_matrix(folder / "matrix.yaml", pods)
    with BackgroundServer(starting_up(lines)) as background:
        server = background.server
        background.do(lambda: server.objects.add(("nodes", "", "node-2"), node("node-2", gpus=pods)))
        kprof = Kprof(folder, server.kubeconfig(folder))
        try:
            sweep = ["sweep", "matrix.yaml"]
            first = kprof.start(*sweep)
            until_read(server, first, pods, 0)
            first.process.kill()
            first.process.wait()
            if latency:
                background.do(lambda: server.faults.add(Slow(seconds=latency)))
            heard, begin = len(server.calls), time.monotonic()  # which is the clock of the server's loop, too
            second = kprof.start(*sweep)
            seconds, calls = until_read(server, second, pods, heard) - begin, server.calls[heard:]
            assert len(server.kubelet.history) == len(server.pods) == pods, "a pod was made twice, or went away"
            return seconds, calls, begin
        finally:
            kprof.close()


def main() -> None:
    """Kill and adopt some times, and print the figures of the best and the worst time."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pods", type=int, default=100)
    options.add_argument("--lines", type=int, default=300)
    options.add_argument("--latency", type=int, default=0, metavar="MS")
    options.add_argument("--runs", type=int, default=3)
    given = options.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{given.pods} pods, {given.lines} lines each, {given.latency} ms more for each answer, {given.runs} runs")
    runs = []
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(adopt(Path(folder), given.pods, given.lines, given.latency / 1000))
    runs.sort(key=lambda run: run[0])
    print(f"{'all logs are read after':<26}{runs[0][0]:6.1f} s, the slowest time {runs[-1][0]:.1f} s")
    for name, at in steps(runs[0][1], runs[0][2]).items():
        print(f"{name:<26}{at:6.1f} s")
    print(f"{'requests':<26}{len(runs[0][1]):6}")


if __name__ == "__main__":
    main()
