"""Lines of one backend: Ascend NPU, Gaudi, XPU. What they share with CUDA is in the other tables."""

from orchestrator.vllm_log.wordings.wording import BYTES, MIB, Stage, wording

VENDORS = (
    # vllm-ascend until 0.14 prints bytes; -1 and floats occur in old releases.
    wording(
        "vllm-ascend 0.7.3-0.14",
        "Available memory: {kv_cache_gib}, total memory: {device_total_gib}",
        after=r"\s*$",
        needle="Available memory: ",
        scale=BYTES,
        reached=Stage.KV_CACHE,
    ),
    wording(
        "vllm-ascend, patched",
        "Available memory: {kv_cache_gib:unit}, total memory: {device_total_gib:unit}",
        needle="Available memory: ",
        reached=Stage.KV_CACHE,
    ),
    wording(
        "vllm-ascend, patched",
        "Available memory: {kv_cache_gib:unit}, requested memory: {requested_gib:unit}",
        needle="Available memory: ",
        reached=Stage.KV_CACHE,
    ),
    # The same, broken into two lines.
    wording(
        "vllm-ascend",
        "Available memory: {kv_cache_gib}",
        before=r"^\s*",
        after=r"\s*$",
        needle="Available memory: ",
        scale=BYTES,
        reached=Stage.KV_CACHE,
    ),
    wording("vllm-ascend", "total memory: {device_total_gib}", before=r"^\s*", after=r"\s*$", scale=BYTES),
    wording("vllm-ascend 0.19+", "{weights_gib} GiB for weights,"),
    wording("vllm-ascend 0.19+", "{cuda_graph_gib} GiB for NPU graph memory"),
    wording("vllm-ascend 0.19+", "Current KV cache memory: {kv_cache_in_use_gib} GiB"),
    wording(
        "vllm-ascend, patched",
        "peak_memory after profiling is {torch_peak_gib} G",
        before=r"(?<!\w)",
        anchor="memory after",
    ),
    # Gaudi
    wording("Gaudi", "Free device memory: {device_free_gib:unit},", anchor="GiB"),
    # Its share is one of what is free, not of the whole, so that what it comes to is no requested_gib.
    wording("Gaudi", "usable (gpu_memory_utilization={utilization_ratio})", anchor="GiB"),
    wording(
        "Gaudi",
        "{kv_cache_gib:unit} reserved for KV cache",
        after=r"(?! dummy)",
        anchor="GiB",
        reached=Stage.KV_CACHE,
    ),
    wording("Gaudi", "{kv_cache_gib:unit} reserved for usable KV cache", anchor="GiB", reached=Stage.KV_CACHE),
    wording("Gaudi", "using explicit KV cache budget {:unit}", anchor="GiB", given=True),
    wording("Gaudi", "of device memory ({}GiB/{device_total_gib}GiB used)", needle="of device memory ("),
    wording("Gaudi", "Warmup finished in {graph_capture_seconds} secs", reached=Stage.WARMUP),
    # XPU until 0.15: MB is 2**20 bytes.
    wording(
        "XPU 0.9.2-0.15",
        "Before memory profiling run, total GPU memory: {device_total_gib} MB",
        anchor=" MB",
        scale=MIB,
        reached=Stage.PROFILE,
    ),
    wording(
        "XPU 0.9.2-0.15",
        "model load takes {weights_gib} MB",
        anchor=" MB",
        scale=MIB,
        in_passing=True,  # "Model loading took" says it with weights alone
    ),
    wording("XPU 0.9.2-0.15", "non-torch mem is {non_torch_gib} MB", anchor=" MB", scale=MIB, reached=Stage.KV_CACHE),
)
