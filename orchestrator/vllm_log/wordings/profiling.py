"""The memory profile: what was free, what was asked for, and what the dummy run took."""

from orchestrator.vllm_log.wordings.wording import BYTES, Stage, wording

PROFILING = (
    # DEBUG in most versions; one record, but pasted logs break it, so that each part is read by itself.
    wording("0.9.1+", "Memory profiling takes {profile_seconds} seconds"),
    wording("0.9.1+", "Total non KV cache memory: {non_kv_cache_gib} GiB", reached=Stage.KV_CACHE),
    # From 0.27 the same words mean the peak over everything, not over the weights.
    wording(
        "0.9.1-0.26",
        "torch peak memory increase: {activation_gib} GiB",
        after=r"(?!; total consumed)",
        reached=Stage.KV_CACHE,
    ),
    wording("0.9.1-0.26", "non-torch forward increase memory: {non_torch_gib} GiB"),
    wording("0.27+", "total consumed (from mem_get_info): {consumed_gib} GiB", reached=Stage.KV_CACHE),
    wording("0.9.1+", "weights memory: {weights_gib} GiB"),
    # V0: one record of three lines.
    wording(
        "V0 0.6.5-0.10.2",
        "total_gpu_memory ({device_total_gib}GiB) x gpu_memory_utilization ({utilization_ratio}) = {requested_gib}GiB",
    ),
    wording("V0 0.6.5-0.10.2", "model weights take {weights_gib}GiB", reached=Stage.PROFILE),
    wording("V0 0.6.5-0.10.2", "non_torch_memory takes {non_torch_gib}GiB", reached=Stage.KV_CACHE),
    wording("V0 0.6.5-0.10.2", "PyTorch activation peak memory takes {activation_gib}GiB"),
    wording("V0 0.6.5-0.10.2", "the rest of the memory reserved for KV Cache is {kv_cache_gib}GiB"),
    wording("V0 0.6.4", "total_gpu_memory={device_total_gib}GiB", reached=Stage.KV_CACHE),
    wording("V0 0.6.4", "peak_torch_memory={torch_peak_gib}GiB"),
    wording("V0 0.6.4", "non_torch_memory={non_torch_gib}GiB", after=r",? kv_cache_size"),
    wording("V0 0.6.4", "kv_cache_size={kv_cache_gib}GiB"),
    wording("V0 0.6.4", "GiB gpu_memory_utilization={utilization_ratio}"),
    # What was free at start-up and what utilization x total comes to.
    wording(
        "0.10.1+",
        "Initial free memory: {device_free_gib} GiB; Requested memory: {utilization_ratio} (util), {requested_gib} GiB",
        needle="Initial free memory: ",
    ),
    wording(
        "0.9.1-0.10.0",
        "Initial free memory: {device_free_gib} GiB, free memory: {free_after_profile_gib} GiB, requested GPU memory: "
        "{requested_gib} GiB",
    ),
    wording(
        "0.10.1+",
        "Free memory after profiling: {free_after_profile_gib} GiB (total), {free_in_request_gib} GiB (within "
        "requested)",
    ),
    wording(
        "0.14+",
        "free_memory={device_free_gib}GiB, total_memory={device_total_gib}GiB",
        before=r"worker init memory snapshot: .{0,200}?",
        needle="worker init memory snapshot: ",
    ),
    wording("0.14+", "worker requested memory: {requested_gib}GiB"),
    wording(
        "0.9.1+",
        "Free memory on device{*} ({device_free_gib}/{device_total_gib} GiB) on startup",
        needle="Free memory on device",
    ),
    wording("0.10.2+", "Desired GPU memory utilization is ({utilization_ratio}, {requested_gib} GiB)"),
    wording("0.9.1+", "less than desired GPU memory utilization ({utilization_ratio}, {requested_gib} GiB)"),
    # "Actual usage is ...": a long record, which terminals break.
    wording("0.10.2-0.26", "{weights_gib} GiB for weight,"),
    wording("0.10.2-0.26, vllm-ascend", "{non_torch_gib} GiB for non-torch memory"),
    wording("0.27+", "{consumed_gib} GiB for consumed memory (weights + non-torch)"),
    wording("0.10.2+, vllm-ascend", "{activation_gib} GiB for peak activation"),
    wording("0.10.2+", "{cuda_graph_gib} GiB for CUDAGraph memory"),
    wording("0.11+", "Current kv cache memory in use is {kv_cache_in_use_gib} GiB"),
    wording("0.10.2", "Current kv cache memory in use is {kv_cache_in_use_gib} bytes", scale=BYTES, anchor="GiB"),
    # No profile was made.
    wording("0.10.2+", "Initial free memory {device_free_gib} GiB, reserved"),
    wording(
        "0.10.2+",
        "reserved {kv_cache_gib} GiB",
        after=r"(?: memory)? for KV\b",
        reached=Stage.KV_CACHE,
        given=True,
    ),
    wording(
        "0.26+",
        "Applying persisted startup plan{*} ({kv_cache_gib} GiB), recorded free-memory baseline {} GiB, current "
        "{device_free_gib} GiB",
        reached=Stage.KV_CACHE,
        given=True,
    ),
    wording("0.32+", "GiB utilization budget, {external_weights_gib} GiB is externally held"),
    wording(
        "0.25+",
        "Reserving {mm_decode_reserve_gib} GiB of GPU memory for frontend multimodal decoding{*}KV cache memory "
        "reduced to {kv_cache_gib} GiB",
        needle="of GPU memory for frontend multimodal",
    ),
    wording(
        "0.7+",
        "Encoder cache will be initialized with a budget of {encoder_cache_tokens} tokens, and profiled with "
        "{encoder_items}",
        needle="Encoder cache will be initialized with a budget of",
    ),
    # Error messages that carry what was free.
    wording("0.9.1+", "Error in memory profiling. Initial free memory {device_free_gib} GiB"),
    wording(
        "0.5.4-0.15",
        "Error in memory profiling. Initial free memory {device_free_gib}, current",
        scale=BYTES,
        anchor="rror",
    ),
    wording(
        "torch 2.1+",
        "has a total capacity of {device_total_gib:unit} of which {device_free_gib:unit} is free",
        anchor="GiB",
        in_passing=True,
    ),
    wording(
        "torch 2.0, 2.1",
        "has a total capacty of {device_total_gib:unit} of which {device_free_gib:unit} is free",
        anchor="GiB",
        in_passing=True,
    ),
    wording(
        "torch until 2.0, torch_npu",
        "; {device_total_gib:unit} total capacity; {*}; {device_free_gib:unit} free",
        needle=" total capacity; ",
        anchor="GiB",
        in_passing=True,
    ),
)
