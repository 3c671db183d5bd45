"""What a figure means in its version, and how the log's own word overrules the version."""

import pytest

from tests.unit.vllm_log.log_lines import read, record, server

ESTIMATE = record("Estimated CUDA graph memory: 0.84 GiB total")
ACTIVATION = record(
    "Memory profiling takes 1.00 seconds. Total non KV cache memory: 17.13GiB; torch peak memory increase: 1.89GiB; "
    "non-torch forward increase memory: 0.25GiB; weights memory: 14.99GiB."
)
CONSUMED = record(
    "Free memory on device (78.1/79.25 GiB) on startup. Desired GPU memory utilization is (0.92, 72.91 GiB). Actual "
    "usage is 25.86 GiB for consumed memory (weights + non-torch), 2.32 GiB for peak activation, and 1.01 GiB for "
    "CUDAGraph memory. Current kv cache memory in use is 44.73 GiB."
)
ENABLED_19 = record(
    "CUDA graph memory profiling is enabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1). This will become the default "
    "in v0.19. The current --gpu-memory-utilization=0.9000 is equivalent to --gpu-memory-utilization=0.8900 without "
    "CUDA graph memory profiling."
)
WILL_BE = record(
    "In v0.19, CUDA graph memory profiling will be enabled by default (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1), "
    "which more accurately accounts for CUDA graph memory during KV cache allocation."
)
DISABLED = record(
    "CUDA graph memory profiling is disabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0). Without it, CUDA graph "
    "memory is not accounted for during KV cache allocation.",
    level="WARNING",
)
ENABLED_21 = record("CUDA graph memory profiling is enabled (default since v0.21.0). The current ...")


@pytest.mark.parametrize(
    ("version", "meaning"),
    [
        ("0.11.0", "blocks x block_size / layer groups"),
        ("0.20.0", "blocks x block_size / layer groups"),
        ("0.20.1", "max_concurrency x max_model_len"),
        ("0.20.1rc1", "max_concurrency x max_model_len"),
        ("0.33.0", "max_concurrency x max_model_len"),
        ("0.34.0", "max_concurrency x max_model_len"),
    ],
)
def test_tokens_changed_their_meaning_with_0_20_1(version: str, meaning: str) -> None:
    """Comparing versions means knowing which of the two was printed."""
    found = read(server(version), record("GPU KV cache size: 476,016 tokens"))
    assert found.to_json("x")["meaning"]["kv_cache_tokens"] == meaning


@pytest.mark.parametrize(
    ("version", "advice", "taken"),
    [
        ("0.18.0", None, False),
        ("0.19.1", None, False),
        ("0.19.0", WILL_BE, False),
        ("0.18.0", ENABLED_19, True),
        ("0.19.0", ENABLED_19, True),
        ("0.19.2rc1.dev206", ENABLED_21, True),
        ("0.20.0", None, True),
        ("0.20.0", DISABLED, False),
        ("0.22.1", ENABLED_21, True),
        ("0.27.1", None, True),
        ("0.33.0", DISABLED, False),
    ],
)
def test_the_graph_estimate_is_taken_or_only_printed(version: str, advice: str | None, taken: bool) -> None:
    """By default from 0.20.0, whatever the advice says of versions; what it says of this run decides."""
    found = read(server(version), ESTIMATE, *([advice] if advice else []))
    meaning = "taken from the KV cache" if taken else "printed only"
    assert found.meaning["cuda_graph_estimated_gib"] == meaning


@pytest.mark.parametrize(
    ("version", "lines", "inside"),
    [
        ("0.12.0", (ACTIVATION,), False),
        ("0.18.0", (ACTIVATION, ESTIMATE, WILL_BE), False),
        ("0.18.1", (ACTIVATION, ESTIMATE, ENABLED_19), True),
        ("0.19.0", (ACTIVATION, ESTIMATE, ENABLED_19), False),
        ("0.22.0", (ACTIVATION, ESTIMATE, ENABLED_21), False),
        ("0.27.1", (CONSUMED, ESTIMATE, ENABLED_21), True),
        ("0.27.1", (CONSUMED, ESTIMATE, DISABLED), False),
    ],
)
def test_the_activation_holds_the_graph_estimate_or_does_not(
    version: str, lines: tuple[str, ...], inside: bool
) -> None:
    """0.18 and from 0.27 print a peak with the estimate in it, where it is applied."""
    meaning = "with the CUDA-graph estimate" if inside else "without CUDA graphs"
    assert read(server(version), *lines).meaning["activation_gib"] == meaning


@pytest.mark.parametrize(
    ("lines", "meaning"),
    [
        ((server("0.19.1"),), "default 0.9"),
        ((server("0.4.2"),), "default 0.9"),
        ((server("0.20.0"),), "default 0.92"),
        ((server("0.20.0"), record("non-default args: {'gpu_memory_utilization': 0.9}")), "given"),
        ((record("non-default args: {'gpu_memory_utilization': 0.9}"),), "given"),
    ],
)
def test_the_default_share_of_the_device_changed_with_0_20(lines: tuple[str, ...], meaning: str) -> None:
    """0.9 before, 0.92 since; a share that was given is neither."""
    assert read(*lines).meaning["utilization_ratio"] == meaning


@pytest.mark.parametrize(
    ("version", "lines", "meaning"),
    [
        ("0.10.2", (ACTIVATION,), "printed, with NCCL"),
        ("0.11.0", (ACTIVATION,), "printed"),
        (
            "0.27.1",
            (record("Model loading took 25.69 GiB memory and 65.362530 seconds"), CONSUMED),
            "derived: consumed - weights",
        ),
    ],
)
def test_non_torch_memory_is_printed_or_derived(version: str, lines: tuple[str, ...], meaning: str) -> None:
    """NCCL's buffers left it with 0.11; from 0.27 it is what consumed memory holds beside the weights."""
    found = read(server(version), *lines)
    assert found.meaning["non_torch_gib"] == meaning
    assert ("non_torch_gib" in found.derived) == meaning.startswith("derived")


def test_a_derived_figure_has_its_sum_and_no_line() -> None:
    """25.86 consumed - 25.69 weights = 0.17; no line says so."""
    document = read(
        server("0.27.1"), record("Model loading took 25.69 GiB memory and 65.362530 seconds"), CONSUMED
    ).to_json("x")
    assert document["facts"]["non_torch_gib"] == pytest.approx(0.17)
    assert document["derived"]["non_torch_gib"] == "consumed_gib - weights_gib"
    assert "non_torch_gib" not in document["evidence"]


def test_without_the_weights_nothing_is_derived() -> None:
    """Consumed memory alone does not tell what of it is outside torch."""
    assert "non_torch_gib" not in read(server("0.27.1"), CONSUMED).facts


GIVEN = "memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling."


@pytest.mark.parametrize(
    ("line", "kv_cache", "free"),
    [
        (f"Initial free memory 78.6815185546875 GiB, reserved 40.00GiB {GIVEN}", 40.0, 78.6815185546875),
        (f"Initial free memory 78.68 GiB, reserved 40.0 GiB {GIVEN}", 40.0, 78.68),
        ("Initial free memory 60.61 GiB, reserved 40.00 GiB for KV Cache as specified by kv_cache_memory_bytes, "
         "skipping memory profiling.", 40.0, 60.61),
        ("Applying persisted startup plan (fingerprint 1a2b): kv_cache_memory_bytes=42949672960 (40.00 GiB), recorded "
         "free-memory baseline 78.00 GiB, current 78.68 GiB. Memory profiling will be skipped.", 40.0, 78.68),
    ],
)  # fmt: skip
def test_a_given_kv_cache_is_no_measurement(line: str, kv_cache: float, free: float) -> None:
    """--kv-cache-memory-bytes and a start-up plan skip the profile."""
    found = read(server("0.26.0"), record(line))
    assert found.meaning["kv_cache_gib"] == "given, not profiled"
    assert (found.facts["kv_cache_gib"], found.facts["device_free_gib"]) == (kv_cache, free)


def test_a_start_up_plan_that_was_not_applied_changes_nothing() -> None:
    """The profile was made after all."""
    found = read(
        record("Startup plan not applied: current free memory (70.00 GiB) is below the recorded baseline (78.00 GiB); "
               "falling back to full memory profiling."),
        record("Available KV cache memory: 40.0 GiB"),
    )  # fmt: skip
    assert (found.meaning["kv_cache_gib"], found.facts) == ("profiled", {"kv_cache_gib": 40.0})


def test_without_a_version_nothing_is_claimed_that_depends_on_it() -> None:
    """An excerpt does not say which vLLM printed it."""
    found = read(record("GPU KV cache size: 476,016 tokens"), ESTIMATE, ACTIVATION)
    assert found.meaning == {}
