"""Identities that the figures of one start-up must satisfy; a broken one flags the result, it changes nothing."""

import re
from collections.abc import Mapping

from orchestrator.vllm_log.result import Check

# Four figures, each rounded to 0.01, and a requested size rounded to 0.01.
BUDGET_TOLERANCE_GIB = 0.03


def _release(version: str | None) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def budget_checks(
    version: str | None, ranks: Mapping[str, Mapping[str, float]], *, graph_estimate_applied: bool | None
) -> list[Check]:
    """Check per rank that requested = weights + activation + non-torch + KV cache.

    From 0.20.0 the CUDA-graph estimate joins the sum; from 0.27.0 it is inside the activation, and weights and
    non-torch are one figure. A rank that lacks a term is not checked.
    """
    release = _release(version)
    if not release:
        return []
    checks = []
    for rank, facts in sorted(ranks.items()):
        names = ["activation_gib", "kv_cache_gib"]
        names += ["consumed_gib"] if release >= (0, 27) else ["weights_gib", "non_torch_gib"]
        if "requested_gib" not in facts or any(name not in facts for name in names):
            continue
        residual = facts["requested_gib"] - sum(facts[name] for name in names)
        applied = release >= (0, 20) if graph_estimate_applied is None else graph_estimate_applied
        if applied and release < (0, 27):
            residual -= facts.get("cuda_graph_estimated_gib", 0.0)
        checks.append(Check("budget_identity", rank, residual, abs(residual) <= BUDGET_TOLERANCE_GIB))
    return checks
