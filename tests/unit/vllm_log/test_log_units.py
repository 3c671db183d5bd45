"""Numbers and units as they are printed; what cannot be read is unknown, never 0."""

import pytest

from orchestrator.vllm_log import parse_log
from tests.unit.vllm_log.log_lines import failed, read, record


@pytest.mark.parametrize(
    ("words", "fact", "value"),
    [
        ("Available memory: 26664089702, total memory: 65452113920", "kv_cache_gib", 24.832869),
        ("Available memory: 26664089702, total memory: 65452113920", "device_total_gib", 60.957031),
        ("Available memory: 26664089702.4, total memory: 65452113920", "kv_cache_gib", 24.832869),
        ("Available memory: 43.396 GiB, total memory: 60.96 GiB", "kv_cache_gib", 43.396),
        ("Loading model weights took 9.1948 GB", "weights_gib", 9.1948),
        ("Model loading took 7.1217 GB and 2.000000 seconds", "weights_gib", 7.1217),
        ("Model loading took 14.99 GiB memory and 2.000000 seconds", "weights_gib", 14.99),
        (
            "Before memory profiling run, total GPU memory: 24576.00 MB, model load takes 2048.50 MB, free gpu memory "
            "is 20000.00 MB.",
            "device_total_gib",
            24.0,
        ),
        (
            "After memory profiling run, peak memory usage is 9000.00 MB,torch mem is 8000.00 MB, non-torch mem is "
            "512.00 MB, free gpu memory is 1.00 MB.",
            "non_torch_gib",
            0.5,
        ),
        ("Desired GPU memory utilization is (0.85, 13.59 GiB). Current kv cache memory in use is 9649816780 bytes.",
         "kv_cache_in_use_gib", 8.987092),
        ("GPU KV cache size: 1,983,744 tokens", "kv_cache_tokens", 1983744),
        ("GPU KV cache size: 944 tokens", "kv_cache_tokens", 944),
        ("# cuda blocks: 7191, # CPU blocks: 512", "kv_cache_blocks", 7191),
        ("Maximum concurrency for 1,048,576 tokens per request: 1,000.50x", "max_concurrency", 1000.5),
        ("Maximum concurrency for 32768 tokens per request: 5.75x", "concurrency_tokens", 32768),
        ("torch peak memory increase: 1.1GiB; non-torch forward increase memory: 0.07GiB; x", "activation_gib", 1.1),
        ("Available KV cache memory: -2.14 GiB", "kv_cache_gib", -2.14),
        ("Available KV cache memory: 44.3 GiB", "kv_cache_gib", 44.3),
        ("Available KV cache memory: 44 GiB", "kv_cache_gib", 44.0),
        ("Available KV cache memory: .5 GiB", "kv_cache_gib", 0.5),
        ("Available KV cache memory: -0.0 GiB", "kv_cache_gib", 0.0),
        ("Graph capturing finished in 1 secs, took -0.97 GiB", "cuda_graph_gib", -0.97),
        ("Free memory after profiling: 1.00 GiB (total), -0.42 GiB (within requested)", "free_in_request_gib", -0.42),
        ("the rest of the memory reserved for KV Cache is -1.44GiB.", "kv_cache_gib", -1.44),
        ("init engine (profile, create kv cache, warmup model) took 41.20 s (compilation: 9.00 s)",
         "engine_init_seconds", 41.2),
    ],
)  # fmt: skip
def test_a_figure_is_read_in_its_unit(words: str, fact: str, value: float) -> None:
    """vLLM's GB is GiB, its MB is MiB, bytes are bytes; commas and signs belong to the number."""
    assert read(record(words)).facts[fact] == pytest.approx(value, abs=5e-7)


def test_counts_are_whole_numbers_in_json() -> None:
    """Tokens and blocks print without a decimal point; sizes keep theirs."""
    facts = read(
        record("GPU KV cache size: 476,016 tokens"),
        record("# GPU blocks: 29751"),
        record("Available KV cache memory: 58.00 GiB"),
    ).to_json("x")["facts"]
    assert {name: str(value) for name, value in facts.items()} == {
        "kv_cache_gib": "58.0", "kv_cache_tokens": "476016", "kv_cache_blocks": "29751",
    }  # fmt: skip


@pytest.mark.parametrize(
    "printed", ["nan", "inf", "-inf", "None", "N/A", "?", "1e3", "1.2.3", "--5", "-", ".", ",", ""]
)
@pytest.mark.parametrize(
    "words",
    [
        "Available KV cache memory: {} GiB",
        "Model loading took {} GiB memory and 1.0 seconds",
        "GPU KV cache size: {} tokens",
        "Available memory: {}, total memory: {}",
    ],
)
def test_what_is_no_number_is_unknown(words: str, printed: str) -> None:
    """Absent, not 0."""
    assert read(record(words.replace("{}", printed))).facts == {}


@pytest.mark.parametrize(
    "words",
    [
        "Model loading took 14.99 GiB",
        "Loading model weights took 9.1948 GB",
        "Available KV cache memory: 58.11 GiB",
        "GPU KV cache size: 476,016 tokens",
        "Graph capturing finished in 12 secs, took 0.55 GiB",
        "Estimated CUDA graph memory: 0.84 GiB total",
        "Memory profiling takes 17.96 seconds. Total non KV cache memory: 17.12GiB; torch peak memory increase: "
        "1.89GiB; non-torch forward increase memory: 0.25GiB; weights memory: 14.99GiB.",
        "Free memory on device (78.68/79.19 GiB) on startup. Desired GPU memory utilization is (0.95, 75.23 GiB). "
        "Actual usage is 14.99 GiB for weight, 1.89 GiB for peak activation, 0.25 GiB for non-torch memory, and "
        "0.91 GiB for CUDAGraph memory. Current kv cache memory in use is 58.11 GiB.",
        "GPU KV cache size: 476,016 tokens, Maximum concurrency for 8,192 tokens per request: 58.11x",
        "Auto set (3.87/22.59) GiB for KV cache on node 0, with 4.52 GiB requested memory for the worker. 0.65 GiB "
        "memory was consumed by non-kv usages.",
        "Available memory: 26664089702, total memory: 65452113920",
    ],
)
def test_a_line_cut_anywhere_gives_true_figures_or_none(words: str) -> None:
    """The disk was full, the pod was gone: a number that lost its end is no number."""
    whole = record(words)
    true = read(whole).facts
    for end in range(len(whole)):
        (found,) = parse_log(whole[:end].encode())
        assert found.facts.items() <= true.items(), whole[:end]


@pytest.mark.parametrize(
    "words",
    [
        "Loading weights took 12.34 seconds",
        "Loading model weights took 12.34 seconds",
        "Model runner load_model total time: 12.34 seconds",
        "Estimated PIECEWISE CUDA graph memory: 9.00 MiB first-capture + (34-1) × 1.00 MiB per-graph",
        "Initializing model took 0.512345 seconds",
        "Sleep mode freed 50.00 GiB memory, 1.00 GiB memory is still in use.",
        "Multiplying the GPU KV cache size by the dcp_world_size 2.",
        "Overriding num_gpu_blocks=1000 with num_gpu_blocks_override=10",
        "Prefetching checkpoint files: 10.00 GiB",
        "Weight cache main daemon rank 0 loaded model (9.00 GiB allocated, 9.50 GiB reserved)",
    ],
)
def test_a_line_that_only_begins_like_a_known_one_gives_no_size(words: str) -> None:
    """The same beginning means something else: seconds, another pool, another process."""
    names = [name for name in read(record(words)).facts if not name.endswith("_seconds")]
    assert names == []


def test_a_prefetch_offloader_counts_in_decimal_gigabytes() -> None:
    """The one line in which GB is 10**9 bytes: it must not be read as GiB."""
    line = (
        "[PrefetchOffloader] Initialized 9 modules. Total GPU memory saved: 10.0000 GB, Static buffer pool: 1.0000 GB"
    )
    assert not {10.0, 1.0} & set(read(record(line)).facts.values())


@pytest.mark.parametrize("zero", ["0.0", "-0.0", "0.00"])
def test_nothing_left_is_told_without_a_minus_sign(zero: str) -> None:
    """0.0 GiB were left: the advice says 0.00 GiB are missing."""
    failure = failed(
        record(f"Available KV cache memory: {zero} GiB"),
        record("ValueError: No available memory for the cache blocks.", level="ERROR"),
    )
    assert failure.kind == "kv.no_room"
    assert "-0.00" not in (failure.remedy or "")
