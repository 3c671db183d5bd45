"""Start-ups that fail: cause, order of reports and exit code."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Simulate = Callable[..., Any]

CONSEQUENCE = "RuntimeError: Engine core initialization failed. See root cause above."
ALL = ("0.8.5", "0.11.0", "0.19.0", "0.33.0")


@pytest.mark.parametrize("release", ALL)
def test_weights_that_do_not_fit(simulate: Simulate, release: str) -> None:
    failed = simulate("deepseek-ai/DeepSeek-R1", VERSION=release)
    assert failed.wait() == 1
    cause = failed.text.index("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    assert failed.text.index("Starting to load model") < cause < failed.text.index(CONSEQUENCE)
    assert ("Failed to load model - not enough GPU memory" in failed.text) is (release in {"0.19.0", "0.33.0"})


def test_the_numbers_of_an_out_of_memory_sentence_agree(simulate: Simulate) -> None:
    failed = simulate("deepseek-ai/DeepSeek-R1", VERSION="0.19.0")
    failed.wait()
    sentence = re.search(
        r"Tried to allocate ([\d.]+) GiB\. GPU 0 has a total capacity of ([\d.]+) GiB of which ([\d.]+) GiB is free\. "
        r"Including non-PyTorch memory, this process has ([\d.]+) GiB memory in use\.",
        failed.text,
    )
    assert sentence is not None
    tried, total, free, mine = (float(number) for number in sentence.groups())
    assert tried > free
    assert free + mine == pytest.approx(total, abs=0.02)


def test_a_rank_without_room_for_the_profile_run(simulate: Simulate) -> None:
    arguments = ("--max-num-seqs", "1024", "--gpu-memory-utilization", "0.99")
    failed = simulate("Qwen/Qwen3-8B", *arguments, DEVICE="NVIDIA-L4", VERSION="0.11.0", BUSY_GIB="0")
    assert failed.wait() == 1
    assert "less than desired GPU memory utilization (0.99" in failed.text
    failed = simulate("Qwen/Qwen3-8B", *arguments[:2], "--max-num-batched-tokens", "200000", DEVICE="NVIDIA-L4")
    assert failed.wait() == 1
    text = failed.text
    assert text.index("Model loading took") < text.index("OutOfMemoryError") < text.index(CONSEQUENCE)
    assert "Available KV cache memory" not in text


@pytest.mark.parametrize("release", ALL)
def test_nothing_left_for_the_kv_cache(simulate: Simulate, release: str) -> None:
    model = "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
    failed = simulate(model, "--gpu-memory-utilization", "0.85", VERSION=release)
    assert failed.wait() == 1
    cause = failed.text.index("ValueError: No available memory for the cache blocks. Try increasing")
    assert cause < failed.text.index(CONSEQUENCE)
    if release != "0.8.5":
        assert re.search(r"Available KV cache memory: -\d+\.\d+ GiB", failed.text[:cause])
    assert ("See https://docs.vllm.ai" in failed.text) is (release in {"0.19.0", "0.33.0"})


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("0.8.5", "models's max seq len (40960)"),
        ("0.11.0", "models's max seq len (40960)"),
        ("0.19.0", "models's max seq len (40960)"),
        ("0.33.0", "model's max seq len (40960)"),
    ],
)
def test_a_kv_cache_smaller_than_one_request(simulate: Simulate, release: str, words: str) -> None:
    failed = simulate("Qwen/Qwen3-32B", "--gpu-memory-utilization", "0.89", VERSION=release)
    assert failed.wait() == 1
    assert f"To serve at least one request with the {words}" in failed.text
    sizes = re.search(r"\(([\d.]+) GiB KV cache is needed, .* memory \(([\d.]+) GiB\)", failed.text)
    assert sizes is not None
    assert float(sizes.group(1)) == 10.0, "40960 tokens x 64 layers x 2 x 8 heads x 128 x 2 bytes"
    assert float(sizes.group(2)) < 10.0
    if release == "0.8.5":
        assert "Based on the available memory,  Try increasing" in failed.text
        return
    estimate = re.search(r"the estimated maximum model length is (\d+)\.", failed.text)
    assert estimate is not None
    blocks = int(float(sizes.group(2)) * 2**30 / (16 * 262144))
    assert int(estimate.group(1)) == pytest.approx(blocks * 16, abs=64)


@pytest.mark.parametrize("release", ALL)
@pytest.mark.parametrize(
    ("arguments", "settings", "cause"),
    [
        (["--max-model-len", "99999"], {}, r"User-specified max_model_len \(99999\) is greater than the derived"),
        (["-tp", "3"], {}, r"Total number of attention heads \(32\) must be divisible by tensor parallel size \(3\)"),
        (["-tp", "4"], {"GPUS": "2"}, r"of available GPUs"),
    ],
)
def test_a_configuration_that_is_refused(
    simulate: Simulate, release: str, arguments: list[str], settings: dict[str, str], cause: str
) -> None:
    failed = simulate("Qwen/Qwen3-8B", *arguments, VERSION=release, **settings)
    assert failed.wait() == 1
    assert re.search(cause, failed.text)
    assert "Initializing a V1 LLM engine" not in failed.text
    wrapped = re.search(r"1 validation error for \w+Config\r?\n.*  Value error, ", failed.text) is not None
    assert wrapped is (release in {"0.19.0", "0.33.0"} or (release == "0.11.0" and "GPUS" not in settings))


def test_a_vocabulary_that_cannot_be_split(simulate: Simulate, tmp_path: Path) -> None:
    shape = {
        "architectures": ["Qwen3ForCausalLM"],
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "intermediate_size": 17408,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    failed = simulate(str(tmp_path), "-tp", "5", VERSION="0.19.0")
    assert failed.wait() == 1
    assert "AssertionError: 151936 is not divisible by 5" in failed.text
    assert failed.text.count("WorkerProc failed to start.") == 5


@pytest.mark.parametrize(
    ("release", "device"), [("0.11.0", "device ("), ("0.19.0", "device cuda:0 ("), ("0.33.0", "device cuda:0 (")]
)
def test_a_device_that_others_use(simulate: Simulate, release: str, device: str) -> None:
    failed = simulate("Qwen/Qwen3-8B", BUSY_GIB="30", VERSION=release)
    assert failed.wait() == 1
    assert f"ValueError: Free memory on {device}48.67/79.18 GiB) on startup is less than desired" in failed.text
    assert "Starting to load model" not in failed.text


def test_before_0_9_1_a_busy_device_costs_kv_cache(simulate: Simulate) -> None:
    def tokens(busy: str) -> int:
        text = simulate("Qwen/Qwen3-8B", BUSY_GIB=busy, VERSION="0.8.5").ready().text
        match = re.search(r"KV cache size: ([\d,]+) tokens", text)
        assert match is not None
        return int(match.group(1).replace(",", ""))

    assert tokens("20") < tokens("0") - 100_000


def test_workers_report_before_the_engine_core(simulate: Simulate) -> None:
    failed = simulate("Qwen/Qwen3-8B", "-tp", "2", VERSION="0.19.0", FAULT="nccl")
    assert failed.wait() == 1
    order = [
        "WorkerProc failed to start.",
        "RuntimeError: NCCL error: unhandled system error",
        "EngineCore failed to start.",
        "WorkerProc initialization failed due to an exception in a background process.",
        "Process EngineCore:",
        CONSEQUENCE,
    ]
    places = [failed.text.index(words) for words in order]
    assert places == sorted(places)
    traceback = failed.text[places[0] : places[1]].split("\n")
    assert all(line.startswith("(Worker pid=") for line in traceback[1:])


def test_tracebacks_have_no_prefix_from_0_31(simulate: Simulate) -> None:
    failed = simulate("Qwen/Qwen3-8B", VERSION="0.33.0", BUSY_GIB="30")
    failed.wait()
    assert any(line == f"{CONSEQUENCE} Failed core proc(s): {{}}" for line in failed.lines)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("gated", "Cannot access gated repo for url https://huggingface.co/Qwen/Qwen3-8B"),
        ("missing", "Repository Not Found for url: https://huggingface.co/Qwen/Qwen3-8B"),
        ("unreachable", "We couldn't connect to 'https://huggingface.co' to load the files"),
        ("nccl", "RuntimeError: NCCL error: unhandled system error"),
        ("graph_oom", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 32.00 MiB"),
        ("profiling_race", "AssertionError: Error in memory profiling. Initial free memory 78.67 GiB"),
    ],
)
def test_a_fault_that_was_asked_for(simulate: Simulate, fault: str, cause: str) -> None:
    failed = simulate("Qwen/Qwen3-8B", FAULT=fault)
    assert failed.wait() == 1
    assert cause in failed.text
    assert ("Capturing CUDA graphs" in failed.text) is (fault == "graph_oom")


def test_a_killed_server_dies_by_the_signal(simulate: Simulate) -> None:
    killed = simulate("Qwen/Qwen3-8B", FAULT="killed")
    assert killed.wait() == -9
    assert "Loading safetensors checkpoint shards" in killed.lines[-1]


def test_a_hanging_server_still_stops_on_request(simulate: Simulate) -> None:
    hanging = simulate("Qwen/Qwen3-8B", FAULT="hang")
    hanging.wait_for("Loading safetensors checkpoint shards:  33%")
    assert hanging.process.poll() is None
    assert hanging.terminate() == 0


def test_an_unknown_model_and_an_empty_folder(simulate: Simulate, tmp_path: Path) -> None:
    unknown = simulate("nobody/nothing")
    assert unknown.wait() == 1
    assert "is not a local folder and is not a valid model identifier" in unknown.text
    folder = simulate(str(tmp_path))
    assert folder.wait() == 1
    assert f"Invalid repository ID or local directory specified: '{tmp_path}'" in folder.text


def test_a_port_that_is_taken(simulate: Simulate) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = simulate("Qwen/Qwen3-8B", "--host", "127.0.0.1", port=port)
        assert failed.wait() == 1
    assert "OSError: [Errno 98] Address already in use" in failed.text


def test_too_much_given_kv_cache_runs_out_of_memory(simulate: Simulate) -> None:
    failed = simulate("Qwen/Qwen3-8B", "--kv-cache-memory-bytes", "75G")
    assert failed.wait() == 1
    assert "Tried to allocate 75.00 GiB" in failed.text


def test_a_sampler_without_room_names_the_flag(simulate: Simulate) -> None:
    failed = simulate("Qwen/Qwen3-8B", "--kv-cache-memory-bytes", "61G", "--max-num-seqs", "2048")
    assert failed.wait() == 1
    assert "CUDA out of memory occurred when warming up sampler with 2048 dummy requests." in failed.text
