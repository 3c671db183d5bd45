"""What a start-up that works prints, by vLLM release."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Simulate = Callable[..., Any]

MODEL = "Qwen/Qwen3-8B"
RELEASES = ("0.8.5", "0.11.0", "0.19.0", "0.33.0")
NUMBER = r"(-?[\d.]+)"


def first_number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return float(match.group(1).replace(",", ""))


@pytest.mark.parametrize("release", RELEASES)
def test_the_first_line_says_that_nothing_was_measured(simulate: Simulate, release: str) -> None:
    simulated = simulate(MODEL, VERSION=release, DEVICE="NVIDIA-H200").ready()
    expected = f"kprof simulator 0.1.0: vLLM {release} on NVIDIA-H200, computed and not measured"
    assert simulated.lines[0] == expected


@pytest.mark.parametrize(
    ("release", "present", "absent"),
    [
        (
            "0.8.5",
            [
                r"^INFO \d\d-\d\d \d\d:\d\d:\d\d \[api_server\.py:\d+\] vLLM API server version 0\.8\.5$",
                r"\] args: Namespace\(subparser='serve', model_tag='Qwen/Qwen3-8B'",
                r"\] Model loading took 15\.\d{4} GiB and \d+\.\d{6} seconds$",
                r"\[kv_cache_utils\.py:\d+\] GPU KV cache size: [\d,]+ tokens$",
                r"\] Core engine process 0 ready\.$",
                r"\] Starting vLLM API server on http://0\.0\.0\.0:\d+$",
                r"^INFO:     Application startup complete\.$",
            ],
            ["Available KV cache memory", "Memory profiling takes", "num_gpu_blocks is", "APIServer pid"],
        ),
        (
            "0.11.0",
            [
                r"^\(APIServer pid=\d+\) INFO .* vLLM API server version 0\.11\.0$",
                r"^\(EngineCore_DP0 pid=\d+\) INFO .*\[v1/worker/gpu_model_runner\.py:\d+\] Model loading took "
                r"15\.\d{4} GiB and \d+\.\d{6} seconds$",
                r"DEBUG .*Initial free memory: 78\.67 GiB; Requested memory: 0\.90 \(util\), 71\.26 GiB$",
                r"DEBUG .*non-torch forward increase memory: 0\.13GiB; weights memory: 15\.\d\dGiB\.$",
                r"INFO .*Available KV cache memory: \d+\.\d\d GiB$",
                r"DEBUG .*Free memory on device \(78\.67/79\.18 GiB\) on startup\. Desired GPU memory utilization is "
                r"\(0\.9, 71\.26 GiB\)\. Actual usage is .* GiB for weight, ",
                r"INFO .*Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: \d+$",
                r"torch\.compile takes \d+\.\d\d s in total$",
                r"init engine \(profile, create kv cache, warmup model\) took \d+\.\d\d seconds$",
                r"Starting vLLM API server 0 on http://0\.0\.0\.0:\d+$",
                r"^\(APIServer pid=\d+\) INFO:     Application startup complete\.$",
            ],
            ["GiB memory and", "CUDA graph pool memory", "snapshot"],
        ),
        (
            "0.19.0",
            [
                r"^\(APIServer pid=\d+\) INFO .*█  version 0\.19\.0\r?$",
                r"^\(EngineCore pid=\d+\) INFO .*Model loading took 15\.\d{1,2} GiB memory and \d+\.\d{6} seconds$",
                r"DEBUG .*worker init memory snapshot: torch_peak=0\.0GiB, free_memory=78\.67GiB, ",
                r"DEBUG .*Requested memory: 0\.900000 \(util\), 71\.26 GiB$",
                r"INFO .*Profiling CUDA graph memory: PIECEWISE=51 \(largest=512\), FULL=51 \(largest=512\)$",
                r"INFO .*Estimated CUDA graph memory: \d\.\d\d GiB total$",
                r"INFO .*In v0\.19, CUDA graph memory profiling will be enabled by default",
                r"DEBUG .*Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: \d+$",
                r"torch\.compile took \d+\.\d\d s in total$",
                r"Starting vLLM server on http://0\.0\.0\.0:\d+$",
            ],
            ["EngineCore_DP0", "vLLM API server version"],
        ),
        (
            "0.33.0",
            [
                r"^\(EngineCore pid=\d+\) INFO .*GPU KV cache size: [\d,]+ tokens, Maximum concurrency for 40,960 "
                r"tokens per request: \d+\.\d\dx$",
                r"DEBUG .*total consumed \(from mem_get_info\): 15\.\d+GiB; weights memory: 15\.\d+GiB\.$",
                r"INFO .*GiB for consumed memory \(weights \+ non-torch\), ",
                r"INFO .*\[backbone\] torch\.compile took ",
                r"init engine \(.*\) took \d+\.\d\d s \(compilation: \d+\.\d\d s\)$",
                r"ETP rank 0, EP rank N/A, EPLB rank N/A$",
                r"^INFO:     Application startup complete\.$",
            ],
            ["non-torch forward increase", "EngineCore_DP0"],
        ),
    ],
)
def test_a_start_speaks_the_wording_of_its_release(
    simulate: Simulate, release: str, present: list[str], absent: list[str]
) -> None:
    text = simulate(MODEL, VERSION=release).ready().text
    for pattern in present:
        assert re.search(pattern, text, re.MULTILINE), pattern
    for words in absent:
        assert words not in text


@pytest.mark.parametrize("release", ["0.9.1", "0.11.0", "0.14.0", "0.19.0"])
def test_the_printed_budget_adds_up(simulate: Simulate, release: str) -> None:
    text = simulate(MODEL, VERSION=release).ready().text
    total = first_number(rf"Total non KV cache memory: {NUMBER}GiB", text)
    parts = [
        first_number(rf"{name}: {NUMBER}GiB", text)
        for name in ("torch peak memory increase", "non-torch forward increase memory", "weights memory")
    ]
    available = first_number(rf"Available KV cache memory: {NUMBER} GiB", text)
    assert sum(parts) == pytest.approx(total, abs=0.02)
    assert total + available == pytest.approx(0.9 * 79.18, abs=0.02)


def test_graphs_are_in_the_budget_from_0_20(simulate: Simulate) -> None:
    text = simulate(MODEL, "--gpu-memory-utilization", "0.9", VERSION="0.26.0").ready().text
    total = first_number(rf"Total non KV cache memory: {NUMBER}GiB", text)
    graphs = first_number(rf"Estimated CUDA graph memory: {NUMBER} GiB total", text)
    available = first_number(rf"Available KV cache memory: {NUMBER} GiB", text)
    assert graphs > 0.1
    assert total + graphs + available == pytest.approx(0.9 * 79.18, abs=0.02)


@pytest.mark.parametrize(("release", "times"), [("0.8.5", 2), ("0.11.0", 2), ("0.19.0", 1), ("0.33.0", 2)])
def test_ranks_repeat_the_weights_line_as_the_release_does(simulate: Simulate, release: str, times: int) -> None:
    text = simulate(MODEL, "-tp", "2", VERSION=release).ready().text
    assert len(re.findall("Model loading took", text)) == times
    worker = {"0.8.5": "VllmWorker rank=0", "0.11.0": "Worker_TP0"}.get(release, "Worker_TP0")
    assert re.search(rf"\({worker} pid=\d+\) INFO .*Model loading took", text)
    assert len(re.findall("KV cache size:", text)) == (2 if release in {"0.8.5", "0.11.0"} else 1)


def test_pipeline_ranks_differ_because_only_the_last_one_samples(simulate: Simulate) -> None:
    text = simulate(MODEL, "-pp", "2", VERSION="0.19.0").ready().text
    peaks = dict(re.findall(rf"\((Worker_PP\d) pid=\d+\).*torch peak memory increase: {NUMBER}GiB", text))
    assert float(peaks["Worker_PP0"]) < float(peaks["Worker_PP1"])


def test_debug_lines_need_the_debug_level(simulate: Simulate) -> None:
    text = simulate(MODEL, debug=False, VERSION="0.19.0").ready().text
    assert "DEBUG" not in text
    assert "[gpu_model_runner.py:" in text, "file names are bare without DEBUG"
    assert "Available KV cache memory" in text


@pytest.mark.parametrize(("release", "colored"), [("0.11.0", True), ("0.15.1", True), ("0.16.0", False)])
def test_the_prefix_is_colored_in_files_until_0_15(simulate: Simulate, release: str, colored: bool) -> None:
    text = simulate(MODEL, VERSION=release, colors="yes").ready().text
    assert ("\x1b[" in text) is colored


def test_eager_mode_compiles_and_captures_nothing(simulate: Simulate) -> None:
    text = simulate(MODEL, "--enforce-eager", VERSION="0.19.0").ready().text
    assert "Cudagraph is disabled under eager mode" in text
    for words in ("torch.compile took", "Graph capturing finished", "CUDA graph memory"):
        assert words not in text


def test_a_given_kv_cache_size_skips_profiling(simulate: Simulate) -> None:
    text = simulate(MODEL, "--kv-cache-memory-bytes", str(8 * 2**30), VERSION="0.19.0").ready().text
    assert "reserved 8.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes config" in text
    assert "Available KV cache memory" not in text
    assert "Memory profiling takes" not in text


def test_automatic_length_shrinks_to_what_fits(simulate: Simulate) -> None:
    text = simulate("Qwen/Qwen3-32B", "--max-model-len", "auto", "--gpu-memory-utilization", "0.87").ready().text
    match = re.search(r"Auto-fit max_model_len: reduced from (\d+) to (\d+) to fit", text)
    assert match is not None
    assert int(match.group(2)) < int(match.group(1))
    assert f"Maximum concurrency for {int(match.group(2)):,} tokens per request: 1.0" in text


def test_secrets_in_arguments_are_printed_as_vllm_does(simulate: Simulate) -> None:
    assert "sk-secret" in simulate(MODEL, "--api-key", "sk-secret").ready().text


def test_a_continuation_line_repeats_the_head(simulate: Simulate) -> None:
    lines = simulate(MODEL, VERSION="0.19.0").ready().lines
    banner = [line for line in lines if "entrypoints/utils.py:299" in line]
    assert len(banner) == 6
    assert all(line.startswith("(APIServer pid=") for line in banner)
    assert all(line.endswith("\r") for line in banner[:-1])


def test_a_record_may_be_glued_to_a_progress_bar(simulate: Simulate) -> None:
    text = simulate(MODEL, "-tp", "2", VERSION="0.11.0").ready().text
    assert re.search(r"\d+/51 \[\S+ \S+it/s\]\(Worker_TP1 pid=\d+\) INFO .*Graph capturing finished in", text)
    assert "100%|██████████| 51/51" in text


def test_bigger_models_take_longer(simulate: Simulate) -> None:
    pattern = rf"Loading weights took {NUMBER} seconds"
    small, big = (simulate(model, "-tp", "2").ready().text for model in (MODEL, "Qwen/Qwen3-32B"))
    assert first_number(pattern, big) > 2 * first_number(pattern, small)


def test_two_engines_are_numbered(simulate: Simulate) -> None:
    text = simulate("Qwen/Qwen3-0.6B", "-dp", "2", VERSION="0.19.0").ready().text
    assert "(EngineCore_DP1 pid=" in text
    assert "Engine 001: vllm cache_config_info" in text
