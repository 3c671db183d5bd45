"""KV-cache figures in the text that a vLLM server answers on /metrics."""

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.vllm.version import at_least, parse_version

# 0.9.2 and later; the second name was printed until 0.11.2, and alone until 0.9.1. Both are ratios from 0 to 1.
USAGE_NAMES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
CACHE_CONFIG_NAME = "vllm:cache_config_info"


@dataclass(frozen=True, slots=True)
class KvMetrics:
    """KV cache as the server reports it; with data parallelism `num_gpu_blocks` is the sum over engines.

    `usage_ratio` is used blocks / (num_gpu_blocks - 1), one block being the null block (0.10.2+);
    `generation_tokens` counts since the server started. None is unknown.
    """

    usage_ratio: float | None
    num_gpu_blocks: int | None
    block_size: int | None
    kv_cache_size_tokens: int | None
    gpu_memory_utilization: float | None
    enable_prefix_caching: bool | None
    requests_running: int | None
    generation_tokens: int | None

    def used_blocks(self, *, null_block: bool = True) -> int | None:
        """Return the blocks in use, None when the ratio is no whole number of blocks, or nobody told how many.

        `null_block` says that one block of the pool is never in use (see `has_null_block`).
        """
        if self.usage_ratio is None or not math.isfinite(self.usage_ratio):
            return None
        if self.num_gpu_blocks is None or self.num_gpu_blocks < 2:
            return None
        blocks = self.usage_ratio * (self.num_gpu_blocks - null_block)
        nearest = round(blocks)
        return nearest if math.isclose(blocks, nearest, abs_tol=1e-6 * self.num_gpu_blocks) else None


def has_null_block(version: str | None) -> bool:
    """Say whether the usage counts blocks without the null block: from 0.10.2, and where the version is unknown."""
    parsed = None if version is None else parse_version(version)
    return parsed is None or at_least(parsed, "0.10.2")


def read_metrics(text: str) -> KvMetrics | None:
    """Read a /metrics body; None when it is no Prometheus text or holds no vLLM metric."""
    usage: dict[str, float] = {}
    labels: dict[str, str] = {}
    running: float | None = None
    generated: float | None = None
    found = False
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found = found or sample.name.startswith("vllm:")
                if sample.name in USAGE_NAMES:
                    known = usage.get(sample.name)
                    usage[sample.name] = sample.value if known is None else max(known, sample.value)
                elif sample.name == CACHE_CONFIG_NAME:
                    labels = dict(sample.labels)
                elif sample.name == "vllm:num_requests_running":
                    running = (running or 0.0) + sample.value
                elif sample.name == "vllm:generation_tokens_total":
                    generated = (generated or 0.0) + sample.value
    except (ValueError, KeyError, IndexError):
        return None
    if not found:
        return None
    return KvMetrics(
        usage_ratio=next((usage[name] for name in USAGE_NAMES if name in usage), None),
        num_gpu_blocks=_whole(labels.get("num_gpu_blocks")),
        block_size=_whole(labels.get("block_size")),
        kv_cache_size_tokens=_whole(labels.get("kv_cache_size_tokens")),
        gpu_memory_utilization=_real(labels.get("gpu_memory_utilization")),
        enable_prefix_caching={"True": True, "False": False}.get(labels.get("enable_prefix_caching", "")),
        requests_running=None if running is None else int(running),
        generation_tokens=None if generated is None else int(generated),
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def _real(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
