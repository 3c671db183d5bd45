"""What the parser says of one start-up: facts, per rank and overall, failure, checks, and the evidence of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.vllm_log.redact import redact

# Every fact in the order in which it is printed, and which value counts over several ranks: the largest of what is
# used, the smallest of what is left.
FACTS: Mapping[str, Callable[[float, float], float]] = {
    "weights_gib": max,
    "activation_gib": max,
    "non_torch_gib": max,
    "consumed_gib": max,
    "non_kv_cache_gib": max,
    "torch_peak_gib": max,
    "load_peak_gib": max,
    "cuda_graph_gib": max,
    "cuda_graph_estimated_gib": max,
    "encoder_graph_gib": max,
    "encoder_cache_tokens": max,
    "encoder_items": max,
    "kv_cache_gib": min,
    "kv_cache_in_use_gib": min,
    "kv_cache_tokens": min,
    "kv_cache_blocks": min,
    "cpu_blocks": max,
    "max_concurrency": min,
    "concurrency_tokens": min,
    "device_total_gib": min,
    "device_free_gib": min,
    "requested_gib": min,
    "utilization_ratio": min,
    "free_after_profile_gib": min,
    "free_in_request_gib": min,
    "external_weights_gib": max,
    "mm_decode_reserve_gib": max,
    "cpu_offload_gib": max,
    "checkpoint_gib": max,
    "model_load_seconds": max,
    "profile_seconds": max,
    "compile_seconds": max,
    "graph_capture_seconds": max,
    "engine_init_seconds": max,
}
WHOLE_NUMBERS = frozenset(
    {"kv_cache_tokens", "kv_cache_blocks", "concurrency_tokens", "cpu_blocks", "encoder_cache_tokens", "encoder_items"}
)


SHOWN_CHARACTERS = 2000


class Evidence:
    """The line that proves a fact or a failure; lines count from 1.

    Only `line`, which is redacted, is for use: redacting costs more than reading, and most lines are never asked for.
    """

    __slots__ = ("_raw", "line_number")

    def __init__(self, line_number: int, raw: str) -> None:
        self.line_number = line_number
        self._raw = raw

    def __repr__(self) -> str:
        return f"Evidence({self.line_number}, {self.line!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evidence) and (self.line_number, self._raw) == (other.line_number, other._raw)

    def __hash__(self) -> int:
        return hash((self.line_number, self._raw))

    @property
    def line(self) -> str:
        """Return the line with every secret taken out; of a longer one, 2000 characters and a note that it was cut."""
        text = redact(self._raw)
        return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " [cut]"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start-up failed: a kind of the stable vocabulary, the stage, the rank and the line that proves it.

    `numbers` holds what the line says, for example needed_gib, available_gib and estimated_max_model_len.
    """

    kind: str
    stage: str
    rank: str | None
    evidence: Evidence
    remedy: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """An identity that must hold between facts; `residual` is what is left over, in `unit` (gib, tokens, blocks).

    `of` names the fact that ranks were compared by; `rank` is None for the engine as a whole.
    """

    name: str
    rank: str | None
    residual: float
    ok: bool
    unit: str = "gib"
    of: str | None = None

    @property
    def shown(self) -> str:
        """Return what is left over with its unit, for people."""
        unit = "GiB" if self.unit == "gib" else self.unit
        digits = 2 if self.unit == "gib" else 0
        return f"{round(self.residual, digits) + 0.0:+.{digits}f} {unit}"

    @property
    def subject(self) -> str:
        """Return what was checked: the name, the fact compared, the rank."""
        return " ".join(part for part in (self.name, self.of, self.rank) if part)

    def to_json(self) -> dict[str, Any]:
        """Return the check as it is printed and stored; the unit is in the residual's name."""
        extra = {} if self.of is None else {"of": self.of}
        return {
            "name": self.name,
            "rank": self.rank,
            f"residual_{self.unit}": round(self.residual, 4),
            "ok": self.ok,
            **extra,
        }


@dataclass(slots=True)
class StartUp:
    """One start-up found in a log; a fact that is missing is unknown, never 0.

    `engine_ready` is None when the log does not tell. `simulated` is True for a log of kprof's own simulator.
    """

    number: int
    vllm_version: str | None = None
    platform: str | None = None
    simulated: bool = False
    engine_ready: bool | None = None
    failure: Failure | None = None
    facts: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, dict[str, float]] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)
    meaning: dict[str, str] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Say how far it came: `ready`, `died`, `interrupted`, or `starting` when the log ends before any of them."""
        if self.failure is not None:
            return "interrupted" if self.failure.kind == "interrupted" else "died"
        return {True: "ready", False: "died", None: "starting"}[self.engine_ready]

    @property
    def tells_something(self) -> bool:
        """Say whether the log held anything of a vLLM start-up."""
        return bool(self.vllm_version or self.facts or self.failure) or self.engine_ready is not None

    def to_json(self, log: str) -> dict[str, Any]:
        """Return the object that `kprof parse --format json` prints for this start-up."""
        failure = self.failure
        return {
            "log": log,
            "start": self.number,
            "vllm_version": self.vllm_version,
            "platform": self.platform,
            "simulated": self.simulated,
            "engine_ready": self.engine_ready,
            "state": self.state,
            "failure": None
            if failure is None
            else {
                "kind": failure.kind,
                "stage": failure.stage,
                "rank": failure.rank,
                "line_number": failure.evidence.line_number,
                "line": failure.evidence.line,
                "remedy": failure.remedy,
                **failure.numbers,
            },
            "facts": _printed(self.facts),
            "ranks": [{"rank": rank, **_printed(facts)} for rank, facts in sorted(self.ranks.items())],
            "derived": dict(self.derived),
            "meaning": dict(self.meaning),
            "settings": dict(self.settings),
            "phases": [{"moment": moment, **figures} for moment, figures in self.phases.items()],
            "checks": [check.to_json() for check in self.checks],
            "evidence": {
                name: {"line_number": item.line_number, "line": item.line} for name, item in self.evidence.items()
            },
        }


def _printed(facts: Mapping[str, float]) -> dict[str, float | int]:
    ordered = [name for name in FACTS if name in facts]
    return {name: int(facts[name]) if name in WHOLE_NUMBERS else facts[name] for name in ordered}
