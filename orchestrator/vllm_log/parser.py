"""The incremental parser: bytes in, events out as soon as they are known, start-ups at the end."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.vllm_log.framing import BlockSplitter, Encoding, clean, frame
from orchestrator.vllm_log.marks import SIMULATOR
from orchestrator.vllm_log.result import StartUp
from orchestrator.vllm_log.rules import SCANNER
from orchestrator.vllm_log.startup import StartUpReader

# Passes over a block that stays in the processor's cache are fast, and a block's hits take little memory.
BLOCK_BYTES = 256 * 1024
MOST_START_UPS = 1000


class Event(NamedTuple):
    """Something the log just told: `ready`, `failure`, `stage` or `fact`.

    `value` is the kind, the stage's name or the fact's name; `figure` is the fact's value.
    """

    name: str
    value: str
    line_number: int
    figure: float | None = None


class LogParser:
    """Reads one log as it grows; `feed` takes any chunking, `close` ends it. Memory does not grow with the log.

    Of a log with more than 1000 start-ups, as a pod that crashes for days has, the last 1000 are kept.
    UTF-16 (Windows consoles) is recognised by its byte order mark, all else is taken for UTF-8.
    """

    def __init__(self) -> None:
        self._encoding = Encoding()
        self._splitter = BlockSplitter()
        self._count = 0
        self._finished: deque[StartUp] = deque(maxlen=MOST_START_UPS)
        self._ended = 0
        self._simulated = False
        self._reader = StartUpReader(1)

    def feed(self, chunk: bytes) -> list[Event]:
        """Read more bytes; returns what became known, in order."""
        events: list[Event] = []
        chunk = self._encoding.decode(chunk)
        for start in range(0, len(chunk), BLOCK_BYTES):
            part = chunk[start : start + BLOCK_BYTES] if len(chunk) > BLOCK_BYTES else chunk
            if block := self._splitter.feed(part):
                events += self._block(block)
        return events

    def close(self) -> list[StartUp]:
        """End the log; returns every start-up found, at least one."""
        for rest in (self._splitter.feed(self._encoding.close()), self._splitter.close()):
            for _ in self._block(rest) if rest else ():
                pass
        return [*self._finished, self._reader.result()]

    @property
    def current(self) -> StartUp:
        """Return the start-up being read, as far as it is known."""
        return self._reader.result()

    def _block(self, block: bytes) -> Iterator[Event]:
        for number, raw, rules in SCANNER.lines(block, self._count):
            text = clean(raw)
            if rules.simulator and SIMULATOR.match(text):
                self._simulated = self._reader.simulated = True
                continue
            for line in frame(number, text):
                if self._reader.ends_before(line, rules):
                    self._finished.append(self._reader.result(replaced=True))
                    self._ended += 1
                    self._reader = StartUpReader(self._ended + 1, simulated=self._simulated)
                for name, value, figure in self._reader.read(line, rules):
                    yield Event(name, value, number, figure)
        self._count += block.count(b"\n")


def parse_log(raw: bytes) -> list[StartUp]:
    """Parse a whole log."""
    parser = LogParser()
    parser.feed(raw)
    return parser.close()
