"""Why a start-up failed: the first root cause in the log, with its stage; never the last line, never a consequence."""

import re
from collections.abc import Mapping, Sequence

from orchestrator.vllm_log.failures import (
    DEVICE_CAPACITY,
    ESTIMATED_LENGTH,
    FRAME,
    OTHER_PROCESS,
    QUOTED_SOURCE,
    STAGE_FRAMES,
    THIS_PROCESS,
    UNIT_GIB,
    FailureWording,
)
from orchestrator.vllm_log.framing import Line
from orchestrator.vllm_log.redact import redact
from orchestrator.vllm_log.remedy import remedy_for
from orchestrator.vllm_log.result import Evidence, Failure
from orchestrator.vllm_log.wordings import number

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
MAX_LINE = 2000
BUSY_SHARE = 0.25  # another process with more than this part of the device makes the device busy


class Diagnosis:
    """Reads the lines of one start-up in order and keeps the first cause and the first sign of death."""

    def __init__(self) -> None:
        self.stage = "config"
        self._strong: Failure | None = None
        self._weak: Failure | None = None
        self._death: Failure | None = None
        self._frames: dict[str, set[str]] = {}

    @property
    def failed(self) -> bool:
        """Say whether the log shows that the start-up ended."""
        return any((self._strong, self._weak, self._death))

    def enter(self, stage: str) -> None:
        """Move on to a stage; stages never go back, except that ready ends them all."""
        if STAGES.index(stage) > STAGES.index(self.stage):
            self.stage = stage

    def after(self, wording: str) -> None:
        """Note that a line of this wording was printed."""
        if wording in _STAGE_AFTER:
            self.enter(_STAGE_AFTER[wording])

    def read(
        self, line: Line, rank: str | None, causes: Sequence[FailureWording], death: re.Pattern[str]
    ) -> str | None:
        """Look for a failure in the line; returns its kind when it is the first of its rank of certainty."""
        key = line.pid or ""
        if "Traceback (most recent call last)" in line.text:
            self._frames[key] = set()
        if match := FRAME.search(line.text):
            self._frames.setdefault(key, set()).add(match.group(1))
            return None
        if line.level in {"DEBUG", "INFO", "TRACE"} and "out of memory" not in line.message:
            return None
        if QUOTED_SOURCE.search(line.message):
            return None
        for cause in causes:
            if match := cause.pattern.search(line.text):
                return self._found(cause, match, line, rank)
        if death.search(line.text) and self._death is None:
            self._death = Failure("engine.died", self.stage, rank, _evidence(line))
        return None

    def _found(self, cause: FailureWording, match: re.Match[str], line: Line, rank: str | None) -> str | None:
        if self._strong is not None or (cause.weak and self._weak is not None):
            return None
        stage = self._stage_of(line.pid or "")
        kind = cause.kind
        numbers = {
            name: number(text)
            for name, text in zip(cause.numbers, match.groups(), strict=False)
            if text and name != "tried"
        }
        if kind == "oom":
            kind = "gpu.busy" if _device_is_busy(line.text) else f"oom.{stage}" if stage in _OOM_STAGES else "oom"
            numbers |= _capacity(line.text)
        if estimate := ESTIMATED_LENGTH.search(line.text):
            numbers["estimated_max_model_len"] = float(estimate.group(1))
        if kind.startswith("kv."):
            stage = "kv_cache"
        elif kind.startswith(("config.", "model.")):
            stage = "config"
        failure = Failure(kind, stage, rank, _evidence(line), numbers=numbers)
        if cause.weak:
            self._weak = failure
        else:
            self._strong = failure
        return kind

    def _stage_of(self, pid: str) -> str:
        frames = self._frames.get(pid) or self._frames.get("") or set()
        for stage, names in STAGE_FRAMES:
            if frames & names:
                return stage
        return self.stage

    def conclude(
        self, *, up: bool, facts: Mapping[str, float], tensor_parallel_size: int | None, block_size: int | None
    ) -> Failure | None:
        """Return the failure with its remedy; a weak sign counts only when the engine did not come up."""
        failure = self._strong or (None if up else self._weak or self._death)
        if failure is None:
            return None
        numbers = dict(failure.numbers)
        if failure.kind == "kv.no_room" and facts.get("kv_cache_gib", 1.0) <= 0:
            numbers["available_kv_gib"] = facts["kv_cache_gib"]
        remedy = remedy_for(failure.kind, numbers, tensor_parallel_size=tensor_parallel_size, block_size=block_size)
        return Failure(failure.kind, failure.stage, failure.rank, failure.evidence, remedy, numbers)


_OOM_STAGES = {"load", "profile", "graph_capture", "warmup", "runtime"}


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
