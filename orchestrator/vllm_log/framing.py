"""From bytes to lines, and from a line to the process that wrote it, its level and its message."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_LINE_BYTES = 64 * 1024

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
# "(Worker_TP1 pid=123) ", "(VllmWorker rank=1 pid=9) ", "(RayWorkerWrapper pid=1, ip=10.0.0.2) "; may be nested.
_PROCESS = re.compile(r"\((?P<name>[A-Za-z][\w \-=:./]*?) pid=(?P<pid>\d+)(?:, ip=(?P<ip>[\d.]+))?\)")
# "INFO 05-16 23:06:03 [core.py:12] msg" (0.8+), "INFO 05-16 23:06:03 core.py:12] msg" (until 0.7.3)
_HEAD = re.compile(
    r"(?P<level>TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+(?P<time>\d\d-\d\d \d\d:\d\d:\d\d)\s+"
    r"\[?(?P<file>[\w./\-]+):\d+\] ?"
)


class LineSplitter:
    """Cuts a stream of bytes at newlines; a line longer than 64 KiB is cut off, and the rest of it dropped."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield every complete line of the stream so far, without its newline."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            yield from self._complete(chunk[start:end])
            start = end + 1
        self._keep(chunk[start:])

    def close(self) -> Iterator[bytes]:
        """Yield the last line, when the stream ended without a newline."""
        if self._pending:
            yield from self._complete(b"")

    def _keep(self, part: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._pending)
        if len(part) > room:
            self._dropping = True
        self._pending += part[:room]

    def _complete(self, tail: bytes) -> Iterator[bytes]:
        if not self._pending and len(tail) <= MAX_LINE_BYTES:
            yield tail
        else:
            self._keep(tail)
            yield bytes(self._pending)
        self._pending.clear()
        self._dropping = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text, framed: `number` counts from 1, `process` is None where nothing names it."""

    number: int
    text: str
    process: str | None
    pid: str | None
    level: str | None
    time: str | None
    message: str


def clean(raw: bytes) -> str:
    """Return a line as text: colours, carriage returns and NUL bytes gone, broken UTF-8 replaced."""
    text = raw.decode("utf-8", "replace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text.replace("\x00", "").replace("\ufeff", "").rstrip("\r ")


def frame(number: int, text: str) -> Line:
    """Find the process prefix and the head of a line wherever they stand: wrappers put words before them."""
    head = _HEAD.search(text)
    limit = head.start() if head else min(len(text), 200)
    process = pid = None
    for match in _PROCESS.finditer(text, 0, limit + 1):
        process, pid = match["name"], match["pid"]
    if head is None:
        return Line(number, text, process, pid, None, None, text)
    return Line(number, text, process, pid, head["level"], head["time"], text[head.end() :])


_RANK_PARTS = re.compile(r"(?:DP|PP|PCP|TP|DCP|EP)\d+")


def rank_of(process: str | None) -> str | None:
    """Return the rank a process name carries: `Worker_TP1` is TP1, `Worker_PP0_TP1` PP0_TP1, an engine core TP0.

    None for processes that are no worker, and for workers whose name does not tell (`VllmWorkerProcess`).
    """
    if process is None:
        return None
    if process.startswith("EngineCore"):
        data = re.search(r"_DP([1-9]\d*)", process)
        return f"DP{data.group(1)}_TP0" if data else "TP0"
    if process.startswith(("Worker", "VllmWorker")):
        parts = [part for part in _RANK_PARTS.findall(process) if not part.startswith(("EP", "DCP", "PCP"))]
        if parts:
            return "_".join(parts)
        number = re.search(r"(?:rank=|-|TP)(\d+)", process)
        if number:
            return f"TP{number.group(1)}"
        return "TP0" if process == "Worker" else None
    return None
