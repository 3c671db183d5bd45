"""Sentences of failures: what vLLM, PyTorch and the Hugging Face libraries say."""

from packaging.version import Version

from orchestrator.memory.runtime import GIB
from orchestrator.simulator.wording.memory import gib, rounded_gib
from orchestrator.vllm.version import at_least

_DOCS = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
MIB = 2**20


def torch_size(size_bytes: int) -> str:
    """Format a size as PyTorch's allocator does: bytes, KiB, MiB or GiB."""
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    if size_bytes < MIB:
        return f"{size_bytes / 1024:.2f} KiB"
    if size_bytes < GIB:
        return f"{size_bytes / MIB:.2f} MiB"
    return f"{size_bytes / GIB:.2f} GiB"


def out_of_memory(
    version: Version, platform: str, *, gpu: int, tried: int, total: int, free: int, other: int, reserved: int
) -> str:
    """Return PyTorch's sentence; total = free + other processes + this process."""
    word = "HIP" if platform == "rocm" else "CUDA"
    mine = total - free - other
    context = min(mine, round(0.5 * GIB))
    allocated = max(0, mine - context - reserved)
    others = f"Process 214412 has {torch_size(other)} memory in use. " if other else ""
    variable = "PYTORCH_ALLOC_CONF" if at_least(version, "0.12.0") else f"PYTORCH_{word}_ALLOC_CONF"
    return (
        f"{word} out of memory. Tried to allocate {torch_size(tried)}. GPU {gpu} has a total capacity of "
        f"{torch_size(total)} of which {torch_size(free)} is free. {others}Including non-PyTorch memory, this process "
        f"has {torch_size(mine)} memory in use. Of the allocated memory {torch_size(allocated)} is allocated by "
        f"PyTorch, and {torch_size(reserved)} is reserved by PyTorch but unallocated. If reserved but unallocated "
        f"memory is large try setting {variable}=expandable_segments:True to avoid fragmentation.  See documentation "
        "for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


LOAD_OOM = (
    "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for "
    "weights, increasing --tensor-parallel-size, or using --quantization. See "
    "https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more tips."
)


def no_kv(version: Version) -> str:
    """Return the sentence for an empty KV cache; it carries no number."""
    text = (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine"
    )
    if at_least(version, "0.22.0"):
        text += " (this flag also controls CPU memory reservation on the CPU backend, despite its name)"
    return f"{text}. {_DOCS}" if at_least(version, "0.13.0") else f"{text}."


def kv_too_small(version: Version, max_model_len: int, needed: int, available: int, estimated: int) -> str:
    """Return the sentence for a KV cache smaller than one request; `estimated` is the length that fits."""
    models = "model's" if at_least(version, "0.22.0") else "models's"
    guess = f"Based on the available memory, the estimated maximum model length is {estimated}."
    if not at_least(version, "0.9.1"):
        # These releases lost the number: the sentence breaks off after the comma.
        guess = " Based on the available memory," if estimated > 0 else ""
        gap = "  "
    elif not at_least(version, "0.14.0"):
        guess, gap = f" {guess}" if estimated > 0 else " ", " "
    else:
        guess, gap = f" {guess}" if estimated > 0 else "", " "
    remark = " (which also controls CPU memory on the CPU backend)" if at_least(version, "0.22.0") else ""
    text = (
        f"To serve at least one request with the {models} max seq len ({max_model_len}), "
        f"({gib(version, needed)} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({gib(version, available)} GiB).{guess}{gap}Try increasing `gpu_memory_utilization`{remark} or decreasing "
        "`max_model_len` when initializing the engine."
    )
    return f"{text} {_DOCS}" if at_least(version, "0.13.0") else text


def auto_fit_impossible() -> str:
    """Return the sentence of `--max-model-len auto` when not even one token fits."""
    return (
        "Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token. "
        "Try increasing `gpu_memory_utilization`."
    )


def busy_device(version: Version, *, gpu: int, free: int, total: int, utilization: float, requested: int) -> str:
    """Return the sentence for a device that has less free memory than requested (0.9.1 and later)."""
    device = f" cuda:{gpu}" if at_least(version, "0.14.0") else ""
    return (
        f"Free memory on device{device} ({rounded_gib(free)}/{rounded_gib(total)} GiB) on startup is less than desired "
        f"GPU memory utilization ({utilization}, {rounded_gib(requested)} GiB). Decrease GPU memory utilization or "
        "reduce GPU memory used by other processes."
    )


def profiling_race(version: Version, initial: int, current: int) -> str:
    """Return the assertion for memory that another process released during profiling."""
    if not at_least(version, "0.9.1"):
        return (
            f"Error in memory profiling. Initial free memory {initial}, current free memory {current}. This happens "
            "when the GPU memory was not properly cleaned up before initializing the vLLM instance."
        )
    rounded = at_least(version, "0.14.0")
    first = rounded_gib(initial) if rounded else str(initial / GIB)
    second = rounded_gib(current) if rounded else str(current / GIB)
    return (
        f"Error in memory profiling. Initial free memory {first} GiB, current free memory {second} GiB. This happens "
        "when other processes sharing the same container release GPU memory while vLLM is profiling during "
        "initialization. To fix this, ensure consistent GPU memory allocation or isolate vLLM in its own container."
    )


def sampler_warmup(max_num_seqs: int) -> str:
    """Return the sentence for memory that ran out in the sampler's warm-up."""
    return (
        f"CUDA out of memory occurred when warming up sampler with {max_num_seqs} dummy requests. Please try "
        "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
    )


def length_above_model(version: Version, asked: int, derived: int) -> str:
    """Return the sentence for `--max-model-len` above what the model's config says."""
    effect = (
        "To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. "
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution."
        if at_least(version, "0.10.2")
        else "This may lead to incorrect model outputs or CUDA errors. To allow overriding this maximum, set the env "
        "var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
    )
    return (
        f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
        f"(max_position_embeddings={derived} or model_max_length=None in model's config.json). {effect}"
    )


def too_few_gpus(version: Version, world_size: int, gpus: int) -> str:
    """Return the sentence for more ranks than visible devices."""
    if at_least(version, "0.13.0"):
        return (
            f"World size ({world_size}) is larger than the number of available GPUs ({gpus}) in this node. "
            "If this is intentional and you are using:\n- ray, set '--distributed-executor-backend ray'.\n"
            "- multiprocessing, set '--nnodes' appropriately."
        )
    if at_least(version, "0.11.1"):
        return f"Tensor parallel size ({world_size}) cannot be larger than the number of available GPUs ({gpus})."
    return (
        "The number of required GPUs exceeds the total number of available GPUs in the placement group. "
        f"Required number of devices: {world_size}. Total number of devices: {gpus}."
    )


def core_failed(version: Version) -> str:
    """Return the front end's consequence of an engine that did not start."""
    text = "Engine core initialization failed. See root cause above."
    return f"{text} Failed core proc(s): {{}}" if at_least(version, "0.9.0") else text
