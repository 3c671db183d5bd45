"""Lines of backends, builds and wrappers that are seen more rarely; the texts are those of public logs."""

import pytest

from tests.unit.vllm_log.log_lines import read, read_all, record

PROFILED = "Available KV cache memory: {} GiB"
WEIGHTS = "Model loading took {} GiB memory and 1.000000 seconds"


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        pytest.param(
            "Free device memory: 79.22 GiB, 71.3 GiB usable (gpu_memory_utilization=0.9), 7.13 GiB reserved for "
            "HPUGraphs (VLLM_GRAPH_RESERVED_MEM=0.1), 16 MiB reserved for KV cache dummy block 64.15 GiB reserved for "
            "usable KV cache",
            {"device_free_gib": 79.22, "utilization_ratio": 0.9, "kv_cache_gib": 64.15},
            id="Gaudi with a dummy block",
        ),
        pytest.param(
            "Free device memory: 79.22 GiB, using explicit KV cache budget 8 GiB (--kv-cache-memory-bytes; "
            "gpu_memory_utilization ignored), 16 MiB reserved for KV cache dummy block, 7.984 GiB reserved for usable "
            "KV cache",
            {"device_free_gib": 79.22, "kv_cache_gib": 7.984},
            id="Gaudi with a given size",
        ),
        pytest.param("Total CPU offloaded parameters: 24.28", {"cpu_offload_gib": 24.28}, id="offload without a unit"),
        pytest.param("Total CPU offloaded parameters: 512 MiB", {"cpu_offload_gib": 0.5}, id="offload with a unit"),
        pytest.param(
            "reserved 12.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped",
            {"kv_cache_gib": 12.0},
            id="given, and what was free left out",
        ),
        pytest.param(
            "Initial free memory 137.66 GiB, reserved 6.0 GiB memory for KV",
            {"device_free_gib": 137.66, "kv_cache_gib": 6.0},
            id="given, broken by a terminal",
        ),
        pytest.param(
            "Memory profiling results: total_gpu_memory=79.15GiB initial_memory_usage=68.01GiB "
            "peak_torch_memory=10.77GiB memory_usage_post_profile=68.04Gib non_torch_m...",
            {"device_total_gib": 79.15, "torch_peak_gib": 10.77},
            id="V0 profile, cut",
        ),
        pytest.param(
            "VLLM_CPU_KVCACHE_SPACE not set. Using 16.0 GiB for KV cache.", {"kv_cache_gib": 16.0}, id="CPU, default"
        ),
    ],
)
def test_figures_of_rarer_lines(line: str, facts: dict[str, float]) -> None:
    """Each figure that the line holds, and none that it does not."""
    assert read(record(line)).facts == pytest.approx(facts)


@pytest.mark.parametrize(
    "line",
    [
        "Initial free memory 137.66 GiB, reserved 6.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes",
        "Free device memory: 79.22 GiB, using explicit KV cache budget 8 GiB (--kv-cache-memory-bytes; "
        "gpu_memory_utilization ignored), 16 MiB reserved for KV cache dummy block, 7.984 GiB reserved for usable KV "
        "cache",
        "VLLM_CPU_KVCACHE_SPACE not set. Using 16.0 GiB for KV cache.",
    ],
)
def test_a_size_that_was_given_is_no_profile(line: str) -> None:
    """Nobody may take it for what the profile left."""
    assert read(record(line)).meaning["kv_cache_gib"] == "given, not profiled"


def test_the_cpu_says_its_size_better_later() -> None:
    """The default is what was asked for; from 0.20 another line tells what was set."""
    asked = record("VLLM_CPU_KVCACHE_SPACE not set. Using 16.0 GiB for KV cache.")
    got = record("Auto set (12.50/64.00) GiB for KV cache on node 0")
    assert read(asked, got).facts["kv_cache_gib"] == 12.5


def test_figures_of_a_record_that_was_broken_belong_to_its_process() -> None:
    """A terminal breaks long records; the second half has no prefix."""
    first = record("Free memory on device (94.06/94.97 GiB) on startup. Desired GPU memory utilization is (0.92, 87.37 "
                   "GiB). Actual usage is 52.92 GiB for consumed memory (weights + non-torch),",
                   process="Worker_PP1_EP0", pid=7)  # fmt: skip
    found = read(first, "2.32 GiB for peak activation, and 1.51 GiB for CUDAGraph memory. Replace")
    assert list(found.ranks) == ["PP1"]
    assert found.ranks["PP1"].items() >= {"consumed_gib": 52.92, "activation_gib": 2.32, "cuda_graph_gib": 1.51}.items()


def test_a_line_without_a_head_further_down_belongs_to_nobody() -> None:
    """Only the line right behind a record continues it."""
    first = record(WEIGHTS.format(9.0), process="Worker_TP1", pid=7)
    found = read(first, "something else", "2.32 GiB for peak activation, and 1.51 GiB for CUDAGraph memory.")
    assert "activation_gib" not in found.ranks["TP1"]


@pytest.mark.parametrize("version", ["0.1.dev1+g4d2a68d64.d20260816", "0.1.dev15312+g690e127b1"])
def test_a_build_without_tags_has_no_release(version: str) -> None:
    """Its number says nothing of what its lines mean; the text is kept."""
    config = record(f"Initializing a V1 LLM engine (v{version}) with config: model='m'")
    found = read(config, record("GPU KV cache size: 232,960 tokens"))
    assert found.vllm_version == version
    assert found.meaning == {}


def test_a_draft_model_of_v0_is_loaded_beside_the_other() -> None:
    """Both are weights of the same process, each with a line of its own."""
    found = read(
        "INFO 07-24 03:57:18 spec_decode_worker.py:141] Configuring SpecDecodeWorker with proposer=<class 'x'>",
        "INFO 07-24 03:57:31 model_runner.py:266] Loading model weights took 13.4966 GB",
        "INFO 07-24 03:57:33 model_runner.py:266] Loading model weights took 4.4062 GB",
    )
    assert found.facts["weights_gib"] == pytest.approx(17.9028)


def test_ranks_of_data_parallel_actors() -> None:
    """Ray's actors have no rank in their names; the process group tells it."""
    actor = "DPEngineCoreActor"
    init = "Adjusting world_size=2 rank=1 distributed_init_method=tcp://10.0.0.1:54291 for DP"
    told = "rank 0 in world size 2 is assigned as DP rank 0, PP rank 0, TP rank 0, EP rank 0"
    found = read(
        record(init, process=actor, pid=1),
        record(told, process=actor, pid=2),
        record(WEIGHTS.format(0.5), process=actor, pid=1),
        record(WEIGHTS.format(0.75), process=actor, pid=2),
    )
    assert {rank: facts["weights_gib"] for rank, facts in found.ranks.items()} == {"DP0_TP0": 0.75, "DP1_TP0": 0.5}


def test_an_engine_that_tells_its_size_under_another_pid_was_started_again() -> None:
    """Somebody cut out the line of its start."""
    lines = [record(PROFILED.format(gib), pid=pid) for gib, pid in ((64.27, 418), (31.65, 1568))]
    first, second = read_all(*lines)
    assert (first.facts["kv_cache_gib"], second.facts["kv_cache_gib"]) == (64.27, 31.65)
    assert list(second.ranks) == ["TP0"]


def test_stages_of_one_server_are_not_start_ups() -> None:
    """vLLM-Omni runs several engines side by side; their heads carry the stage."""
    lines = [
        f"[Stage-{stage}] " + record(PROFILED.format(gib), pid=pid) for stage, gib, pid in ((0, 8.0, 5), (1, 4.0, 6))
    ]
    assert len(read_all(*lines)) == 1


@pytest.mark.parametrize(("name", "platform"), [("tt", "tt"), ("ascend", "npu"), ("neuron", "neuron")])
def test_a_plugin_tells_the_platform(name: str, platform: str) -> None:
    """Ascend's is the one whose platform has another name."""
    assert read(record(f"Platform plugin {name} is activated", process="", file="__init__")).platform == platform


@pytest.mark.parametrize(
    "line",
    [
        "[rank0]:No valid triton configs. OutOfMemoryError: out of resource: triton_flex_attention Required: 360448 "
        "Hardware limit:232448 Reducing block sizes or `num_stages` may help..",
        "ERROR:torch._inductor.select_algorithm:Exception No valid triton configs. OutOfMemoryError: out of resource: "
        "triton_mm Required: 294912 Hardware limit:232448",
    ],
)
def test_a_kernel_that_does_not_fit_is_no_memory_that_is_out(line: str) -> None:
    """Autotuning tries kernels that need too much shared memory, and goes on."""
    assert read(line, record("Capturing cudagraphs for decoding")).failure is None
