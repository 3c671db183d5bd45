"""One start-up while its lines come in: settings, stages, facts, and whether it is over."""

import re
from collections.abc import Iterator

from orchestrator.vllm_log.checks import budget_checks
from orchestrator.vllm_log.diagnosis import Diagnosis
from orchestrator.vllm_log.framing import Line, rank_of
from orchestrator.vllm_log.ledger import Ledger
from orchestrator.vllm_log.redact import redact
from orchestrator.vllm_log.result import Evidence, StartUp
from orchestrator.vllm_log.wordings import (
    CAPTURING,
    ENGINE_START,
    ENGINE_UP,
    LOADING,
    PLATFORM,
    READY,
    START,
    UNIT,
    UNIT_GIB,
    VERSION,
    WORDINGS,
    Wording,
    number,
)

MAX_EVIDENCE_CHARACTERS = 2000
MAX_ENGINES = 256

_TP = re.compile(r"'?tensor_parallel_size'?[=:]\s*(\d{1,6})")
_BLOCK = re.compile(r"'?block_size'?[=:]\s*(\d{1,6})")
_GRAPHS_APPLIED = re.compile(r"CUDA graph memory profiling (?:is (enabled|disabled)|will be enabled)")


def evidence(line: Line) -> Evidence:
    """Return a line as it may be kept: redacted and of bounded length."""
    text = line.text
    if len(text) > MAX_EVIDENCE_CHARACTERS:
        text = text[:MAX_EVIDENCE_CHARACTERS] + " [cut]"
    return Evidence(line.number, redact(text))


class StartUpReader:
    """Reads the lines of one start-up in order; `result()` says at any time what is known."""

    def __init__(self, number_: int, *, simulated: bool = False) -> None:
        self._number = number_
        self.simulated = simulated
        self._version: str | None = None
        self._platform: str | None = None
        self._ready = False
        self._engine_up = False
        self._engines: dict[str, str | None] = {}
        self._tensor_parallel_size: int | None = None
        self._block_size: int | None = None
        self._graph_estimate_applied: bool | None = None
        self._ledger = Ledger()
        self._diagnosis = Diagnosis()

    def ends_before(self, line: Line) -> bool:
        """Say whether this line begins another start-up: a new server, or an engine of a name that had its start."""
        over = self._ready or self._engine_up or self._diagnosis.failed
        if not over:
            return False
        if START.search(line.text):
            return True
        known = self._engines.get(line.process or "", line.pid)
        again = line.process is None and "" in self._engines
        return bool(ENGINE_START.search(line.text)) and (known != line.pid or again)

    def read(self, line: Line) -> Iterator[tuple[str, str]]:
        """Read a line; yields the name and value of what it told."""
        text = line.text
        self._settings(line)
        before = self._diagnosis.stage
        self._ledger.name(line.pid, rank_of(line.process))
        if LOADING.search(text):
            self._diagnosis.enter("load")
        if CAPTURING.search(text):
            self._diagnosis.enter("graph_capture")
        if ENGINE_UP.search(text):
            self._engine_up = True
        if READY.search(text) and not self._ready:
            self._ready = True
            self._diagnosis.enter("runtime")
            yield "ready", ""
        for wording in WORDINGS:
            if wording.needle in text:
                self._facts(wording, line)
        if self._diagnosis.stage != before:
            yield "stage", self._diagnosis.stage
        kind = self._diagnosis.read(line)
        if kind is not None:
            yield "failure", kind

    def _settings(self, line: Line) -> None:
        text = line.text
        if self._version is None and (match := VERSION.search(text)):
            self._version = match.group(1).rstrip(".")
        if match := PLATFORM.search(text):
            self._platform = match.group(1)
        if self._tensor_parallel_size is None and (match := _TP.search(text)):
            self._tensor_parallel_size = int(match.group(1))
        if self._block_size is None and (match := _BLOCK.search(text)):
            self._block_size = int(match.group(1))
        if match := _GRAPHS_APPLIED.search(text):
            self._graph_estimate_applied = match.group(1) == "enabled"
        if ENGINE_START.search(text) and len(self._engines) < MAX_ENGINES:
            self._engines[line.process or ""] = line.pid

    def _facts(self, wording: Wording, line: Line) -> None:
        for match in wording.pattern.finditer(line.text):
            self._diagnosis.after(wording.name)
            groups = match.groups()
            for place, (name, text) in enumerate(zip(wording.names, groups, strict=True)):
                if name is None or name == UNIT or text is None:
                    continue
                value = number(text)
                if value is None:
                    continue
                unit = groups[place + 1] if wording.names[place + 1 : place + 2] == (UNIT,) else None
                scale = UNIT_GIB[unit] if unit is not None else wording.scale
                if wording.in_passing:
                    self._ledger.put_in_passing(name, value * scale, evidence(line))
                else:
                    self._ledger.put(name, value * scale, line.pid, evidence(line))

    def result(self) -> StartUp:
        """Return the start-up as far as the log has told it."""
        facts, ranks, lines, derived = self._ledger.reduce()
        up = self._ready or self._engine_up
        failure = self._diagnosis.conclude(
            up=up,
            facts=facts,
            kv_line=lines.get("kv_cache_gib"),
            rank_of=self._ledger.rank_of,
            tensor_parallel_size=self._tensor_parallel_size,
            block_size=self._block_size,
        )
        return StartUp(
            number=self._number,
            vllm_version=self._version,
            platform=self._platform,
            simulated=self.simulated,
            engine_ready=True if up else (False if self._diagnosis.failed else None),
            failure=failure,
            facts=facts,
            ranks=ranks,
            derived=derived,
            checks=budget_checks(self._version, ranks, graph_estimate_applied=self._graph_estimate_applied),
            evidence=lines,
        )
