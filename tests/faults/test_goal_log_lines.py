"""The goal for logs: a million lines over a thousand connections that break, and every line once and in order."""

import datetime
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.port import Phase, PodSnapshot
from tests.faults.calls import Cut, Exchange
from tests.faults.faults import Fault, Serve
from tests.faults.pace import hurried
from tests.faults.server import FaultServer

LINES = 1_000_000
CUTS = 1_000
SECOND_LINES = 100
SECONDS = LINES // SECOND_LINES
SAME_STAMP = 4  # lines in a row with one stamp; the second and the third of them have one text
BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
FACTOR = 20.0  # a thousand pauses before a resume are a minute
POD = PodSnapshot("kp-0goal000-point-a0", "uid", {}, Phase.RUNNING)


def _text(number: int) -> bytes:
    if number % SAME_STAMP in {1, 2}:
        return b"(EngineCore pid=83) WARNING [core.py:711] waiting for some work.\n"
    return b"(APIServer pid=1) INFO [loggers.py:236] line %07d of the log.\n" % number


def _stamped(second: int) -> bytes:
    """Return the lines of one second as the API server sends them; every second has as many bytes."""
    at = (BEGIN + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
    first = second * SECOND_LINES
    stamps = [f"{at}.{index // SAME_STAMP * 40_000_000:09d}Z ".encode() for index in range(SECOND_LINES)]
    return b"".join(stamp + _text(first + index) for index, stamp in enumerate(stamps))


SECOND_BYTES = len(_stamped(0))
LINE_BYTES = SECOND_BYTES // SECOND_LINES


def _cuts() -> Iterator[tuple[int, str]]:
    """Yield where each connection breaks, and how: a byte of the log, or below 0 one of those that are repeated."""
    chosen = random.Random(7)
    far = sorted(chosen.sample(range(1, SECONDS * SECOND_BYTES), CUTS * 4 // 5))
    for number, byte in enumerate(far):
        at_line, at_second = byte // LINE_BYTES * LINE_BYTES, byte // SECOND_BYTES * SECOND_BYTES
        yield {0: at_second, 1: at_line}.get(number % 20, byte), chosen.choice(("clean", "abort", "reset"))
        if number % 4 == 0:
            yield -chosen.randrange(SECOND_BYTES), chosen.choice(("clean", "abort", "reset"))


@dataclass
class _LongLog(Fault):
    """Answers with the log from the second that is asked for, and breaks off where it shall; notes how it did."""

    cuts: Iterator[tuple[int, str]] = field(default_factory=_cuts)
    broken: Counter[str] = field(default_factory=Counter)
    ended: bool = False

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Answer as the API server does, which cuts `sinceTime` to the second."""
        since = exchange.call.query.get("sinceTime")
        first = 0
        if since is not None:
            first = int((datetime.datetime.fromisoformat(since) - BEGIN).total_seconds())
        where, how = next(self.cuts, (SECONDS * SECOND_BYTES + 1, "end"))
        self.broken[how] += 1
        exchange.cut = Cut(max(0, where - first * SECOND_BYTES) if where >= 0 else -where, how)
        await exchange.begin(200, "text/plain")
        for second in range(first, SECONDS):
            await exchange.write(_stamped(second))
        self.ended = True
        return True


def test_a_million_lines_over_a_thousand_connections(tmp_path: Path) -> None:
    """Gives each line once and in order, and speaks of no gap, wherever and however the connections break."""
    log = _LongLog(lambda call: call.is_log)

    async def read() -> tuple[int, int]:
        lines = gaps = 0
        async with FaultServer() as server:
            server.faults.add(log)
            async with KubernetesCluster.connect(str(server.kubeconfig(tmp_path)), None, None) as cluster:
                async for chunk in cluster.logs(POD, lambda: log.ended):
                    if chunk.data:
                        assert chunk.data == _text(lines), f"line {lines}"
                        lines += 1
                    gaps += chunk.gap
        return lines, gaps

    assert hurried(read(), factor=FACTOR) == (LINES, 0)
    assert log.broken["clean"] + log.broken["abort"] + log.broken["reset"] == CUTS
    assert min(log.broken.values()) >= 2  # at the end the log is read, and once more after the container has finished
