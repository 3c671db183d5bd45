"""Why a start-up failed: the first root cause in the log, with its stage; never the last line, never a consequence."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.vllm_log.failures import (
    CAUSES,
    DEATH,
    DEVICE_CAPACITY,
    ESTIMATED_LENGTH,
    FRAME,
    OTHER_PROCESS,
    QUOTED_SOURCE,
    STAGE_FRAMES,
    THIS_PROCESS,
    FailureWording,
)
from orchestrator.vllm_log.framing import Line
from orchestrator.vllm_log.redact import redact
from orchestrator.vllm_log.remedy import remedy_for
from orchestrator.vllm_log.result import Evidence, Failure
from orchestrator.vllm_log.wordings import UNIT_GIB, number

STAGES = ("config", "load", "profile", "kv_cache", "graph_capture", "warmup", "runtime")
# The stage a start-up is in once a line of this wording was printed.
_STAGE_AFTER: Mapping[str, str] = {
    "weights": "profile",
    "profile": "kv_cache",
    "available_kv": "kv_cache",
    "kv_tokens": "graph_capture",
    "graph": "warmup",
    "init_engine": "warmup",
}
_OOM_STAGES = frozenset({"load", "profile", "graph_capture", "warmup", "runtime"})
_QUIET_LEVELS = frozenset({"TRACE", "DEBUG", "INFO"})
_TELLING_FRAMES = {name: stage for stage, names in STAGE_FRAMES for name in names}
_FRAME_ORDER = [stage for stage, _ in STAGE_FRAMES]
MAX_LINE = 2000
MAX_TRACEBACKS = 64  # processes whose last traceback is remembered
# A pasted log may have lost its newlines: in a line this long, quoted source stands beside rendered messages.
LONG_LINE = 250
BUSY_SHARE = 0.25  # another process with more than this part of the device makes the device busy


@dataclass(frozen=True, slots=True)
class _Sign:
    """A failure as it was found; its rank is known only once the process has told its name."""

    failure: Failure
    pid: str | None


class Diagnosis:
    """Reads the lines of one start-up in order and keeps the first cause and the first sign of death."""

    def __init__(self) -> None:
        self.stage = "config"
        self._strong: _Sign | None = None
        self._weak: _Sign | None = None
        self._death: _Sign | None = None
        self._frames: dict[str, set[str]] = {}

    @property
    def failed(self) -> bool:
        """Say whether the log shows that the start-up ended."""
        return any((self._strong, self._weak, self._death))

    def enter(self, stage: str) -> None:
        """Move on to a stage; stages never go back."""
        if STAGES.index(stage) > STAGES.index(self.stage):
            self.stage = stage

    def after(self, wording: str) -> None:
        """Note that a line of this wording was printed."""
        if wording in _STAGE_AFTER:
            self.enter(_STAGE_AFTER[wording])

    def read(self, line: Line) -> str | None:
        """Look for a failure in the line; returns its kind when it is the first of its rank of certainty."""
        key = line.pid or ""
        if "Traceback (most recent call last)" in line.text:
            self._frames.pop(key, None)
            while len(self._frames) >= MAX_TRACEBACKS:
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = set()
        if (match := FRAME.search(line.text)) and len(line.text) < LONG_LINE:
            if match.group(1) in _TELLING_FRAMES:
                self._frames.setdefault(key, set()).add(_TELLING_FRAMES[match.group(1)])
            return None
        if line.level in _QUIET_LEVELS and "out of memory" not in line.message:
            return None
        if len(line.message) < LONG_LINE and QUOTED_SOURCE.search(line.message):
            return None
        for cause in CAUSES:
            if match := cause.pattern.search(line.text):
                return self._found(cause, match, line)
        if DEATH.search(line.text) and self._death is None:
            self._death = _Sign(Failure("engine.died", self.stage, None, _evidence(line)), line.pid)
        return None

    def _found(self, cause: FailureWording, match: re.Match[str], line: Line) -> str | None:
        if self._strong is not None or (cause.weak and self._weak is not None):
            return None
        stage = self._stage_of(line.pid or "")
        kind = cause.kind
        numbers = _numbers(cause, match)
        if kind == "oom":
            kind = "gpu.busy" if _device_is_busy(line.text) else f"oom.{stage}" if stage in _OOM_STAGES else "oom"
            numbers |= _capacity(line.text)
        if estimate := ESTIMATED_LENGTH.search(line.text):
            numbers["estimated_max_model_len"] = float(estimate.group(1))
        if kind.startswith("kv."):
            stage = "kv_cache"
        elif kind.startswith(("config.", "model.")):
            stage = "config"
        sign = _Sign(Failure(kind, stage, None, _evidence(line), numbers=numbers), line.pid)
        if cause.weak:
            self._weak = sign
        else:
            self._strong = sign
        return kind

    def _stage_of(self, pid: str) -> str:
        seen = self._frames.get(pid) or self._frames.get("") or set()
        return next((stage for stage in _FRAME_ORDER if stage in seen), self.stage)

    def conclude(
        self,
        *,
        up: bool,
        facts: Mapping[str, float],
        kv_line: Evidence | None,
        rank_of: Callable[[str | None], str | None],
        tensor_parallel_size: int | None,
        block_size: int | None,
    ) -> Failure | None:
        """Return the failure with its remedy; a weak sign counts only when the engine did not come up."""
        sign = self._strong or (None if up else self._weak or self._death)
        if sign is None:
            return None
        failure, numbers = sign.failure, dict(sign.failure.numbers)
        nothing_left = facts.get("kv_cache_gib", 1.0) <= 0
        if failure.kind == "engine.died" and kv_line is not None and nothing_left:
            # The engine died right after it found nothing left; the exception itself was cut off.
            failure = replace(failure, kind="kv.no_room", stage="kv_cache", evidence=kv_line)
        if failure.kind == "kv.no_room" and nothing_left:
            numbers["available_kv_gib"] = facts["kv_cache_gib"]
        remedy = remedy_for(failure.kind, numbers, tensor_parallel_size=tensor_parallel_size, block_size=block_size)
        return replace(failure, rank=rank_of(sign.pid), remedy=remedy, numbers=numbers)


def _numbers(cause: FailureWording, match: re.Match[str]) -> dict[str, float]:
    values = ((name, number(text)) for name, text in zip(cause.numbers, match.groups(), strict=False) if text)
    return {name: value for name, value in values if value is not None and name != "tried"}


def _evidence(line: Line) -> Evidence:
    return Evidence(line.number, redact(line.text[:MAX_LINE]))


def _gib(match: re.Match[str]) -> float:
    return float(match.group(1)) * UNIT_GIB[match.group(2)]


def _device_is_busy(text: str) -> bool:
    others = sum(_gib(match) for match in OTHER_PROCESS.finditer(text))
    capacity = DEVICE_CAPACITY.search(text)
    own = THIS_PROCESS.search(text)
    if not others or capacity is None or own is None:
        return False
    return others > BUSY_SHARE * _gib(capacity)


def _capacity(text: str) -> dict[str, float]:
    match = DEVICE_CAPACITY.search(text)
    if match is None:
        return {}
    return {"total_gib": _gib(match), "free_gib": float(match.group(3)) * UNIT_GIB[match.group(4)]}
