"""The settings one engine runs with: what the user gave, and the version's defaults for the rest."""

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

from orchestrator.errors import UsageError
from orchestrator.vllm.arguments import UTILIZATION, ArgumentValue, accelerators_needed, check_value, positive_int
from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.version import at_least

LARGE_DEVICE_GIB = 70.0
HUGE_DEVICE_GIB = 160.0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Effective settings of one `vllm serve`; token and sequence counts are per engine, sizes per device."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    gpu_memory_utilization: float
    max_model_len: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_dtype_bytes: int
    dtype_bytes: int
    quantization: str | None
    enforce_eager: bool
    enable_prefix_caching: bool
    kv_cache_memory_bytes: int | None
    num_gpu_blocks_override: int | None

    @property
    def world_size(self) -> int:
        """Return the ranks of one engine: tensor x pipeline parallel size."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def default_gpu_memory_utilization(version: Version) -> float:
    """Return the default of `--gpu-memory-utilization`: 0.9, and 0.92 from vLLM 0.20.0."""
    return 0.92 if at_least(version, "0.20.0") else 0.9


def default_max_num_seqs(version: Version, device_total_gib: float, *, a100: bool = False) -> int:
    """Return the default of `--max-num-seqs` for the API server (V1 engine)."""
    large = device_total_gib >= LARGE_DEVICE_GIB and not (a100 and at_least(version, "0.9.0"))
    return 1024 if large else 256


def default_max_num_batched_tokens(version: Version, device_total_gib: float, *, a100: bool = False) -> int:
    """Return the default of `--max-num-batched-tokens` for the API server (V1 engine)."""
    if at_least(version, "0.28.0") and device_total_gib >= HUGE_DEVICE_GIB:
        return 16384
    large = device_total_gib >= LARGE_DEVICE_GIB and not (a100 and at_least(version, "0.9.0"))
    return 8192 if large else 2048


_MULTIPLIERS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def token_count(value: ArgumentValue) -> int | None:
    """Read a token count as vLLM does: 16000, `16k` (16 x 1000), `16K` (16 x 1024); None for `auto` and -1."""
    text = str(value)
    try:
        if text[-1:] in _MULTIPLIERS:
            return int(float(text[:-1]) * _MULTIPLIERS[text[-1]])
        return int(text) if int(text) > 0 else None
    except ValueError:
        return None


def _number(arguments: Mapping[str, ArgumentValue], name: str) -> float | None:
    value = arguments.get(name)
    try:
        return None if value is None else float(str(value))
    except ValueError:
        raise UsageError(f"{name} is {value!r}", remedy=f"{name} must be a number") from None


def _flag(value: ArgumentValue) -> bool:
    return value is True or str(value).lower() in {"true", "1"}


def _dtype_bytes(name: ArgumentValue | None, default: int) -> int:
    sizes = {"half": 2, "float16": 2, "bfloat16": 2, "float": 4, "float32": 4}
    return sizes.get(str(name), default)


def resolve(
    arguments: Mapping[str, ArgumentValue],
    model: ModelConfig,
    version: Version,
    device_total_gib: float,
    *,
    a100: bool = False,
) -> EngineSettings:
    """Fill the version's defaults in; raises UsageError for a value that vLLM would refuse."""
    utilization = _number(arguments, UTILIZATION)
    check_value(UTILIZATION, utilization)
    max_model_len = arguments.get("max-model-len", model.max_position_embeddings)
    seqs = positive_int(arguments, "max-num-seqs", default_max_num_seqs(version, device_total_gib, a100=a100))
    length = token_count(max_model_len) or model.max_position_embeddings
    tokens = default_max_num_batched_tokens(version, device_total_gib, a100=a100)
    kv_dtype = str(arguments.get("kv-cache-dtype", "auto"))
    dtype_bytes = _dtype_bytes(arguments.get("dtype"), model.dtype_bytes)
    quantization = arguments.get("quantization", model.quantization)
    kv_bytes = _number(arguments, "kv-cache-memory-bytes")
    override = _number(arguments, "num-gpu-blocks-override")
    accelerators_needed(arguments)
    return EngineSettings(
        tensor_parallel_size=positive_int(arguments, "tensor-parallel-size", 1),
        pipeline_parallel_size=positive_int(arguments, "pipeline-parallel-size", 1),
        data_parallel_size=positive_int(arguments, "data-parallel-size", 1),
        gpu_memory_utilization=default_gpu_memory_utilization(version) if utilization is None else utilization,
        max_model_len=length,
        block_size=positive_int(arguments, "block-size", 16),
        max_num_seqs=seqs,
        max_num_batched_tokens=positive_int(arguments, "max-num-batched-tokens", min(tokens, seqs * length)),
        kv_cache_dtype_bytes=1 if kv_dtype.startswith("fp8") else dtype_bytes,
        dtype_bytes=dtype_bytes,
        quantization=None if quantization is None else str(quantization),
        enforce_eager=_flag(arguments.get("enforce-eager", False)),
        enable_prefix_caching=_flag(arguments.get("enable-prefix-caching", True)),
        kv_cache_memory_bytes=None if kv_bytes is None else int(kv_bytes),
        num_gpu_blocks_override=None if override is None else int(override),
    )
