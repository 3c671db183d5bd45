"""Every root cause of formats.json: at which stage it strikes, which kinds are right, and values for its text."""

from dataclasses import dataclass

from tests.golden.catalogue import Record, at_least

ACCEPTED: dict[str, list[str]] = {
    "fail.no_kv": ["kv.no_room"],
    "fail.kv_lt_len": ["kv.context_too_long"],
    "fail.v0_len": ["kv.context_too_long"],
    "fail.autofit": ["kv.no_room"],
    "fail.mm_ipc": ["kv.no_room"],
    "fail.mamba_blocks": ["kv.no_room", "config.argument"],
    "fail.free_lt_requested": ["gpu.busy"],
    "fail.external_weights": ["gpu.busy", "kv.no_room"],
    "fail.profiling_assert": ["gpu.busy"],
    "fail.cpu_mem": ["gpu.busy", "host.oom"],
    "fail.cpu_mem.2": ["gpu.busy", "host.oom", "kv.no_room"],
    "fail.cpu_mem.5": ["kv.no_room"],
    "fail.sampler_oom": ["oom.warmup"],
    "fail.load_oom": ["oom.load"],
    "fail.openvino.1": ["oom.profile"],
    "fail.openvino.2": ["oom.load"],
    "fail.swap": ["host.oom", "config.argument"],
    "fail.shm": ["host.oom", "comm.failure", "engine.died"],
    "fail.graph_sizes": ["config.argument", "config.unsupported"],
    "fail.maxlen_derived": ["config.context_exceeds_model"],
    "fail.batched_lt_len": ["config.argument"],
    "fail.tp_heads": ["config.parallelism"],
    "fail.divisible": ["config.parallelism"],
    "fail.pp": ["config.parallelism", "config.unsupported"],
    "fail.gpu_count": ["gpu.insufficient"],
    "fail.resources": ["gpu.insufficient"],
    "fail.device_type": ["gpu.insufficient", "gpu.hardware", "config.unsupported"],
    "fail.quant": ["config.unsupported"],
    "fail.quant.2": ["config.unsupported", "config.argument"],
    "fail.bf16": ["config.unsupported"],
    "fail.attn_none": ["config.unsupported"],
    "fail.util_range": ["config.argument"],
    "fail.util_range.pydantic": ["config.argument"],
    "fail.unrecognized": ["config.argument"],
    "fail.arch": ["config.unsupported"],
    "fail.trust_remote": ["config.unsupported", "config.argument", "model.missing"],
    "fail.repo": ["model.missing"],
    "fail.no_weights": ["model.missing"],
    "fail.gated": ["model.access"],
    "fail.gated_hub": ["model.access"],
    "fail.repo_not_found": ["model.missing"],
    "fail.repo_not_found_hub": ["model.missing", "model.access"],
    "fail.hf_offline": ["model.unreachable"],
    "fail.nccl": ["comm.failure"],
    "fail.nccl_lib": ["comm.failure"],
    "fail.nccl_torch": ["comm.failure"],
    "fail.driver": ["gpu.hardware", "gpu.insufficient", "config.unsupported"],
    "fail.disk": ["host.oom", "engine.died", "unknown"],
    "fail.port": ["config.argument", "engine.died", "unknown"],
    "fail.timeout": ["hang"],
    "fail.rpc_timeout": ["hang", "comm.failure", "engine.died"],
    "ascend.fail_profiling": ["gpu.busy"],
    "ascend.fail_free": ["gpu.busy"],
    "ascend.fail_nokv": ["kv.no_room"],
    "ascend.fail_graph": ["oom.graph_capture", "config.unsupported", "engine.died"],
}
_STAGES: dict[str, tuple[str, ...]] = {
    "arguments": ("fail.unrecognized", "fail.port"),
    "config": (
        "fail.maxlen_derived",
        "fail.batched_lt_len",
        "fail.tp_heads",
        "fail.quant.2",
        "fail.quant.4",
        "fail.util_range",
        "fail.device_type",
        "fail.swap",
        "fail.pp",
        "fail.gpu_count.10",
        "fail.gpu_count.12",
        "fail.arch",
        "fail.repo",
        "fail.repo_not_found",
        "fail.repo_not_found_hub",
        "fail.gated",
        "fail.gated_hub",
        "fail.hf_offline",
        "fail.trust_remote",
        "fail.graph_sizes",
        "fail.resources",
        "fail.disk",
        "fail.timeout",
    ),
    "executor": ("fail.gpu_count", "fail.shm", "fail.driver"),
    "init": (
        "fail.free_lt_requested",
        "fail.external_weights",
        "fail.gpu_count.9",
        "fail.gpu_count.11",
        "fail.gpu_count.13",
        "fail.gpu_count.14",
        "fail.gpu_count.15",
        "fail.gpu_count.16",
        "fail.gpu_count.17",
        "fail.bf16",
        "fail.nccl",
        "fail.nccl_lib",
        "fail.nccl_torch",
        "fail.cpu_mem.3",
        "fail.cpu_mem.4",
        "ascend.fail_free",
    ),
    "load": ("fail.load_oom", "fail.quant", "fail.attn_none", "fail.no_weights", "fail.divisible", "fail.openvino.2"),
    "profile": (
        "fail.profiling_assert",
        "fail.openvino.1",
        "fail.cpu_mem",
        "ascend.fail_profiling",
        "fail.rpc_timeout",
    ),
    "kv": ("fail.no_kv", "fail.kv_lt_len", "fail.v0_len", "fail.autofit", "fail.mm_ipc", "ascend.fail_nokv"),
    "capture": ("ascend.fail_graph", "fail.mamba_blocks"),
    "warmup": ("fail.sampler_oom",),
}
# Errors of these classes that configuration raises arrive inside a pydantic error from 0.9.1 on.
_WRAPPED_BY = {
    "fail.maxlen_derived": "ModelConfig",
    "fail.batched_lt_len": "VllmConfig",
    "fail.tp_heads": "VllmConfig",
    "fail.quant.2": "ModelConfig",
    "fail.quant.4": "ModelConfig",
    "fail.util_range": "CacheConfig",
    "fail.swap": "VllmConfig",
    "fail.gpu_count.10": "ParallelConfig",
    "fail.gpu_count.12": "ParallelConfig",
    "fail.arch": "ModelConfig",
    "fail.repo": "ModelConfig",
    "fail.graph_sizes": "VllmConfig",
}


@dataclass(frozen=True)
class Cause:
    """A root cause with its text: the exception class (None: a logged line), the stage and the right kinds."""

    item: Record
    exception: str | None
    stage: str
    kinds: list[str]
    wrapped_by: str | None


def is_root_cause(item: Record) -> bool:
    """Say whether a record alone explains a failure."""
    if item.level.startswith(("WARNING", "DEBUG", "part")) or "fail" not in item.id:
        return False
    known = item.group in ACCEPTED or item.id in ACCEPTED
    return known and item.id not in ("fail.graph_sizes.1", "fail.graph_sizes.3", "fail.driver")


def cause_of(item: Record, version: str) -> Cause:
    """Return how a root cause shows in a version."""
    stage = _lookup({name: stage for stage, names in _STAGES.items() for name in names}, item) or "config"
    wrapper = _lookup(_WRAPPED_BY, item) if at_least(version, "0.9.1") and item.project == "vllm" else None
    kinds = ACCEPTED.get(item.id) or ACCEPTED[item.group]
    return Cause(item, exception_of(item), stage, kinds, wrapper)


def exception_of(item: Record) -> str | None:
    """Return the class of the exception, None for a line that is only logged."""
    words = item.level.split()
    if words[0] != "EXCEPTION":
        return None
    return words[1] if len(words) > 1 else ""


def _lookup(table: dict[str, str], item: Record) -> str | None:
    return table.get(item.id) or table.get(item.group)
