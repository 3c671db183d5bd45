"""Identities that the figures of one start-up must satisfy; a broken one flags the result, it changes nothing."""

import re
from collections.abc import Iterator, Mapping

from orchestrator.vllm_log.meaning import release_of
from orchestrator.vllm_log.result import Check, StartUp

# Four figures, each rounded to 0.01, and a requested size rounded to 0.01.
BUDGET_TOLERANCE_GIB = 0.03
# Ranks share one kind of device and one share of each layer; vocabularies and heads do not always divide evenly.
DEVICE_TOLERANCE_GIB = 1.0
WEIGHTS_TOLERANCE_RATIO = 0.05
MOST_LAYER_GROUPS = 64
_TENSOR_RANK = re.compile(r"_?TP\d+$")


def identity_checks(start_up: StartUp) -> list[Check]:
    """Return every check that the log has the figures for."""
    checks: list[Check] = []
    taken = start_up.meaning.get("cuda_graph_estimated_gib") == "taken from the KV cache"
    for rank, facts in sorted(start_up.ranks.items()):
        checks += _of_rank(rank, facts, release_of(start_up.vllm_version), taken=taken)
    checks += _rank_agreement(start_up.ranks)
    checks += _of_engine(start_up)
    return checks


def _of_rank(
    rank: str, facts: Mapping[str, float], release: tuple[int, int, int] | None, *, taken: bool
) -> Iterator[Check]:
    budget = _budget_residual(facts, release, taken=taken)
    if budget is not None:
        yield Check("budget_identity", rank, budget, abs(budget) <= BUDGET_TOLERANCE_GIB)
    parts = ("activation_gib", "non_torch_gib", "weights_gib")
    if "non_kv_cache_gib" in facts and "consumed_gib" not in facts and all(name in facts for name in parts):
        residual = facts["non_kv_cache_gib"] - sum(facts[name] for name in parts)
        yield Check("profile_sum", rank, residual, abs(residual) <= BUDGET_TOLERANCE_GIB)
    if {"requested_gib", "device_total_gib", "utilization_ratio"} <= facts.keys():
        share, total = facts["utilization_ratio"], facts["device_total_gib"]
        residual = facts["requested_gib"] - share * total
        # The share is printed with two decimals in some versions, the sizes in most.
        tolerance = 0.02 + 0.005 * total
        yield Check("requested_share", rank, residual, abs(residual) <= tolerance)


def _budget_residual(facts: Mapping[str, float], release: tuple[int, int, int] | None, *, taken: bool) -> float | None:
    """Return requested - everything that was found in it, None when a term is missing.

    weights + activation + non-torch + KV cache; from 0.20.0 the CUDA-graph estimate joins the sum, from 0.27.0 it is
    inside the activation, and weights and non-torch are one figure. In patched vllm-ascend builds the peak of torch
    holds weights and activation.
    """
    kv_cache = facts.get("kv_cache_gib", facts.get("kv_cache_in_use_gib"))
    if "requested_gib" not in facts or kv_cache is None:
        return None
    budget = facts["requested_gib"] - facts.get("external_weights_gib", 0.0)
    budget -= kv_cache + facts.get("mm_decode_reserve_gib", 0.0)
    if {"consumed_gib", "activation_gib"} <= facts.keys():
        return budget - facts["consumed_gib"] - facts["activation_gib"]
    if {"weights_gib", "activation_gib", "non_torch_gib"} <= facts.keys():
        if release is None and "cuda_graph_estimated_gib" in facts:
            return None  # whether the estimate was taken out depends on the version
        inside = release is not None and release >= (0, 27, 0)
        estimate = facts.get("cuda_graph_estimated_gib", 0.0) if taken and not inside else 0.0
        return budget - facts["weights_gib"] - facts["activation_gib"] - facts["non_torch_gib"] - estimate
    if {"torch_peak_gib", "non_torch_gib"} <= facts.keys():
        return budget - facts["torch_peak_gib"] - facts["non_torch_gib"]
    if "non_kv_cache_gib" in facts and "weights_gib" not in facts:
        return budget - facts["non_kv_cache_gib"]  # CPU: one figure for all
    return None


def _rank_agreement(ranks: Mapping[str, Mapping[str, float]]) -> Iterator[Check]:
    """Compare ranks that should be alike: the same device, and within a pipeline stage the same weights."""
    for name, tolerance in (("device_total_gib", DEVICE_TOLERANCE_GIB), ("requested_gib", DEVICE_TOLERANCE_GIB)):
        values = [facts[name] for facts in ranks.values() if name in facts]
        if len(values) > 1:
            spread = max(values) - min(values)
            yield Check("rank_agreement", None, spread, spread <= tolerance, of=name)
    stages: dict[str, list[float]] = {}
    for rank, facts in ranks.items():
        if "weights_gib" in facts:
            stages.setdefault(_TENSOR_RANK.sub("", rank), []).append(facts["weights_gib"])
    for stage, values in sorted(stages.items()):
        if len(values) > 1:
            spread = max(values) - min(values)
            tolerance = WEIGHTS_TOLERANCE_RATIO * max(values) + 0.02
            yield Check("rank_agreement", stage or None, spread, spread <= tolerance, of="weights_gib")


def _of_engine(start_up: StartUp) -> Iterator[Check]:
    facts = start_up.facts
    release = release_of(start_up.vllm_version)
    if release is None or "kv_cache_tokens" not in facts:
        return
    tokens = facts["kv_cache_tokens"]
    if release >= (0, 20, 1) and {"max_concurrency", "concurrency_tokens"} <= facts.keys():
        length = facts["concurrency_tokens"]
        residual = tokens - facts["max_concurrency"] * length
        yield Check("tokens_concurrency", None, residual, abs(residual) <= 0.005 * length + 1, unit="tokens")
    block = start_up.settings.get("block_size")
    if release < (0, 20, 1) and "kv_cache_blocks" in facts and isinstance(block, int) and tokens > 0:
        # A hybrid model's layer groups share the pool: tokens = blocks // groups x block size.
        slots = facts["kv_cache_blocks"] * block
        groups = min(MOST_LAYER_GROUPS, max(1, round(slots / tokens)))
        residual = tokens - facts["kv_cache_blocks"] // groups * block
        yield Check("tokens_blocks", None, residual, residual == 0, unit="tokens")


def against_metrics(
    start_up: StartUp, *, num_gpu_blocks: int | None, block_size: int | None, kv_cache_size_tokens: int | None
) -> list[Check]:
    """Compare the log with `vllm:cache_config_info` of /metrics from the same server; None is not told there.

    With data parallelism the metric sums the blocks of all engines, while the log prints one engine's.
    """
    facts = start_up.facts
    release = release_of(start_up.vllm_version)
    checks = []
    engines = start_up.settings.get("data_parallel_size")
    engines = engines if isinstance(engines, int) and engines > 0 else 1
    if num_gpu_blocks is not None and "kv_cache_blocks" in facts:
        residual = num_gpu_blocks - facts["kv_cache_blocks"] * engines
        checks.append(Check("metrics_blocks", None, residual, residual == 0, unit="blocks"))
    tokens = facts.get("kv_cache_tokens")
    if kv_cache_size_tokens is not None and tokens is not None:
        residual = kv_cache_size_tokens - tokens
        checks.append(Check("metrics_tokens", None, residual, residual == 0, unit="tokens"))
    elif num_gpu_blocks is not None and block_size and tokens and (release is None or release < (0, 20, 1)):
        slots = num_gpu_blocks // engines * block_size
        groups = min(MOST_LAYER_GROUPS, max(1, round(slots / tokens)))
        residual = num_gpu_blocks // engines // groups * block_size - tokens
        checks.append(Check("metrics_tokens", None, residual, residual == 0, unit="tokens"))
    return checks


def bytes_per_token(start_up: StartUp, kv_bytes_per_token: float) -> list[Check]:
    """Compare tokens x bytes per token and rank with the GiB of the KV cache; wants a model without layer groups."""
    facts = start_up.facts
    if not {"kv_cache_gib", "kv_cache_tokens"} <= facts.keys():
        return []
    residual = facts["kv_cache_gib"] - facts["kv_cache_tokens"] * kv_bytes_per_token / 2**30
    # One block may be left over, and the size is printed to 0.01 GiB.
    tolerance = 0.01 + 1024 * kv_bytes_per_token / 2**30
    return [Check("kv_bytes_per_token", None, residual, abs(residual) <= tolerance)]
