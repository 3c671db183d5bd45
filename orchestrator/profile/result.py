"""The result of one point: ready or failed, with the evidence, and where its numbers come from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.vllm_log import StartUp


class Source(StrEnum):
    """Where figures come from; only the first may be quoted as a measurement."""

    MEASURED = "measured"
    SIMULATED = "SIMULATED"


@dataclass(frozen=True, slots=True)
class PointFailure:
    """Why a point failed: kind, stage and rank, the words that prove it, and the smallest change that would start."""

    kind: str
    stage: str
    rank: str | None
    line_number: int | None
    line: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class LiveSample:
    """One reading of /metrics while a request ran; `expected_*` bound the blocks it must hold (None: not known)."""

    used_blocks: int | None
    usage_ratio: float
    generated_tokens: int
    expected_min_blocks: int | None
    expected_max_blocks: int | None


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """The KV accounting under one live request; `agrees` is None when it could not be judged."""

    prompt_tokens: int
    block_size: int | None
    num_gpu_blocks: int | None
    samples: tuple[LiveSample, ...]
    agrees: bool | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class IdleMetrics:
    """What /metrics said before any request; `agrees_with_log` is None when the log gave no block count."""

    usage_ratio: float | None
    num_gpu_blocks: int | None
    block_size: int | None
    kv_cache_size_tokens: int | None
    agrees_with_log: bool | None


@dataclass(frozen=True, slots=True)
class PointResult:
    """What is stored of one point. `seconds` are durations by kprof's own clock: queued, startup, probe, total.

    Of a pod that was `adopted` from a kprof that was killed only the probe's is known.
    """

    point_hash: str
    attempt: int
    source: Source
    pod: str
    node: str | None
    failure: PointFailure | None
    start_up: StartUp
    idle: IdleMetrics | None = None
    live: LiveCheck | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    adopted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the result as it is stored and printed by `kprof show --format json`."""
        return {
            "point_hash": self.point_hash,
            "attempt": self.attempt,
            "source": str(self.source),
            "outcome": "ready" if self.failure is None else "failed",
            "pod": self.pod,
            "node": self.node,
            "failure": None if self.failure is None else asdict(self.failure),
            "start_up": self.start_up.to_json(self.pod),
            "metrics": None if self.idle is None else asdict(self.idle),
            "live": None if self.live is None else asdict(self.live),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "adopted": self.adopted,
            "flags": list(self.flags),
        }
