"""What an API server hears of a sweep while all is well and while it fails, and how soon after an outage kprof knows.

    python benchmarks/outage.py [--points 100] [--outage 90]

Sweep and API server, the one of tests/faults, share a loop whose clock runs faster. Seconds are of that clock: what
takes processor time counts as often as the clock is faster, and nothing that kprof waits for is left out.
"""

import argparse
import asyncio
import os
import platform
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster.port import POINT_LABEL
from orchestrator.store import StoredResult, open_store
from tests.e2e.waiting import eventually
from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG
from tests.faults.calls import Call, Cut, Exchange
from tests.faults.faults import Answer, Fault, Serve, refusal, watch_error
from tests.faults.kubelet import PodPlay, Script, node
from tests.faults.pace import hurried
from tests.faults.reading import JSON_LINES
from tests.faults.scripts import be_ready
from tests.faults.server import FaultServer
from tests.faults.statuses import Object, forbidden, status_bytes
from tests.faults.sweeping import Bench, matrix_of

DAY = 86400
LIMITS = {"queueSeconds": DAY, "startupSeconds": DAY, "stallSeconds": DAY, "probeSeconds": 30}
WINDOW_SECONDS = 4.0
QUIET_SECONDS = 60.0
SETTLED_SECONDS = 10.0  # a watch that lived so long begins with short pauses again
FAILING_SECONDS = 30.0
FEW_DEVICES = 8
FACTOR = 10.0
OUTAGE_FACTOR = 3.0  # much is done at the end of an outage, and all of it counts so many times
QUOTA = "requests.nvidia.com/gpu"


async def loading(pod: PodPlay) -> None:
    """Run, and load for ever."""
    pod.run()
    pod.say(SIMULATOR_LOG)
    await pod.forever()


async def waiting(pod: PodPlay) -> None:
    """Find no node."""
    pod.unschedulable(f"0/1 nodes are available: 1 Insufficient {QUOTA.partition('.')[2]}.")
    await pod.forever()


class Reset(Fault):
    """Reset the connection before a byte of the answer's body."""

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:  # noqa: ARG002 - the server is out of reach
        """Break the connection."""
        exchange.cut = Cut(0, "reset")
        await exchange.send(200, b"{}")
        return True


def failures() -> dict[str, Fault]:
    """Return the ways in which the server fails, by name."""

    def is_watch(call: Call) -> bool:
        return call.is_watch

    def is_log(call: Call) -> bool:
        return call.is_log

    away = status_bytes(503, "ServiceUnavailable", "apiserver is shutting down")
    return {
        "watches end at once": Answer(is_watch, None, 200, b"", JSON_LINES),
        "watches are reset at once": Reset(is_watch),
        "watches get 410": refusal(410, "Expired", "too old resource version", where=is_watch),
        "watches tell of 410": watch_error(410, "Expired", "too old resource version", times=None),
        "watches get 500": refusal(500, "InternalError", "etcdserver: leader changed", where=is_watch),
        "watches and lists get 503": Answer(lambda call: call.is_watch or call.is_list, None, 503, away),
        "logs get 500": refusal(500, "InternalError", "dial tcp 10.0.0.1:10250: connection refused", where=is_log),
        "everything gets 503": Answer(status=503, body=away),
        "everything is reset": Reset(),
    }


def busiest(calls: list[Call]) -> int:
    """Return how many requests came in the busiest four seconds."""
    at = [call.seconds for call in calls]
    return max((sum(begin <= other < begin + WINDOW_SECONDS for other in at) for begin in at), default=0)


def endpoint(call: Call) -> str:
    """Name what was asked for, without the name of any object."""
    assert call.target is not None
    what = "watch" if call.is_watch else call.target.rest.partition("/")[0]
    return f"{call.method} {call.target.resource}{'/' + what if what else ''}"


@asynccontextmanager
async def sweeping(
    points: int, devices: int, script: Script = loading
) -> AsyncIterator[tuple[Bench, asyncio.Task[list[StoredResult]]]]:
    """Run a sweep on a server with so many devices; what has not ended with the body is interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder, "kprof.db")))
        try:
            async with FaultServer(script) as server:
                server.objects.remove(("nodes", "", "node-1"))
                server.objects.add(("nodes", "", "node-2"), node("node-2", gpus=devices))
                bench = Bench(server, Path(folder), store, matrix_of(points, timeouts=LIMITS))
                sweep = asyncio.create_task(bench.sweep())
                yield bench, sweep
                sweep.cancel()
                with suppress(asyncio.CancelledError):
                    await sweep
                assert not server.left(), server.left()
        finally:
            store.close()


@dataclass
class Readers(Fault):
    """Breaks nothing, and knows which watches and logs are being read."""

    last: dict[str, Exchange] = field(default_factory=dict)

    def wants(self, call: Call) -> bool:
        """Look at watches and logs."""
        return call.is_watch or call.is_log

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:  # noqa: ARG002 - the server answers
        """Note the newest reader of each."""
        self.last[exchange.call.path] = exchange
        return False

    async def are(self, logs: int) -> None:
        """Wait until the watch and so many logs are being read."""

        async def read() -> bool:
            connected = (exchange.request.transport is not None for exchange in self.last.values())
            return sum(connected) == logs + 1

        await eventually("the logs are being read", read, seconds=DAY, every=1)


async def quiet(what: str, points: int, devices: int, script: Script = loading, quota: int | None = None) -> None:
    """Count the requests while nothing happens; a quota refuses what is beyond it."""
    async with sweeping(points, devices, script) as (bench, _):
        server, readers = bench.server, Readers()
        server.faults.add(readers)

        def admit(call: Call, _item: Object) -> None:
            used = len(server.pods)
            if quota is not None and call.path.endswith("/pods") and not call.is_dry and used >= quota:
                words = f"requested: {QUOTA}=1, used: {QUOTA}={used}, limited: {QUOTA}={quota}"
                raise forbidden(f"pods is forbidden: exceeded quota: gpus, {words}")

        server.api.admission = admit
        await readers.are(0 if script is waiting else min(points, devices, quota or points))
        await asyncio.sleep(QUIET_SECONDS)  # the first pauses are shorter than the later ones
        heard = len(server.calls)
        await asyncio.sleep(QUIET_SECONDS)
        calls = server.calls[heard:]
    kinds = Counter(map(endpoint, calls))
    each = ", ".join(f"{name} {count / QUIET_SECONDS:.2f}" for name, count in kinds.most_common())
    print(f"{what:<42}{len(calls) / QUIET_SECONDS:6.2f}  ({each})")


async def failing(points: int) -> None:
    """Count the requests while the server fails, in one way after the other, and recovers between them."""
    async with sweeping(points, points) as (bench, _):
        server, readers = bench.server, Readers()
        server.faults.add(readers)
        await readers.are(points)
        for name, fault in failures().items():
            await asyncio.sleep(SETTLED_SECONDS)
            with server.faults.during(fault):
                server.break_connections()
                heard = len(server.calls)
                await asyncio.sleep(FAILING_SECONDS)
                calls = server.calls[heard:]
            watches = [call for call in calls if call.is_watch or call.is_list]
            words = f"{name}, {points} {'log' if points == 1 else 'logs'}"
            whole = f"{busiest(calls)} of the whole sweep, which makes {len(calls)} in {FAILING_SECONDS:.0f} s"
            print(f"{words:<42}{busiest(watches):6}  {whole}")
            await readers.are(points)


async def outage(points: int, seconds: float) -> None:
    """Let every pod get on while the server is away: half become ready, half fail; wait until kprof tells of each."""
    async with sweeping(points, points) as (bench, sweep):
        server, readers, clock = bench.server, Readers(), asyncio.get_running_loop().time
        server.faults.add(readers)
        await readers.are(points)
        await server.down()
        await asyncio.sleep(seconds)
        wanted: dict[str, str] = {}
        for number, play in enumerate(server.kubelet.history):
            point = play.object["metadata"]["labels"][POINT_LABEL]
            wanted[point] = "probing" if number % 2 else "done"
            if number % 2:
                be_ready(play)
            else:
                play.say(NO_ROOM_LOG)
                play.exit(1)
        heard, begin = len(server.calls), clock()
        await server.up(forget=True)

        async def told() -> bool:
            said = {(progress.point.hash, progress.stage) for progress in bench.progress}
            return said >= wanted.items()

        await eventually("kprof tells of every pod", told, seconds=DAY, every=0.1)
        known = clock() - begin
        calls = server.calls[heard:]
        assert len(await sweep) == points
    print(f"{'everything is known':<42}{known:6.1f}")
    for name, found in (("the pods are listed", "is_list"), ("the first log is asked for", "is_log")):
        print(f"{name:<42}{next(call.seconds for call in calls if getattr(call, found)) - begin:6.1f}")


def main() -> None:
    """Count requests, make an outage, and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--points", type=int, default=100)
    options.add_argument("--outage", type=float, default=90.0)
    given = options.parse_args()
    points = given.points
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{points} points, a clock {FACTOR:g} times as fast, for the outage {OUTAGE_FACTOR:g} times")
    print("\nrequests a second while nothing happens")
    hurried(quiet("all pods start up", points, points), factor=FACTOR)
    hurried(quiet(f"{FEW_DEVICES} start up, the others wait for devices", points, FEW_DEVICES), factor=FACTOR)
    hurried(quiet("all pods wait for a node", points, points, waiting), factor=FACTOR)
    hurried(quiet(f"a quota lets {FEW_DEVICES} start up", points, points, quota=FEW_DEVICES), factor=FACTOR)
    print(f"\nrequests of the watch in its busiest {WINDOW_SECONDS:.0f} s while the server fails")
    for count in (1, points):
        hurried(failing(count), factor=FACTOR)
    print(f"\nseconds since the end of an outage of {given.outage:.0f} s")
    hurried(outage(points, given.outage), factor=OUTAGE_FACTOR)


if __name__ == "__main__":
    main()
