"""The KV cache: GiB per rank, tokens and blocks of the engine."""

from orchestrator.vllm_log.wordings.wording import Stage, wording

KV_CACHE = (
    wording("0.9.1+", "Available KV cache memory: {kv_cache_gib} GiB", reached=Stage.KV_CACHE),
    # GPU, CPU, XPU KV cache size: ...; with the concurrency on the same line from 0.28.
    wording("0.8+", "KV cache size: {kv_cache_tokens} tokens", reached=Stage.GRAPH_CAPTURE),
    wording("0.6.3+", "Maximum concurrency for {concurrency_tokens} tokens per request: {max_concurrency}x"),
    wording("0.4-0.11", "# {w} blocks: {kv_cache_blocks}, # CPU blocks: {cpu_blocks}", needle="# CPU blocks: "),
    wording("V1 0.6.4-0.7.3", "# GPU blocks: {kv_cache_blocks}"),
    wording("V1 0.6.4-0.7.3", "# cuda blocks: {kv_cache_blocks}"),
    wording("0.9+", "cache_config_info with initialization after num_gpu_blocks is: {kv_cache_blocks}"),
    wording(
        "CPU 0.20+",
        "Auto set ({kv_cache_gib}/{device_total_gib}) GiB for KV cache on node",
        needle="GiB for KV cache on node",
        reached=Stage.KV_CACHE,
    ),
    wording(
        "CPU 0.20+",
        "Explicitly set ({kv_cache_gib}/{device_total_gib}) GiB for KV cache on node",
        needle="GiB for KV cache on node",
        reached=Stage.KV_CACHE,
    ),
    wording(
        "CPU until 0.19",
        "VLLM_CPU_KVCACHE_SPACE not set. Using {kv_cache_gib} GiB for KV cache",
        in_passing=True,  # from 0.20 another line says what was set
        given=True,
    ),
    wording("CPU 0.20+", "with {requested_gib} GiB requested memory for the worker"),
    wording("CPU 0.20+", "GiB requested memory for the worker. {non_kv_cache_gib} GiB memory was consumed by non-kv"),
    # Error messages that carry the size.
    wording("0.8.3+", "larger than the available KV cache memory ({kv_cache_gib} GiB)"),
    wording("0.7.0-0.8.2", "larger than the available KV cache memory ({kv_cache_gib} GB)"),
    wording("V0", "can be stored in KV cache ({kv_cache_tokens})", anchor="max seq len"),
)
