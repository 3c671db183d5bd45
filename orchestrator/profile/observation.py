"""What was seen of one pod so far: its log, its trouble, its probes."""

import asyncio
from dataclasses import dataclass, field

from orchestrator.profile.evidence import LogEvidence
from orchestrator.profile.pod_failures import PodTrouble
from orchestrator.profile.result import IdleMetrics, LiveCheck
from orchestrator.vllm_log import LogParser, redact

LAST_LINE_BYTES = 16 << 10
LAST_LINE_CHARACTERS = 300


@dataclass(slots=True)
class Observation:
    """Filled while a point runs; times are of the point's clock, `seconds` are durations by it."""

    parser: LogParser = field(default_factory=LogParser)
    evidence: LogEvidence = field(default_factory=LogEvidence)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failing: asyncio.Event = field(default_factory=asyncio.Event)
    last_bytes: bytes = b""
    last_progress: float = 0.0
    unreadable: str | None = None  # why the log cannot be read at present
    unreadable_since: float = 0.0
    gaps: int = 0
    trouble: PodTrouble | None = None
    idle: IdleMetrics | None = None
    live: LiveCheck | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def last_line(self) -> str:
        """Return the beginning of the last line; redacted before it is cut, since half a secret looks like none."""
        return redact(self.last_bytes.decode("utf-8", "replace"))[:LAST_LINE_CHARACTERS]
