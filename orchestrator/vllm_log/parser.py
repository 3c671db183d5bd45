"""The incremental parser: bytes in, events out as soon as they are known, start-ups at the end."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.vllm_log.checks import budget_checks
from orchestrator.vllm_log.diagnosis import Diagnosis
from orchestrator.vllm_log.failures import CAUSES, DEATH
from orchestrator.vllm_log.framing import Line, LineSplitter, clean, frame, rank_of
from orchestrator.vllm_log.ledger import Ledger
from orchestrator.vllm_log.redact import redact
from orchestrator.vllm_log.result import Check, Evidence, StartUp
from orchestrator.vllm_log.wordings import (
    CAPTURING,
    LOADING,
    PLATFORM,
    READY,
    SIMULATOR,
    START,
    VERSION,
    WORDINGS,
    number,
)

MAX_EVIDENCE_CHARACTERS = 2000

# One pass of a cheap search decides whether a line is worth reading at all: most of a DEBUG log is not.
_NEEDLES = "|".join(
    sorted(
        {re.escape(wording.needle) for wording in WORDINGS}
        | {
            "version", "platform", "startup complete", "Uvicorn running", "Starting to load", "Loading ", "Capturing",
            "rror", "KeyboardInterrupt", "SIGTERM", "signal", "died", "failed", "File \"", "Traceback", "out of memory",
            "No available memory", "is less than", "larger than", "greater than", "divisible", "not supported",
            "is only supported", "is not valid", "no kernel image", "gated", "restricted", "not a local folder",
            "Invalid repository", "connect", "disabled", "resolve", "Watchdog", "Insufficient", "Cannot", "OOM", "oom-",
            "ErrImage", "ImagePull", "pull image", "Xid", "GPU is lost", "fallen off", "block_size", "block-size",
            "tensor_parallel_size", "CUDA graph memory profiling", "out of bounds", "required", "ensure that",
            "architecture", "no vLLM implementation", "quantization", "Not Found", "exceeds", "leaving none",
            "recognize",
        }
    )
)  # fmt: skip
_WORTH_READING = re.compile(_NEEDLES.encode())
_TP = re.compile(r"'?tensor_parallel_size'?[=:]\s*(\d+)")
_BLOCK = re.compile(r"'?block_size'?[=:]\s*(\d+)")
_GRAPHS_APPLIED = re.compile(
    r"CUDA graph memory profiling is (enabled|disabled)|CUDA graph memory profiling will be enabled"
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something the log just told: `ready`, `failure` or `stage`; `value` is the kind or the stage's name."""

    name: str
    value: str
    line_number: int


class LogParser:
    """Reads one log as it grows; `feed` takes any chunking, `close` ends it. Memory does not grow with the log."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()
        self._count = 0
        self._finished: list[StartUp] = []
        self._state = _StartUpState(1)
        self._simulated = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Read more bytes; returns what became known, in order."""
        return [event for raw in self._splitter.feed(chunk) for event in self._line(raw)]

    def close(self) -> list[StartUp]:
        """End the log; returns every start-up found, at least one."""
        for raw in self._splitter.close():
            for _ in self._line(raw):
                pass
        return [*self._finished, self._state.result()]

    @property
    def current(self) -> StartUp:
        """Return the start-up being read, as far as it is known."""
        return self._state.result()

    @property
    def ready(self) -> bool:
        """Say whether the current start-up completed."""
        return self._state.ready_line is not None

    def _line(self, raw: bytes) -> Iterator[Event]:
        self._count += 1
        if not _WORTH_READING.search(raw) and not raw.startswith((b"\xff\xfe", b"kprof")):
            return
        text = clean(raw)
        if SIMULATOR.match(text):
            self._simulated = True
            self._state.simulated = True
            return
        line = frame(self._count, text)
        if START.search(line.text) and self._state.ended:
            self._finished.append(self._state.result())
            self._state = _StartUpState(len(self._finished) + 1)
            self._state.simulated = self._simulated
        yield from self._state.read(line)


class _StartUpState:
    """What is known of one start-up while its lines come in."""

    def __init__(self, number_: int) -> None:
        self.number = number_
        self.simulated = False
        self.version: str | None = None
        self.platform: str | None = None
        self.ready_line: int | None = None
        self.engine_up = False
        self.tensor_parallel_size: int | None = None
        self.block_size: int | None = None
        self.graph_estimate_applied: bool | None = None
        self.ledger = Ledger()
        self.diagnosis = Diagnosis()

    @property
    def ended(self) -> bool:
        return self.ready_line is not None or self.diagnosis.failed

    def read(self, line: Line) -> Iterator[Event]:
        text = line.text
        self._settings(text)
        before = self.diagnosis.stage
        if LOADING.search(text):
            self.diagnosis.enter("load")
        if CAPTURING.search(text):
            self.diagnosis.enter("graph_capture")
        if READY.search(text) and self.ready_line is None:
            self.ready_line = line.number
            self.diagnosis.enter("runtime")
            yield Event("ready", "", line.number)
        rank = rank_of(line.process) or self.ledger.rank_of_pid(line.pid)
        for wording in WORDINGS:
            if wording.needle in text:
                for match in wording.pattern.finditer(text):
                    self._fact(line, rank, wording.names, match, wording.scale, per_rank=wording.per_rank)
                    if wording.name == "init_engine":
                        self.engine_up = True
                    self.diagnosis.after(wording.name)
        if self.diagnosis.stage != before:
            yield Event("stage", self.diagnosis.stage, line.number)
        kind = self.diagnosis.read(line, rank, CAUSES, DEATH)
        if kind is not None:
            yield Event("failure", kind, line.number)

    def _settings(self, text: str) -> None:
        if self.version is None and (match := VERSION.search(text)):
            self.version = match.group(1).rstrip(".")
        if match := PLATFORM.search(text):
            self.platform = match.group(1)
        if self.tensor_parallel_size is None and (match := _TP.search(text)):
            self.tensor_parallel_size = int(match.group(1))
        if self.block_size is None and (match := _BLOCK.search(text)):
            self.block_size = int(match.group(1))
        if match := _GRAPHS_APPLIED.search(text):
            self.graph_estimate_applied = match.group(1) == "enabled"

    def _fact(
        self,
        line: Line,
        rank: str | None,
        names: tuple[str | None, ...],
        match: re.Match[str],
        scale: float,
        *,
        per_rank: bool,
    ) -> None:
        for name, text in zip(names, match.groups(), strict=False):
            if name is None or text is None:
                continue
            value = number(text) * scale
            self.ledger.put(
                name, value, rank if per_rank else None, line.pid, Evidence(line.number, evidence_text(line.text))
            )

    def result(self) -> StartUp:
        facts, ranks, evidence, derived = self.ledger.reduce()
        up = self.ready_line is not None or self.engine_up
        context = {"tensor_parallel_size": self.tensor_parallel_size, "block_size": self.block_size}
        failure = self.diagnosis.conclude(up=up, facts=facts, **context)
        return StartUp(
            number=self.number,
            vllm_version=self.version,
            platform=self.platform,
            simulated=self.simulated,
            engine_ready=True if up else (False if self.diagnosis.failed else None),
            failure=failure,
            facts=facts,
            ranks=ranks,
            derived=derived,
            checks=_checks(self, ranks),
            evidence=evidence,
        )


def _checks(state: _StartUpState, ranks: dict[str, dict[str, float]]) -> list[Check]:
    return budget_checks(state.version, ranks, graph_estimate_applied=state.graph_estimate_applied)


def evidence_text(text: str) -> str:
    """Return a line as it may be kept: redacted and of bounded length."""
    short = text if len(text) <= MAX_EVIDENCE_CHARACTERS else text[:MAX_EVIDENCE_CHARACTERS] + " [cut]"
    return redact(short)


def parse_log(raw: bytes) -> list[StartUp]:
    """Parse a whole log; UTF-16 files (Windows consoles) are recognised by their byte order mark."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raw = raw.decode("utf-16", "replace").encode()
    parser = LogParser()
    parser.feed(raw)
    return parser.close()
