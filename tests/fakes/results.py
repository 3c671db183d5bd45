"""Results of points as the store holds them."""

from typing import Any

from orchestrator.matrix.point import Point
from orchestrator.profile.result import PointFailure, PointResult, Source
from orchestrator.vllm_log import StartUp

FACTS = {
    "weights_gib": 14.99,
    "activation_gib": 4.76,
    "non_torch_gib": 0.13,
    "cuda_graph_gib": -0.45,
    "kv_cache_gib": 51.38,
    "kv_cache_tokens": 420992.0,
}


def result(
    of: Point,
    *,
    attempt: int = 0,
    source: Source = Source.MEASURED,
    facts: dict[str, float] | None = None,
    kind: str | None = None,
    line: str = "the line",
    remedy: str | None = "do this",
    flags: tuple[str, ...] = (),
) -> PointResult:
    """Return a result that started, or one that failed with `kind`."""
    failure = None if kind is None else PointFailure(kind, "load", None, 7, line, remedy)
    start_up = StartUp(1, vllm_version="0.11.0", facts=dict(FACTS if facts is None else facts))
    return PointResult(of.hash, attempt, source, f"pod-{attempt}", "node-1", failure, start_up, flags=flags)


def document(of: Point, **fields: Any) -> dict[str, Any]:
    """Return the stored document of such a result."""
    return result(of, **fields).to_json()
