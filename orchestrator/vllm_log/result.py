"""What the parser says of one start-up: facts, per rank and overall, failure, checks, and the evidence of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Over several ranks the overall fact is the largest of these, the smallest of all others.
LARGEST = frozenset(
    {
        "weights_gib",
        "activation_gib",
        "non_torch_gib",
        "consumed_gib",
        "cuda_graph_gib",
        "cuda_graph_estimated_gib",
        "model_load_seconds",
        "compile_seconds",
        "graph_capture_seconds",
        "engine_init_seconds",
    }
)
WHOLE_NUMBERS = frozenset({"kv_cache_tokens", "kv_cache_blocks", "concurrency_tokens"})
# The order in which facts are printed.
FACTS = (
    "weights_gib",
    "activation_gib",
    "non_torch_gib",
    "consumed_gib",
    "cuda_graph_gib",
    "cuda_graph_estimated_gib",
    "kv_cache_gib",
    "kv_cache_tokens",
    "kv_cache_blocks",
    "max_concurrency",
    "concurrency_tokens",
    "device_total_gib",
    "device_free_gib",
    "requested_gib",
    "utilization_ratio",
    "model_load_seconds",
    "compile_seconds",
    "graph_capture_seconds",
    "engine_init_seconds",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The redacted line that proves a fact or a failure; lines count from 1."""

    line_number: int
    line: str


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
    """An identity that must hold between facts; `residual_gib` is what is left over, None when not checkable."""

    name: str
    rank: str | None
    residual_gib: float
    ok: bool


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
            "checks": [
                {"name": check.name, "rank": check.rank, "residual_gib": round(check.residual_gib, 4), "ok": check.ok}
                for check in self.checks
            ],
            "evidence": {
                name: {"line_number": item.line_number, "line": item.line} for name, item in self.evidence.items()
            },
        }


def _printed(facts: Mapping[str, float]) -> dict[str, float | int]:
    ordered = [name for name in FACTS if name in facts]
    return {name: int(facts[name]) if name in WHOLE_NUMBERS else facts[name] for name in ordered}
