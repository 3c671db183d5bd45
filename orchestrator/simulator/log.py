"""The framing of vLLM's log: time stamp, file, process prefix and colours, as each release writes them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TextIO

from packaging.version import Version

from orchestrator.vllm.version import at_least

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_LEVEL_COLORS = {"DEBUG": "\x1b[37m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m"}
_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the pretended server; `name` is None where the release prints no prefix."""

    name: str | None
    pid: int


# The line that says that nothing here was measured comes again, so that the end of a log says so too.
MARK_EVERY = 20


class Log:
    """Writes records and raw text the way one release of vLLM does.

    Records come from vLLM's logger; raw text is what other code prints (uvicorn, tqdm, tracebacks).
    """

    def __init__(self, stream: TextIO, version: Version, *, debug: bool, color: bool, mark: str | None = None) -> None:
        self._stream = stream
        self._mark = mark
        self._records = 0
        self._version = version
        self._debug = debug
        self._color = color
        self._tty_color = color and stream.isatty()
        # Until 0.30.0 stdout itself was patched, so that every physical line had the prefix.
        self._prefix_everywhere = not at_least(version, "0.31.0")

    def _prefix(self, process: Process) -> str:
        if process.name is None:
            return ""
        text = f"({process.name} pid={process.pid})"
        if self._color:
            start = "\x1b[0;36m" if at_least(self._version, "0.13.0") else "\x1b[1;36m"
            text = f"{start}{text}\x1b[0;0m"
        return f"{text} "

    def _head(self, level: Level, where: str) -> str:
        if not (self._debug and at_least(self._version, "0.10.2")):
            where = where.rsplit("/", 1)[-1]
        stamp = time.strftime("%m-%d %H:%M:%S")
        if self._tty_color and at_least(self._version, "0.12.0"):
            return f"{_LEVEL_COLORS[level]}{level}{_RESET} \x1b[90m{stamp}{_RESET} \x1b[90m[{where}]{_RESET} "
        return f"{level} {stamp} [{where}] "

    def record(self, process: Process, level: Level, where: str, message: str) -> None:
        """Write one record; `where` is `path/file.py:line`, shortened as the release does it."""
        if level == "DEBUG" and not self._debug:
            return
        self._records += 1
        if self._mark is not None and self._records % MARK_EVERY == 0:
            self.plain(self._mark)
        head = self._prefix(process) + self._head(level, where)
        # Continuation lines repeat the head, and vLLM joins them with CR LF.
        self._write(head + message.replace("\n", "\r\n" + head) + "\n")

    def raw(self, process: Process, text: str) -> None:
        """Write text that does not come from the logger, line by line."""
        prefix = self._prefix(process) if self._prefix_everywhere else ""
        self._write("".join(f"{prefix}{line}\n" for line in text.split("\n")))

    def progress(self, process: Process, updates: Iterable[str], *, begin: bool = True, end: bool = True) -> None:
        """Write one update of a tqdm bar after another on one physical line, as tqdm does.

        Without `end` the line stays open, so that the next record is glued to the bar; without `begin` it goes on.
        """
        prefix = self._prefix(process) if self._prefix_everywhere and begin else ""
        self._write(prefix + "".join(f"\r{update}" for update in updates) + ("\n" if end else ""))

    def plain(self, text: str) -> None:
        """Write one line without any framing."""
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
