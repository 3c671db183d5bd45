"""Every wording that carries a figure: a sample line, the versions that print it, and the facts it gives.

Facts are stored under the names of the result; GiB unless the name says otherwise.
"""

import math
import re
from dataclasses import dataclass

N = r"(-?[\d,]{0,24}\.?\d{1,24})"
UNIT = "unit"  # the group after a value names its unit
UNIT_GIB = {"bytes": 2**-30, "B": 2**-30, "KiB": 2**-20, "MiB": 2**-10, "GiB": 1.0}


def number(text: str) -> float | None:
    """Read a printed number, thousands separators dropped; None for digits that make no sense as one."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e18 else None


@dataclass(frozen=True, slots=True)
class Wording:
    """One log line's meaning: `needle` is a plain substring that must be present, `pattern` reads the numbers.

    `names` are the facts of the groups in order, None for a group that is not kept, UNIT for the unit of the value
    before it. `in_passing` marks figures of error messages, which count only when no other line gives them.
    """

    name: str
    needle: str
    pattern: re.Pattern[str]
    names: tuple[str | None, ...]
    scale: float = 1.0
    in_passing: bool = False


def _wording(
    name: str, needle: str, pattern: str, *names: str | None, scale: float = 1.0, in_passing: bool = False
) -> Wording:
    return Wording(name, needle, re.compile(pattern), names, scale, in_passing)


BYTES = 1 / 2**30

WORDINGS: tuple[Wording, ...] = (
    # Model loading took 14.9889 GiB and 7.412345 seconds (0.8.3-0.13), ... 14.99 GiB memory and ... (0.11.1+)
    # Loading model weights took 13.9281 GB (until 0.8.2, vllm-ascend to date); "GB" is 2**30 bytes.
    _wording(
        "weights",
        " took ",
        rf"(?:Loading model weights|Model loading) took {N} (?:GB|GiB)(?: memory)?(?: and {N} seconds)?",
        "weights_gib",
        "model_load_seconds",
    ),
    # Loading model weights took in total 15.05 GiB of device memory (Gaudi)
    _wording(
        "weights_hpu", "took in total", rf"Loading model weights took in total {N} GiB of device memory", "weights_gib"
    ),
    # Memory profiling takes 3.01 seconds. Total non KV cache memory: 20.2GiB; torch peak memory increase: 4.76GiB;
    # non-torch forward increase memory: 0.13GiB; weights memory: 14.99GiB. (DEBUG, 0.9.1-0.26)
    _wording(
        "profile",
        "torch peak memory increase",
        rf"torch peak memory increase: {N} ?GiB; *(?:\s#[^;]*)?non-torch forward increase memory: {N} ?GiB; *"
        rf"weights memory: {N} ?GiB",
        "activation_gib",
        "non_torch_gib",
        "weights_gib",
    ),
    # ... torch peak memory increase: 2.3GiB; total consumed (from mem_get_info): 25.86GiB; weights memory: 25.69GiB.
    _wording(
        "profile_consumed",
        "total consumed (from mem_get_info)",
        rf"total consumed \(from mem_get_info\): {N} ?GiB; weights memory: {N} ?GiB",
        "consumed_gib",
        "weights_gib",
    ),
    # the current vLLM instance can use total_gpu_memory (39.50GiB) x gpu_memory_utilization (0.90) = 35.55GiB (V0)
    _wording(
        "v0_budget",
        "total_gpu_memory (",
        rf"total_gpu_memory \({N}GiB\) x gpu_memory_utilization \({N}\) = {N}GiB",
        "device_total_gib",
        "utilization_ratio",
        "requested_gib",
    ),
    # model weights take 13.93GiB; non_torch_memory takes 1.54GiB; PyTorch activation peak memory takes 2.84GiB;
    # the rest of the memory reserved for KV Cache is 17.24GiB. (V0, 0.6.5-0.10.2)
    _wording(
        "v0_parts",
        "non_torch_memory takes",
        rf"model weights take {N}GiB; non_torch_memory takes {N}GiB; PyTorch activation peak memory takes {N}GiB; "
        rf"the rest of the memory reserved for KV Cache is {N}GiB",
        "weights_gib",
        "non_torch_gib",
        "activation_gib",
        "kv_cache_gib",
    ),
    # Memory profiling results: total_gpu_memory=23.57GiB ... non_torch_memory=0.15GiB kv_cache_size=3.1GiB (0.6.4)
    _wording(
        "v064_profile",
        "Memory profiling results",
        rf"total_gpu_memory={N}GiB initial_memory_usage={N}GiB peak_torch_memory={N}GiB "
        rf"memory_usage_post_profile={N}Gi[Bb]? non_torch_memory={N}GiB kv_cache_size={N}GiB",
        "device_total_gib",
        None,
        None,
        None,
        "non_torch_gib",
        "kv_cache_gib",
    ),
    # Initial free memory: 78.68 GiB; Requested memory: 0.90 (util), 71.26 GiB (DEBUG, 0.10.1+)
    _wording(
        "initial_free",
        "Initial free memory: ",
        rf"Initial free memory: {N} GiB; Requested memory: {N} \(util\), {N} GiB",
        "device_free_gib",
        "utilization_ratio",
        "requested_gib",
    ),
    # Initial free memory: 78.68 GiB, free memory: 62.1 GiB, requested GPU memory: 71.26 GiB (DEBUG, 0.9.1-0.10.0)
    _wording(
        "initial_free_09",
        "requested GPU memory",
        rf"Initial free memory: {N} GiB, free memory: {N} GiB, requested GPU memory: {N} GiB",
        "device_free_gib",
        None,
        "requested_gib",
    ),
    # worker init memory snapshot: torch_peak=0.0GiB, free_memory=78.68GiB, total_memory=79.19GiB, ... (DEBUG, 0.14+)
    _wording(
        "snapshot",
        "worker init memory snapshot",
        rf"free_memory={N}GiB, total_memory={N}GiB",
        "device_free_gib",
        "device_total_gib",
    ),
    # worker requested memory: 75.23GiB (DEBUG, 0.14+)
    _wording("requested", "worker requested memory", rf"worker requested memory: {N} ?GiB", "requested_gib"),
    # Free memory on device (78.68/79.19 GiB) on startup. Desired GPU memory utilization is (0.95, 75.23 GiB).
    _wording(
        "free_on_device",
        "Free memory on device",
        rf"Free memory on device(?: \S+)? \({N}/{N} GiB\) on startup",
        "device_free_gib",
        "device_total_gib",
    ),
    _wording(
        "desired",
        "Desired GPU memory utilization",
        rf"Desired GPU memory utilization is \({N}, {N} GiB\)",
        "utilization_ratio",
        "requested_gib",
    ),
    # Actual usage is 14.99 GiB for weight, 1.89 GiB for peak activation, 0.25 GiB for non-torch memory, and
    # 0.91 GiB for CUDAGraph memory. (0.10.2-0.26)
    _wording(
        "usage",
        "GiB for weight,",
        rf"Actual usage is {N} GiB for weight, {N} GiB for peak activation, {N} GiB for non-torch memory, and {N} GiB",
        "weights_gib",
        "activation_gib",
        "non_torch_gib",
        "cuda_graph_gib",
    ),
    # Actual usage is 25.86 GiB for consumed memory (weights + non-torch), 2.32 GiB for peak activation, and 1.01 GiB
    # for CUDAGraph memory. (0.27+)
    _wording(
        "usage_consumed",
        "consumed memory (weights",
        rf"Actual usage is {N} GiB for consumed memory \(weights \+ non-torch\), {N} GiB for peak activation, "
        rf"and {N} GiB",
        "consumed_gib",
        "activation_gib",
        "cuda_graph_gib",
    ),
    # Error in memory profiling. Initial free memory 43.37 GiB, current free memory 43.94 GiB. (0.9.1+)
    _wording(
        "profiling_race",
        "Initial free memory ",
        rf"Initial free memory {N} GiB, current free memory",
        "device_free_gib",
    ),
    # Initial free memory 78.68 GiB, reserved 2.00 GiB memory for KV Cache as specified by kv_cache_memory_bytes
    _wording(
        "kv_bytes_mode",
        "memory for KV Cache as specified",
        rf"Initial free memory {N} GiB, reserved {N} ?GiB memory for KV Cache",
        "device_free_gib",
        "kv_cache_gib",
    ),
    # CUDA out of memory. ... GPU 0 has a total capacity of 44.52 GiB of which 10.50 MiB is free.
    _wording(
        "oom_capacity",
        "has a total capac",
        rf"has a total capac\w+ of {N} ([KMG]iB) of which {N} (bytes|[KMG]iB) is free",
        "device_total_gib",
        UNIT,
        "device_free_gib",
        UNIT,
        in_passing=True,
    ),
    # NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.96 GiB total capacity; ...; 1.53 GiB free; ...
    _wording(
        "oom_capacity_old",
        " total capacity; ",
        rf"\((?:NPU|GPU) \d+; {N} ([KMG]iB) total capacity; .{{0,200}}?; {N} (bytes|[KMG]iB) free",
        "device_total_gib",
        UNIT,
        "device_free_gib",
        UNIT,
        in_passing=True,
    ),
    # ... is larger than the available KV cache memory (4.45 GiB). (0.7+)
    _wording(
        "kv_too_small",
        "available KV cache memory (",
        rf"larger than the available KV cache memory \({N} Gi?B\)",
        "kv_cache_gib",
    ),
    # ... the maximum number of tokens that can be stored in KV cache (41200). (V0)
    _wording("v0_tokens", "can be stored in KV cache", rf"can be stored in KV cache \({N}\)", "kv_cache_tokens"),
    # Free device memory: 79.22 GiB, 71.3 GiB usable (...), ..., 64.17 GiB reserved for KV cache (Gaudi)
    _wording(
        "hpu_free",
        "Free device memory: ",
        rf"Free device memory: {N} GiB, {N} GiB usable .{{0,200}}?, {N} GiB reserved for KV cache",
        "device_free_gib",
        "requested_gib",
        "kv_cache_gib",
    ),
    _wording("hpu_total", "GiB used) and", rf"device memory \({N} GiB/{N} GiB used\)", None, "device_total_gib"),
    # Available KV cache memory: 51.38 GiB (0.9.1+); may be negative
    _wording("available_kv", "Available KV cache memory: ", rf"Available KV cache memory: {N} GiB", "kv_cache_gib"),
    # Available memory: 26664089702, total memory: 65452113920 (vllm-ascend until 0.14: bytes)
    _wording(
        "ascend_available",
        "Available memory: ",
        rf"Available memory: {N}, total memory: {N}\s*$",
        "kv_cache_gib",
        "device_total_gib",
        scale=BYTES,
    ),
    # Available memory: 43.396 GiB, total memory: 60.96 GiB
    _wording(
        "ascend_available_gib",
        "Available memory: ",
        rf"Available memory: {N} GiB, (?:total memory: {N} GiB|requested memory)",
        "kv_cache_gib",
        "device_total_gib",
    ),
    # GPU KV cache size: 420,992 tokens (0.8+), CPU KV cache size: ... (0.30+)
    _wording("kv_tokens", "KV cache size: ", rf"KV cache size: {N} tokens", "kv_cache_tokens"),
    # Maximum concurrency for 16,000 tokens per request: 26.31x (0.6.3+)
    _wording(
        "concurrency",
        "Maximum concurrency for",
        rf"Maximum concurrency for {N} tokens per request: {N}x",
        "concurrency_tokens",
        "max_concurrency",
    ),
    # # cuda blocks: 2868, # CPU blocks: 2048 (V0, 0.7+), # GPU blocks: 27896, # CPU blocks: 2048 (V0)
    _wording("blocks_v0", " blocks: ", rf"# (?!CPU)\w+ blocks: {N}", "kv_cache_blocks"),
    # vllm cache_config_info with initialization after num_gpu_blocks is: 3289 (0.9+)
    _wording(
        "num_gpu_blocks",
        "after num_gpu_blocks is",
        rf"cache_config_info with initialization after num_gpu_blocks is: {N}",
        "kv_cache_blocks",
    ),
    # Auto set (3.78/22.59) GiB for KV cache on node 0, with 4.52 GiB requested memory for the worker. (CPU, 0.20+)
    _wording(
        "cpu_auto",
        "GiB for KV cache on node",
        rf"(?:Auto|Explicitly) set \({N}/{N}\) GiB for KV cache on node",
        "kv_cache_gib",
        "device_total_gib",
    ),
    _wording("cpu_requested", "requested memory for the worker", rf"with {N} GiB requested memory", "requested_gib"),
    # Graph capturing finished in 17 secs, took 0.39 GiB (0.6.4+); may be negative
    _wording(
        "graph",
        "raph capturing finished",
        rf"(?<!Encoder g)[Gg]raph capturing finished in {N} secs, took {N} GiB",
        "graph_capture_seconds",
        "cuda_graph_gib",
    ),
    # Estimated CUDA graph memory: 0.84 GiB total (0.18+)
    _wording(
        "graph_estimate",
        "Estimated CUDA graph memory",
        rf"Estimated CUDA graph memory: {N} GiB total",
        "cuda_graph_estimated_gib",
    ),
    # init engine (profile, create kv cache, warmup model) took 41.20 seconds (0.6.5+), ... took 41.20 s (0.20+)
    _wording(
        "init_engine",
        "init engine (profile",
        rf"init engine \(profile, create kv cache, warmup model\) took {N} s",
        "engine_init_seconds",
    ),
    # torch.compile takes 12.3 s in total (0.6.5-0.17), torch.compile took ... (0.18+)
    _wording(
        "compile",
        "torch.compile ",
        rf"torch\.compile (?:takes|took|and initial profiling/warmup run together took) {N} s in total",
        "compile_seconds",
    ),
)

# vLLM API server version 0.11.0 (until 0.14), "█ version 0.19.0" (banner), LLM engine (v0.19.0) with config
VERSION = re.compile(
    r"(?:vLLM API server version|vLLM server version|█\s+version|LLM engine \(v?|vllm_version[=:'\" ]+)\s*v?"
    r"(\d+\.\d+(?:\.\d+)*[\w.+]*)"
)
PLATFORM = re.compile(r"Automatically detected platform (\w+)")
# Init engine is printed from 0.6.5 on; before that the graphs were the last step. Gaudi ends with its warm-up.
ENGINE_UP = re.compile(
    r"init engine \(profile|Graph capturing finished in \d+ secs\.(?!.*took)|Warmup finished in \d+ secs"
)
ENGINE_START = re.compile(r"Initializing an? (?:V1 )?LLM engine \(v")
READY = re.compile(r"Application startup complete\.|Uvicorn running on ")
START = re.compile(r"vLLM API server version |vLLM server version |█\s+version \d")
LOADING = re.compile(r"Starting to load model ")
# The engine prints its KV cache size right before it captures; only older engines need a word for it.
CAPTURING = re.compile(r"Capturing cudagraphs for|Capturing the model for CUDA graphs")
# Wrappers put words before it, so it is looked for anywhere.
SIMULATOR = re.compile(r"kprof simulator \S+: ")
