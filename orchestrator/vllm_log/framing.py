"""From bytes to lines, and from a line to its records: the process that wrote it, its level and its message."""

import codecs
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

MAX_LINE_BYTES = 64 * 1024
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEAD_CHARACTERS = 400
MOST_NESTED = 3  # a JSON record inside docker's json-file is two deep

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
# "(Worker_TP1 pid=123) ", "(VllmWorker rank=1 pid=9) ", "(RayWorkerWrapper pid=1, ip=10.0.0.2) "; may be nested.
_PROCESS = re.compile(r"\((?P<name>[A-Za-z][\w \-=:./]{0,80}?) pid=(?P<pid>\d{1,10})(?:, ip=(?P<ip>[\d.]{1,20}))?\) ?")
# "INFO 05-16 23:06:03 [core.py:12] msg" (0.8+), "INFO 05-16 23:06:03 core.py:12] msg" (until 0.7.3)
_HEAD = re.compile(
    r"(?P<level>TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+"
    r"(?P<time>(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})?)\s+"
    r"\[?(?P<file>[\w./\-]{1,200}):\d+\] ?"
)
# Before the words of a line without a head: torchrun's rank, docker compose's name, a time, journald's unit.
_WRAPPER = re.compile(
    r"\s{0,8}(?:\[(?:default\d{1,4}\]:\[)?rank\d{1,6}\]: ?|"
    r"(?=[\w.\-]{0,60}(?:vllm|engine))[\w.\-]{1,60} {1,30}\| |"
    r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+\-]\d\d:?\d\d)?\]? (?:\| )?|"
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,80} [\w.\-@]{1,60}\[\d{1,10}\]: )"
)
# A box drawn by a terminal's viewer, and Ray's note on lines that it left out.
_RAY_REPEATED = re.compile(r"\[repeated \d{1,9}x across cluster\]")
# A structured logger (pythonjsonlogger, docker's json-file, zap): the record is one object, the message one of these.
_MESSAGE_KEYS = ("message", "msg", "log", "text", "event")
_LEVEL_KEYS = ("levelname", "level", "severity")
_MESSAGE_KEY = re.compile(r'"(?:message|msg|log|text|event)"\s{0,8}:')
# logfmt: level=info msg="Model loading took 14.99 GiB" pid=12
_LOGFMT = re.compile(r'(?:^|\s)(?:msg|message)="((?:[^"\\]|\\.){0,60000})"')
_LOGFMT_FIELD = re.compile(
    r"(?:^|\s)(level|pid|process|process_name|vllm_process_name)=\"?([\w \-=.]{1,80}?)\"?(?=\s|$)"
)


class Encoding:
    """Turns a stream into UTF-8: UTF-16 is told by its byte order mark, all else passes as it is."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, chunk: bytes) -> bytes:
        """Return what can be told of the bytes so far; the first two are kept back until both are there."""
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < 2:
                self._head = chunk
                return b""
            self._head = None
            if chunk[:2] in _UTF16_MARKS:
                self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        if self._decoder is None:
            return chunk
        return self._decoder.decode(chunk).encode("utf-8", "replace")

    def close(self) -> bytes:
        """Return what is left: a single byte, or half a character."""
        if self._decoder is not None:
            return self._decoder.decode(b"", final=True).encode("utf-8", "replace")
        head, self._head = self._head or b"", b""
        return head


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


class Line(NamedTuple):
    """One record of a line: `number` counts lines from 1, `text` is the whole line as it is kept for evidence.

    `words` are what figures are read from, `message` is the same behind the record's head. `process` and `pid` are
    None where nothing names them, `level` where the record has no head.
    """

    number: int
    text: str
    words: str
    process: str | None
    pid: str | None
    level: str | None
    message: str

    @property
    def bare(self) -> bool:
        """Say whether nothing frames the record: somebody copied the words only."""
        return self.level is None and self.pid is None


def clean(raw: bytes) -> str:
    """Return a line as text: colours, carriage returns and NUL bytes gone, broken UTF-8 replaced."""
    return _clean(raw.decode("utf-8", "replace"))


def _clean(text: str) -> str:
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    text = text.replace("\x00", "").replace("\ufeff", "").rstrip("\r ")
    if text.endswith("│"):
        text = text[:-1].rstrip()
    if "x across cluster]" in text and (match := _RAY_REPEATED.search(text)):
        text = text[: match.start()].rstrip()
    return text


def frame(number: int, text: str, *, nested: int = 0) -> list[Line]:
    """Cut a line into its records: one, unless progress bars glued several together or a JSON message has many lines.

    Wrappers put words before the prefix and the head, so both are looked for anywhere. With one prefix inside another
    (Ray around vLLM) the innermost names the process; pids of several hosts are told apart by their address.
    """
    heads = _heads(text)
    if '"' in text and nested < MOST_NESTED:
        fields = _fields(text, heads[0].start() if heads else len(text))
        if fields is not None:
            return _structured(number, text, fields, nested)
    if not heads:
        process, pid, end = _process(text[:200])
        return [Line(number, text, text, process, pid, None, _unwrapped(text[end:]))]
    if len(heads) == 1:
        head = heads[0]
        process, pid, _ = _process(text[: head.start()])
        return [Line(number, text, text, process, pid, head["level"], text[head.end() :])]
    lines = []
    start = 0
    for index, head in enumerate(heads):
        process, pid, _ = _process(text[start : head.start()])
        end = len(text)
        if index + 1 < len(heads):
            end = _before_prefixes(text, head.end(), heads[index + 1].start())
        lines.append(Line(number, text, text[start:end], process, pid, head["level"], text[head.end() : end]))
        start = end
    return lines


def _unwrapped(text: str) -> str:
    """Return the words behind what wrappers put before them."""
    for _ in range(MOST_NESTED):
        if (match := _WRAPPER.match(text)) is None:
            break
        text = text[match.end() :]
    return text


def _heads(text: str) -> list[re.Match[str]]:
    # A head stands at the beginning of nearly every line; only a progress bar may push it far to the right.
    first = _HEAD.search(text, 0, HEAD_CHARACTERS) or _HEAD.search(text, HEAD_CHARACTERS // 2)
    if first is None:
        return []
    rest = text[first.end() :]
    if not ("INFO " in rest or "WARNING " in rest or "ERROR " in rest or "DEBUG " in rest):
        return [first]
    return list(_HEAD.finditer(text))


def _before_prefixes(text: str, start: int, end: int) -> int:
    """Return where the process prefixes that stand right before `end` begin; `end` when there are none."""
    for match in reversed(list(_PROCESS.finditer(text, start, end))):
        if text[match.end() : end].strip():
            break
        end = match.start()
    return end


def _process(text: str) -> tuple[str | None, str | None, int]:
    """Return name and pid of the innermost process prefix, and where it ends."""
    process = pid = None
    end = 0
    if " pid=" in text:
        for match in _PROCESS.finditer(text):
            process, pid = match["name"], match["pid"] if match["ip"] is None else f"{match['pid']}@{match['ip']}"
            end = match.end()
    return process, pid, end


def _fields(text: str, before: int) -> Mapping[str, object] | None:
    """Return the fields of a structured logger's record that begins before `before`, None for plain text."""
    begin = text.find('{"')
    if begin < 0:
        begin = text.find('{ "')
    if 0 <= begin < before and _MESSAGE_KEY.search(text, begin):
        try:
            value = json.loads(text[begin : text.rindex("}") + 1])
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None
    if ('msg="' in text or 'message="' in text) and (match := _LOGFMT.search(text)) and match.start() < before:
        return {**dict(_LOGFMT_FIELD.findall(text)), "message": _unescaped(match.group(1))}
    return None


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def _structured(number: int, text: str, fields: Mapping[str, object], nested: int) -> list[Line]:
    """Return the records of a structured log's object; the message may be a framed text, or an object, of its own."""
    message = _first(fields, _MESSAGE_KEYS) or ""
    if trace := _first(fields, ("exc_info",)):
        message += "\n" + trace
    level = _first(fields, _LEVEL_KEYS)
    process = _first(fields, ("vllm_process_name", "processName", "process_name"))
    pid = _first(fields, ("process", "pid"))
    level = level.upper() if level else None
    return [
        inner._replace(
            text=text,
            process=inner.process or process,
            pid=inner.pid or pid,
            level=inner.level or level,
        )
        for part in message.split("\n")
        for inner in frame(number, _clean(part), nested=nested + 1)
    ]


def _first(fields: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    found = (fields.get(key) for key in keys)
    return next((str(value) for value in found if isinstance(value, str | int) and value != ""), None)


_RANK_PARTS = re.compile(r"(?:(?<![A-Z])DP|PP|PCP|(?<![A-Z])TP)\d+")
_ENGINE_CORE = re.compile(r"EngineCore_(?:DP)?(\d{1,6})")
_NUMBER = re.compile(r"(?:rank=|-|TP)(\d+)")


@lru_cache(maxsize=1024)
def rank_of(process: str | None) -> str | None:
    """Return the rank that a process name spells out: `Worker_TP1` is TP1, `Worker_PP0_TP1` PP0_TP1.

    None for names that do not tell (`Worker`, `EngineCore`, `VllmWorkerProcess`).
    """
    if process is None:
        return None
    if core := _ENGINE_CORE.fullmatch(process):
        # Without workers of its own the engine core is the worker; the first is named so without data parallelism too.
        return None if core.group(1) == "0" else f"DP{core.group(1)}_TP0"
    if not process.startswith(("Worker_", "VllmWorker ", "VllmWorker-", "RayWorkerProc ")):
        return None
    parts = _RANK_PARTS.findall(process)
    if parts:
        return "_".join(parts)
    number = _NUMBER.search(process)
    return f"TP{number.group(1)}" if number else None
