"""From bytes to lines, and from a line to the process that wrote it, its level and its message."""

import re
from dataclasses import dataclass

MAX_LINE_BYTES = 64 * 1024

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
# "(Worker_TP1 pid=123) ", "(VllmWorker rank=1 pid=9) ", "(RayWorkerWrapper pid=1, ip=10.0.0.2) "; may be nested.
_PROCESS = re.compile(r"\((?P<name>[A-Za-z][\w \-=:./]{0,80}?) pid=(?P<pid>\d{1,10})(?:, ip=(?P<ip>[\d.]+))?\)")
# "INFO 05-16 23:06:03 [core.py:12] msg" (0.8+), "INFO 05-16 23:06:03 core.py:12] msg" (until 0.7.3)
_HEAD = re.compile(
    r"(?P<level>TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+(?P<time>\d\d-\d\d \d\d:\d\d:\d\d)\s+"
    r"\[?(?P<file>[\w./\-]{1,200}):\d+\] ?"
)


class BlockSplitter:
    """Cuts a stream of bytes into blocks of whole lines; a line longer than 64 KiB loses what is beyond that."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are complete now, each with its newline; empty when none is."""
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            self._keep(chunk)
            return b""
        first = chunk.find(b"\n") + 1
        self._keep(chunk[: first - 1])
        head = bytes(self._pending) + b"\n"
        self._pending.clear()
        self._keep(chunk[end:])
        middle = chunk[first:end]
        return head + (middle if len(middle) <= MAX_LINE_BYTES else _bounded(middle))

    def close(self) -> bytes:
        """Return the last line, when the stream ended without a newline."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _keep(self, part: bytes) -> None:
        self._pending += part[: MAX_LINE_BYTES - len(self._pending)]


def _bounded(block: bytes) -> bytes:
    # Looking for newlines at every 64 KiB finds out cheaply whether any line is too long at all.
    start = 0
    while start + MAX_LINE_BYTES < len(block):
        end = block.rfind(b"\n", start, start + MAX_LINE_BYTES)
        if end < 0:
            return b"".join(line[:MAX_LINE_BYTES] + b"\n" for line in block[:-1].split(b"\n"))
        start = end + 1
    return block


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
    """Find the process prefix and the head of a line wherever they stand: wrappers put words before them.

    With one prefix inside another (Ray around vLLM) the innermost names the process; pids of several hosts are
    told apart by their address.
    """
    head = _HEAD.search(text)
    limit = head.start() if head else min(len(text), 200)
    process = pid = None
    for match in _PROCESS.finditer(text, 0, limit + 1):
        process, pid = match["name"], match["pid"] if match["ip"] is None else f"{match['pid']}@{match['ip']}"
    if head is None:
        return Line(number, text, process, pid, None, None, text)
    return Line(number, text, process, pid, head["level"], head["time"], text[head.end() :])


_RANK_PARTS = re.compile(r"(?:DP|PP|TP)\d+")
_NUMBER = re.compile(r"(?:rank=|-|TP)(\d+)")


def rank_of(process: str | None) -> str | None:
    """Return the rank that a process name spells out: `Worker_TP1` is TP1, `Worker_PP0_TP1` PP0_TP1.

    None for names that do not tell (`Worker`, `EngineCore`, `VllmWorkerProcess`).
    """
    if process is None or not process.startswith(("Worker_", "VllmWorker ", "VllmWorker-", "EngineCore_DP")):
        return None
    if process.startswith("EngineCore_DP"):
        # Without workers of its own the engine core is the worker; `_DP0` is printed without data parallelism too.
        index = process.removeprefix("EngineCore_DP")
        return None if index == "0" else f"DP{index}_TP0"
    parts = _RANK_PARTS.findall(process)
    if parts:
        return "_".join(parts)
    number = _NUMBER.search(process)
    return f"TP{number.group(1)}" if number else None
