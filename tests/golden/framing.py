"""What stands around a message: log heads, process prefixes, colours, continuation lines, progress bars, JSON."""

import json
import zlib
from dataclasses import dataclass

from tests.golden.catalogue import Record, at_least

_CYAN_OLD, _CYAN, _RESET = "\x1b[1;36m", "\x1b[0;36m", "\x1b[0;0m"


@dataclass(frozen=True)
class Process:
    """A process of the server: its name in the log (None: it prints no prefix), its pid, and the rank it holds."""

    name: str | None
    pid: int
    rank: str | None = None
    ip: str | None = None

    def named(self, name: str | None) -> "Process":
        """Return the same process under another name."""
        return Process(name, self.pid, self.rank, self.ip)


class LogWriter:
    """Writes a log in one version's framing."""

    def __init__(self, version: str, *, debug: bool = False, as_json: bool = False, outer: str = "") -> None:
        self.version = version
        self.debug = debug
        self.as_json = as_json
        self.outer = outer
        self._parts: list[str] = []
        self._seconds = 23 * 3600 + 6 * 60 + zlib.crc32(version.encode()) % 600

    def wait(self, seconds: float) -> None:
        """Move the clock."""
        self._seconds += int(seconds)

    @property
    def clock(self) -> str:
        """Return the time of day."""
        second = self._seconds
        return f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"

    def prefix(self, process: Process, *, of_record: bool) -> str:
        """Return the process prefix of a physical line; from 0.31.0 only vLLM's own records have one."""
        if process.name is None or (at_least(self.version, "0.31.0") and not of_record):
            return ""
        where = f", ip={process.ip}" if process.ip else ""
        text = f"({process.name} pid={process.pid}{where})"
        if process.name == "RayWorkerWrapper":
            return f"\x1b[36m{text}\x1b[0m "
        if at_least(self.version, "0.16.0"):
            return f"{text} "
        return f"{_CYAN if at_least(self.version, '0.13.0') else _CYAN_OLD}{text}{_RESET} "

    def head(self, level: str, file: str, number: int) -> str:
        """Return level, time and source position, up to the message."""
        bracket = "[" if at_least(self.version, "0.8.0") else ""
        return f"{level} 05-16 {self.clock} {bracket}{self.shown_path(file)}:{number}] "

    def shown_path(self, file: str) -> str:
        """Return the file's name, or its shortened path on DEBUG logs from 0.10.2."""
        path = file.removeprefix("vllm/")
        if not (self.debug and at_least(self.version, "0.10.2")):
            return path.rpartition("/")[2]
        parts = path.split("/")
        return path if len(parts) <= 4 else "/".join((parts[0], "...", *parts[-2:]))

    def record(self, process: Process, level: str, file: str, message: str, number: int | None = None) -> None:
        """Write one record; a message of several lines repeats the head on each, after CR LF."""
        if number is None:
            number = 30 + zlib.crc32(file.encode()) % 900
        if self.as_json:
            self._json(process, level, file, message)
            return
        head = self.prefix(process, of_record=True) + self.head(level, file, number)
        first, *rest = message.split("\n")
        self._line(head + first + "".join(f"\r\n{self.outer}{head}{line}" for line in rest))

    def known(self, process: Process, item: Record, message: str) -> None:
        """Write a record of the catalogue."""
        level = item.level.split()[0]
        self.record(process, level, item.file, message, 30 + zlib.crc32(item.id.encode()) % 900)

    def plain(self, process: Process, text: str) -> None:
        """Write something that did not go through vLLM's logger: tracebacks, warnings, uvicorn."""
        prefix = self.prefix(process, of_record=False)
        for line in text.split("\n"):
            self._line(prefix + line)

    def uvicorn(self, process: Process, message: str) -> None:
        """Write a line of the HTTP server."""
        if self.as_json:
            self._json(process, "INFO", "uvicorn/error.py", message)
        else:
            self.plain(process, f"INFO:     {message}")

    def bar(self, process: Process, title: str, total: int, *, glued: bool) -> None:
        """Write a progress bar: every update on its own line, or all glued on one by CR."""
        prefix = self.prefix(process, of_record=False)
        steps = (0, total // 2, total)
        updates = [f"{title}: {100 * step // total:3d}%{_shape(title, step, total)}" for step in steps]
        if glued:
            self._line(prefix + "".join(f"\r{update}" for update in updates))
        else:
            for update in updates:
                self._line(f"{prefix}\r{update}")
            self._line(prefix)

    def bytes(self) -> bytes:
        """Return the log."""
        return "".join(self._parts).encode()

    def _line(self, text: str) -> None:
        self._parts.append(f"{self.outer}{text}\n")

    def _json(self, process: Process, level: str, file: str, message: str) -> None:
        module = file.removesuffix(".py").replace("/", ".")
        fields = {
            "asctime": f"2026-05-16 {self.clock},343",
            "levelname": level,
            "name": "uvicorn.error" if module.startswith("uvicorn") else module,
            "processName": "MainProcess" if process.name == "APIServer" else process.name,
            "process": process.pid,
            "message": message,
            "vllm_process_name": process.name,
        }
        self._parts.append(json.dumps(fields) + "\n")


def _shape(title: str, step: int, total: int) -> str:
    rate = f"[00:0{min(9, step)}<00:0{min(9, total - step)}, 1.{step % 90 + 10}it/s]" if step else "[00:00<?, ?it/s]"
    if title.startswith("Loading"):
        return f" Completed | {step}/{total} {rate}"
    return f"|{'█' * (10 * step // total):10s}| {step}/{total} {rate}"
