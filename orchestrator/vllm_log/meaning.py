"""What a figure means in its version: the same words came to mean other things, so that versions can be compared."""

import re

from orchestrator.vllm_log.result import StartUp

Release = tuple[int, int, int]


def release_of(version: str | None) -> Release | None:
    """Return (major, minor, patch) of a version, None when it is unknown: a checkout without tags builds 0.1.devN."""
    if (version or "").startswith("0.1.dev"):
        return None
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version or "")
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def default_utilization(release: Release) -> float:
    """Return vLLM's own --gpu-memory-utilization: 0.9, and 0.92 from 0.20.0."""
    return 0.92 if release >= (0, 20, 0) else 0.9


def estimate_is_taken(release: Release | None, told: bool | None) -> bool:
    """Say whether the CUDA-graph estimate is taken out of the KV cache: by the log's word, else from 0.20.0."""
    if told is not None:
        return told
    return release is not None and release >= (0, 20, 0)


def meaning_of(start_up: StartUp, *, estimate_applied: bool | None, profiling_skipped: bool) -> dict[str, str]:
    """Return, for each fact whose meaning depends on the version, a code for it; absent where the log does not tell."""
    facts = start_up.facts
    release = release_of(start_up.vllm_version)
    meaning: dict[str, str] = {}
    if profiling_skipped:
        meaning["kv_cache_gib"] = "given, not profiled"
    elif "kv_cache_gib" in facts:
        meaning["kv_cache_gib"] = "profiled"
    if start_up.settings.get("gpu_memory_utilization") is not None:
        meaning["utilization_ratio"] = "given"
    elif release is not None:
        meaning["utilization_ratio"] = f"default {default_utilization(release)}"
    if release is None:
        return meaning
    if "kv_cache_tokens" in facts:
        meaning["kv_cache_tokens"] = (
            "max_concurrency x max_model_len" if release >= (0, 20, 1) else "blocks x block_size / layer groups"
        )
    if "cuda_graph_estimated_gib" in facts:
        taken = estimate_is_taken(release, estimate_applied)
        meaning["cuda_graph_estimated_gib"] = "taken from the KV cache" if taken else "printed only"
    if "activation_gib" in facts:
        inside = estimate_is_taken(release, estimate_applied) and (
            release >= (0, 27, 0) or (0, 18, 0) <= release < (0, 19, 0)
        )
        meaning["activation_gib"] = "with the CUDA-graph estimate" if inside else "without CUDA graphs"
    if "non_torch_gib" in facts:
        merged = "derived: consumed - weights" if "non_torch_gib" in start_up.derived else "printed"
        meaning["non_torch_gib"] = merged if release >= (0, 11, 0) else f"{merged}, with NCCL"
    return meaning
