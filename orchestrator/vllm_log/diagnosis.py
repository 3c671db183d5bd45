"""Why a start-up failed: the first root cause in the log, with its stage; never the last line, never a consequence."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.vllm_log.causes import Cause
from orchestrator.vllm_log.evidence import proof_of
from orchestrator.vllm_log.framing import Line
from orchestrator.vllm_log.marks import EXCEPTION, FRAME, HARMLESS, NEEDLES, QUOTED_SOURCE, STAGE_FRAMES, Mark
from orchestrator.vllm_log.oom import device_is_busy, device_memory
from orchestrator.vllm_log.remedy import remedy_for
from orchestrator.vllm_log.result import Evidence, Failure
from orchestrator.vllm_log.wordings import Stage

_OOM_STAGES = frozenset({Stage.LOAD, Stage.PROFILE, Stage.GRAPH_CAPTURE, Stage.WARMUP, Stage.RUNTIME})
_QUIET_LEVELS = frozenset({"TRACE", "DEBUG", "INFO"})
_TELLING_FRAMES = {name: Stage[stage.upper()] for stage, names in STAGE_FRAMES for name in names}
_FRAME_ORDER = [Stage[stage.upper()] for stage, _ in STAGE_FRAMES]
_ACCELERATOR = ("oom", "gpu.")
_BEFORE_READY = ("config.", "model.", "kv.")
_AFTER_A_SIGNAL = ("comm.", "engine.", "host.")
# Words by which an engine that served tells that it ends.
_ENDS = ("EngineCore encountered a fatal error", "EngineDeadError", "died unexpectedly", "MQLLMEngine is already dead")
_ESTIMATED_LENGTH = re.compile(r"the estimated maximum model length is (\d{1,12})")
_DEVICE_INDEX = re.compile(r"on device (?:cuda|npu|xpu|hip|gpu):(\d{1,4})\b")
MAX_TRACEBACKS = 64  # processes whose last traceback is remembered
# A pasted log may have lost its newlines: in a line this long, quoted source stands beside rendered messages.
LONG_LINE = 250


@dataclass(frozen=True, slots=True)
class _Sign:
    """A failure as it was found; its rank is known only once the process has told its name.

    `open` says that the stage of an out-of-memory error was guessed, and that a traceback may still tell it. `warned`
    says that it was only a warning, or a hint. `remedy` is the cause's own advice.
    """

    kind: str
    stage: Stage
    proof: Evidence
    pid: str | None
    device: int | None
    numbers: Mapping[str, float]
    open: bool = False
    warned: bool = False
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the rest of the log says that a diagnosis needs; None is unknown."""

    up: bool
    facts: Mapping[str, float]
    kv_line: Evidence | None
    rank_of: Callable[[str | None], str | None]
    tensor_parallel_size: int | None
    block_size: int | None


class Diagnosis:
    """Reads the lines of one start-up in order and keeps the first cause and the first sign of death."""

    def __init__(self) -> None:
        self.stage = Stage.CONFIG
        self._strong: _Sign | None = None
        self._weak: _Sign | None = None
        self._death: _Sign | None = None
        self._exception: _Sign | None = None
        self._frames: dict[str, set[Stage]] = {}
        # Of a server that came up: the end of one of its processes.
        self._up = False
        self._ended: _Sign | None = None

    @property
    def failed(self) -> bool:
        """Say whether the log shows that the start-up ended."""
        weak = self._weak if self._weak is not None and not self._weak.warned else None
        return any((self._strong, weak, self._exception, self._death, self._ended))

    def came_up(self) -> None:
        """Note that the server is ready: whatever looked like a failure until now was none."""
        self._up = True
        self._strong = self._weak = self._exception = self._death = None
        self.enter(Stage.RUNTIME)

    def enter(self, stage: Stage) -> None:
        """Move on to a stage; stages never go back."""
        self.stage = max(self.stage, stage)

    def traceback(self, line: Line) -> None:
        """Note that a traceback begins: the frames of the last one of this process count no more."""
        key = line.pid or ""
        self._frames.pop(key, None)
        while len(self._frames) >= MAX_TRACEBACKS:
            self._frames.pop(next(iter(self._frames)))
        self._frames[key] = set()
        if line.level in ("ERROR", "CRITICAL") and self._death is None:
            self._death = _Sign("engine.died", self.stage, proof_of(line), line.pid, None, {})

    def frame(self, line: Line) -> bool:
        """Note a frame that tells the stage; returns whether the line is a frame of a traceback at all."""
        if len(line.message) >= LONG_LINE or not (match := FRAME.search(line.message)):
            return False
        if match.group(1) in _TELLING_FRAMES:
            self._frames.setdefault(line.pid or "", set()).add(_TELLING_FRAMES[match.group(1)])
        return True

    def read(self, line: Line, causes: Iterable[Cause], *, deadly: bool) -> str | None:
        """Look for a failure in the line, the causes in the order given.

        Returns its kind when it is the first of its rank of certainty.

        `deadly` says that the line may be a consequence, by which a process tells that it ends.
        """
        if self._strong is not None and not self._strong.open:
            return None
        # A signal is told at INFO. So is running out of memory, by some versions; once the server is ready, such a line
        # is somebody's prompt.
        telling = "eceived signal" in line.message or (not self._up and "out of memory" in line.message)
        if line.level in _QUIET_LEVELS and not telling:
            return None
        if HARMLESS.search(line.message):
            return None
        exception = EXCEPTION.search(line.message)
        if exception is None and len(line.message) < LONG_LINE and QUOTED_SOURCE.search(line.message):
            return None
        found = _first_cause(causes, line.message)
        if self._up:
            return self._read_served(line, found, is_exception=exception is not None)
        if found is not None:
            return self._found(*found, line)
        if self._exception is None and exception is not None and not _is_death(line.words):
            self._exception = _Sign(
                "unknown", self._told_stage(line.pid or "") or self.stage, proof_of(line), line.pid, None, {}
            )
        if deadly and self._death is None and _is_death(line.words):
            self._death = _Sign("engine.died", self.stage, proof_of(line), line.pid, None, {})
        return None

    def _read_served(
        self, line: Line, found: tuple[Cause, dict[str, float]] | None, *, is_exception: bool
    ) -> str | None:
        """Read a line of a server that is ready: requests fail for reasons of their own, so that only the accelerator's
        own words are believed alone. All else counts when a process of the engine tells that it ends.
        """
        if found is not None and found[0].kind.startswith(_ACCELERATOR):
            return self._found(*found, line)
        if found is not None and found[0].kind == "interrupted" and self._ended is None:
            return self._found(*found, line)
        if self._ended is None and any(needle in line.words for needle in _ENDS):
            kind = found[0].kind if found is not None and found[0].kind.startswith("host.") else "engine.died"
            self._ended = _Sign(kind, Stage.RUNTIME, proof_of(line), line.pid, None, {})
            return kind if self._weak is None else None
        if self._ended is not None and self._exception is None and is_exception and not _is_death(line.words):
            kind = "unknown" if found is None or found[0].kind.startswith(_BEFORE_READY) else found[0].kind
            self._exception = _Sign(kind, Stage.RUNTIME, proof_of(line), line.pid, None, {})
        return None

    def _found(self, cause: Cause, numbers: dict[str, float], line: Line) -> str | None:
        # A warning may turn out harmless, whatever it says.
        warned = cause.hint or line.level == "WARNING"
        weak = cause.weak or warned
        if weak and self._weak is not None and (warned or not self._weak.warned):
            return None
        told = self._told_stage(line.pid or "")
        if self._strong is not None:
            self._refine(cause, told)
            return None
        stage = told or self.stage
        kind = cause.kind
        if kind == "oom":
            if device_is_busy(line.words):
                kind = "gpu.busy"
            elif stage in _OOM_STAGES:
                kind = f"oom.{stage.name.lower()}"
            numbers |= device_memory(line.words)
        if estimate := _ESTIMATED_LENGTH.search(line.words):
            numbers["estimated_max_model_len"] = float(estimate.group(1))
        if kind.startswith("kv."):
            stage = Stage.KV_CACHE
        elif kind.startswith(("config.", "model.")):
            stage = Stage.CONFIG
        device = _DEVICE_INDEX.search(line.words)
        index = int(device.group(1)) if device else None
        guessed = cause.kind == "oom" and kind != "gpu.busy" and told is None
        sign = _Sign(
            kind, stage, proof_of(line), line.pid, index, numbers, open=guessed, warned=warned, remedy=cause.remedy
        )
        if weak:
            self._weak = sign
        else:
            self._strong = sign
        # What is not sure is told at the end: whoever listens would give a start-up up that may go on.
        return kind if not weak or kind == "interrupted" else None

    def _refine(self, cause: Cause, told: Stage | None) -> None:
        """Settle the stage of an out-of-memory error that is known already: V0 prints the message before the frames."""
        if self._strong is None:
            return
        if cause.kind.startswith("oom."):
            stage = Stage[cause.kind.removeprefix("oom.").upper()]
        elif cause.kind == "oom" and told in _OOM_STAGES and told is not None:
            stage = told
        else:
            return
        self._strong = replace(self._strong, kind=f"oom.{stage.name.lower()}", stage=stage, open=False)

    def _told_stage(self, pid: str) -> Stage | None:
        seen = self._frames.get(pid) or self._frames.get("") or set()
        return next((stage for stage in _FRAME_ORDER if stage in seen), None)

    def _decisive(self, *, up: bool) -> _Sign | None:
        """Return the sign that counts; what follows a signal is its consequence."""
        signal = self._weak if self._weak is not None and self._weak.kind == "interrupted" else None
        if self._up:
            return self._strong or (None if signal or self._ended is None else self._exception or self._ended)
        strong = self._strong
        if strong is not None and self._weak is not None and self._weak.kind == "model.unreachable":
            # What cannot be loaded because the hub is away is told as if its name were wrong.
            strong = self._weak if strong.kind == "model.missing" and "Can't load" in strong.proof.line else strong
        if strong is not None and signal is not None and strong.kind.startswith(_AFTER_A_SIGNAL):
            strong = strong if strong.proof.line_number < signal.proof.line_number else signal
        if strong is not None or up:
            return strong
        if self._weak is not None and self._weak.warned:
            return self._exception or self._weak
        return self._weak or self._exception or self._death

    def conclude(self, known: Known) -> Failure | None:
        """Return the failure with its remedy; a weak sign counts only when the engine did not come up."""
        sign = self._decisive(up=known.up)
        if sign is None:
            return None
        numbers = dict(sign.numbers)
        failure = Failure(sign.kind, sign.stage.name.lower(), _rank(sign, known), sign.proof)
        nothing_left = known.facts.get("kv_cache_gib", 1.0) <= 0
        if failure.kind == "engine.died" and known.kv_line is not None and nothing_left:
            # The engine died right after it found nothing left; the exception itself was cut off.
            failure = replace(failure, kind="kv.no_room", stage="kv_cache", evidence=known.kv_line)
        if failure.kind == "kv.no_room" and nothing_left:
            numbers["available_kv_gib"] = known.facts["kv_cache_gib"]
        remedy = sign.remedy or remedy_for(
            failure.kind, numbers, tensor_parallel_size=known.tensor_parallel_size, block_size=known.block_size
        )
        return replace(failure, remedy=remedy, numbers=numbers)


def _is_death(text: str) -> bool:
    return any(needle in text for needle in NEEDLES[Mark.DEATH])


def _first_cause(causes: Iterable[Cause], text: str) -> tuple[Cause, dict[str, float]] | None:
    for cause in causes:
        template = cause.template
        if template.needle in text and (match := template.pattern.search(text)):
            return cause, {name: value for name, value, _ in template.values(match) if name}
    return None


def _rank(sign: _Sign, known: Known) -> str | None:
    rank = known.rank_of(sign.pid)
    if rank is None and sign.device is not None and sign.device < (known.tensor_parallel_size or 0) > 1:
        return f"TP{sign.device}"  # the worker had no name yet; on one node the device's index is the rank
    return rank
