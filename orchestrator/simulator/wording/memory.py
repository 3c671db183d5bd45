"""Sentences about memory: weights, profiling, KV cache and CUDA graphs."""

from packaging.version import Version

from orchestrator.memory.runtime import GIB
from orchestrator.vllm.version import at_least

Sentence = str


def gib(version: Version, size_bytes: float) -> str:
    """Format bytes as GiB: two decimals until 0.13.0, rounded without padding from 0.14.0."""
    value = size_bytes / GIB
    return str(round(value, 2)) if at_least(version, "0.14.0") else f"{value:.2f}"


def rounded_gib(size_bytes: float) -> str:
    """Format bytes as GiB the way `round(x, 2)` prints."""
    return str(round(size_bytes / GIB, 2))


def weights(version: Version, size_bytes: int, seconds: float) -> Sentence:
    """Return the line after loading; `memory` joined the wording in 0.11.1."""
    if at_least(version, "0.14.0"):
        return f"Model loading took {rounded_gib(size_bytes)} GiB memory and {seconds:.6f} seconds"
    memory = " memory" if at_least(version, "0.11.1") else ""
    return f"Model loading took {size_bytes / GIB:.4f} GiB{memory} and {seconds:.6f} seconds"


def snapshot(version: Version, free: int, total: int, used: int, timestamp: float) -> Sentence:
    """Return the snapshot a worker logs before it loads (0.14.0 and later)."""
    device = "cuda" if not at_least(version, "0.30.0") else "GPU"
    allocated = "torch_allocated=0.0GiB, " if at_least(version, "0.27.0") else ""
    return (
        f"worker init memory snapshot: torch_peak=0.0GiB, {allocated}free_memory={rounded_gib(free)}GiB, "
        f"total_memory={rounded_gib(total)}GiB, {device}_memory={rounded_gib(used)}GiB, torch_memory=0.0GiB, "
        f"non_torch_memory={rounded_gib(used)}GiB, timestamp={timestamp:.7f}, auto_measure=True"
    )


def initial_free(version: Version, free: int, current_free: int, utilization: float, requested: int) -> Sentence:
    """Return the DEBUG line about free and requested memory (0.9.1 and later)."""
    if not at_least(version, "0.10.1"):
        return (
            f"Initial free memory: {free / GIB:.2f} GiB, free memory: {current_free / GIB:.2f} GiB, "
            f"requested GPU memory: {requested / GIB:.2f} GiB"
        )
    share = f"{utilization:f}" if at_least(version, "0.14.0") else f"{utilization:.2f}"
    return (
        f"Initial free memory: {gib(version, free)} GiB; Requested memory: {share} (util), "
        f"{gib(version, requested)} GiB"
    )


def free_after(version: Version, free: int, within_requested: int) -> Sentence:
    """Return the DEBUG line about memory left after profiling (0.10.1 and later)."""
    return (
        f"Free memory after profiling: {gib(version, free)} GiB (total), "
        f"{gib(version, within_requested)} GiB (within requested)"
    )


def profiling(version: Version, seconds: float, weights_bytes: int, activation: int, non_torch: int) -> Sentence:
    """Return the breakdown; from 0.27.0 weights and non-torch memory are one number."""
    total = weights_bytes + activation + non_torch
    text = (
        f"Memory profiling takes {seconds:.2f} seconds. Total non KV cache memory: {gib(version, total)}GiB; "
        f"torch peak memory increase: {gib(version, activation)}GiB; "
    )
    if at_least(version, "0.27.0"):
        consumed = weights_bytes + non_torch
        text += f"total consumed (from mem_get_info): {gib(version, consumed)}GiB; "
    else:
        text += f"non-torch forward increase memory: {gib(version, non_torch)}GiB; "
    return text + f"weights memory: {gib(version, weights_bytes)}GiB."


def available_kv(version: Version, size_bytes: int) -> Sentence:
    """Return the line with the KV cache's memory; the number may be negative."""
    return f"Available KV cache memory: {gib(version, size_bytes)} GiB"


def kv_bytes_mode(version: Version, free: int, kv_bytes: int) -> Sentence:
    """Return the line that replaces profiling under `--kv-cache-memory-bytes`."""
    early = not at_least(version, "0.11.1")
    free_text = rounded_gib(free) if early else gib(version, free)
    kv_text = f"{kv_bytes / GIB:.2f}GiB" if early else f"{gib(version, kv_bytes)} GiB"
    does = "does does not" if early else "does not"
    return (
        f"Initial free memory {free_text} GiB, reserved {kv_text} memory for KV Cache as specified by "
        f"kv_cache_memory_bytes config and skipped memory profiling. This {does} respect the "
        "gpu_memory_utilization config. Only use kv_cache_memory_bytes config when you want manual control of "
        "KV cache memory size. If OOM'ed, check the difference of initial free memory between the current run "
        "and the previous run where kv_cache_memory_bytes is suggested and update it correspondingly."
    )


def kv_size(version: Version, tokens: int, max_model_len: int, concurrency: float) -> list[Sentence]:
    """Return the lines about tokens and concurrency: two until 0.27.1, one from 0.28.0."""
    size = f"GPU KV cache size: {tokens:,} tokens"
    most = f"Maximum concurrency for {max_model_len:,} tokens per request: {concurrency:.2f}x"
    return [f"{size}, {most}"] if at_least(version, "0.28.0") else [size, most]


def suggestion(
    version: Version,
    *,
    free: int,
    total: int,
    utilization: float,
    requested: int,
    weights_bytes: int,
    activation: int,
    non_torch: int,
    graphs: int,
    estimate_in_budget: int,
    kv_bytes: int,
) -> Sentence:
    """Return the line that sums the budget up and suggests `--kv-cache-memory` (0.10.2 and later)."""
    slack = 150 * 2**20  # vLLM keeps this back in its suggestion
    used = weights_bytes + activation + non_torch + graphs + slack
    fit, full = requested - used, free - used
    if at_least(version, "0.27.0"):
        usage = (
            f"{rounded_gib(weights_bytes + non_torch)} GiB for consumed memory (weights + non-torch), "
            f"{rounded_gib(activation + estimate_in_budget)} GiB for peak activation, and "
            f"{rounded_gib(graphs)} GiB for CUDAGraph memory"
        )
    else:
        usage = (
            f"{rounded_gib(weights_bytes)} GiB for weight, {rounded_gib(activation)} GiB for peak activation, "
            f"{rounded_gib(non_torch)} GiB for non-torch memory, and {rounded_gib(graphs)} GiB for CUDAGraph memory"
        )
    late = at_least(version, "0.11.0")
    fit_gib = f" ({rounded_gib(fit)} GiB)" if late else ""
    full_gib = f" ({rounded_gib(full)} GiB)" if late else ""
    in_use = f"{rounded_gib(kv_bytes)} GiB" if late else f"{kv_bytes} bytes"
    return (
        f"Free memory on device ({rounded_gib(free)}/{rounded_gib(total)} GiB) on startup. Desired GPU memory "
        f"utilization is ({utilization}, {rounded_gib(requested)} GiB). Actual usage is {usage}. Replace "
        f"gpu_memory_utilization config with `--kv-cache-memory={fit}`{fit_gib} to fit into requested memory, or "
        f"`--kv-cache-memory={full}`{full_gib} to fully utilize gpu memory. Current kv cache memory in use is "
        f"{in_use}."
    )


def graph_advice(version: Version, utilization: float, share: float) -> Sentence:
    """Return the line about graph memory in the budget; `share` is graph memory over device memory."""
    more, less = utilization + share, utilization - share
    if at_least(version, "0.20.0"):
        return (
            "CUDA graph memory profiling is enabled (default since v0.21.0). The current "
            f"--gpu-memory-utilization={utilization:.4f} is equivalent to --gpu-memory-utilization={less:.4f} "
            "without CUDA graph memory profiling. To maintain the same effective KV cache size as before, "
            f"increase --gpu-memory-utilization to {more:.4f}. To disable, set "
            "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0."
        )
    return (
        "In v0.19, CUDA graph memory profiling will be enabled by default "
        "(VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1), which more accurately accounts for CUDA graph memory "
        "during KV cache allocation. To try it now, set VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1 and increase "
        f"--gpu-memory-utilization from {utilization:.4f} to {more:.4f} to maintain the same effective KV cache "
        "size."
    )


def graph_pool(actual: int, estimated: int) -> Sentence:
    """Return the comparison of measured and estimated graph memory (0.18.0 and later)."""
    difference = abs(actual - estimated)
    percent = 100 * difference / actual if actual else 0.0
    return (
        f"CUDA graph pool memory: {rounded_gib(actual)} GiB (actual), {rounded_gib(estimated)} GiB (estimated), "
        f"difference: {rounded_gib(difference)} GiB ({percent:.1f}%)."
    )
