"""CUDA graphs, compilation and the end of the engine's start-up."""

from orchestrator.vllm_log.wordings.wording import Stage, wording

GRAPHS = (
    # May be negative: it is a difference of free memory. The encoder's own graphs are another figure.
    wording(
        "0.6.4+",
        "raph capturing finished in {graph_capture_seconds} secs, took {cuda_graph_gib} GiB",
        before=r"(?<!Encoder g)",
        reached=Stage.WARMUP,
    ),
    wording(
        "0.4-0.6.3",
        "Graph capturing finished in {graph_capture_seconds} secs.",
        reached=Stage.WARMUP,
    ),
    wording("0.31+", "Encoder graph capturing finished in {} secs, took {encoder_graph_gib} GiB"),
    wording("0.18+", "Estimated CUDA graph memory: {cuda_graph_estimated_gib} GiB total"),
    wording(
        "0.18+", "CUDA graph pool memory: {cuda_graph_gib} GiB (actual), {cuda_graph_estimated_gib} GiB (estimated)"
    ),
    wording(
        "vllm-ascend 0.21-0.22",
        "ACL graph pool memory: {cuda_graph_gib} GiB (actual), {cuda_graph_estimated_gib} GiB (estimated)",
    ),
    wording("0.6.5-0.17", "torch.compile takes {compile_seconds} s in total"),
    wording("0.18+", "torch.compile took {compile_seconds} s in total"),
    wording("0.18+", "torch.compile and initial profiling/warmup run together took {compile_seconds} s in total"),
    wording(
        "0.6.5+",
        "init engine (profile, create kv cache, warmup model) took {engine_init_seconds} s",
        reached=Stage.WARMUP,
    ),
)
