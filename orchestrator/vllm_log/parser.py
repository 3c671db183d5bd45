"""The incremental parser: bytes in, events out as soon as they are known, start-ups at the end."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.vllm_log.framing import BlockSplitter, clean, frame
from orchestrator.vllm_log.result import StartUp
from orchestrator.vllm_log.scan import interesting_lines
from orchestrator.vllm_log.startup import StartUpReader
from orchestrator.vllm_log.wordings import SIMULATOR

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Event:
    """Something the log just told: `ready`, `failure` or `stage`; `value` is the kind or the stage's name."""

    name: str
    value: str
    line_number: int


class LogParser:
    """Reads one log as it grows; `feed` takes any chunking, `close` ends it. Memory does not grow with the log."""

    def __init__(self) -> None:
        self._splitter = BlockSplitter()
        self._count = 0
        self._finished: list[StartUp] = []
        self._simulated = False
        self._reader = StartUpReader(1)

    def feed(self, chunk: bytes) -> list[Event]:
        """Read more bytes; returns what became known, in order."""
        block = self._splitter.feed(chunk)
        return list(self._block(block)) if block else []

    def close(self) -> list[StartUp]:
        """End the log; returns every start-up found, at least one."""
        if rest := self._splitter.close():
            for _ in self._block(rest):
                pass
        return [*self._finished, self._reader.result()]

    @property
    def current(self) -> StartUp:
        """Return the start-up being read, as far as it is known."""
        return self._reader.result()

    def _block(self, block: bytes) -> Iterator[Event]:
        for number, raw in interesting_lines(block, self._count):
            text = clean(raw)
            if SIMULATOR.match(text):
                self._simulated = self._reader.simulated = True
                continue
            line = frame(number, text)
            if self._reader.ends_before(line):
                self._finished.append(self._reader.result())
                self._reader = StartUpReader(len(self._finished) + 1, simulated=self._simulated)
            for name, value in self._reader.read(line):
                yield Event(name, value, number)
        self._count += block.count(b"\n")


def parse_log(raw: bytes) -> list[StartUp]:
    """Parse a whole log; UTF-16 files (Windows consoles) are recognised by their byte order mark."""
    if raw[:2] in _UTF16_MARKS:
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    parser = LogParser()
    parser.feed(raw)
    return parser.close()
