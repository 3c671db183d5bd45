"""The command line: what each release accepts, and what it says when it does not."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from packaging.version import Version

from orchestrator.simulator.arguments import human_readable_int, parse_serve

Simulate = Callable[..., Any]


def test_spellings_of_one_argument_are_equal() -> None:
    release = Version("0.19.0")
    spellings = (
        ["--tensor-parallel-size", "2"],
        ["--tensor-parallel-size=2"],
        ["--tensor_parallel_size=2"],
        ["-tp", "2"],
    )
    assert {parse_serve(["serve", "m", *each], release).given["tensor-parallel-size"] for each in spellings} == {2}


def test_dotted_names_are_gathered_into_one_value() -> None:
    argv = ["serve", "m", "--compilation-config.cudagraph_mode", "NONE", "--compilation_config.mode=3"]
    parsed = parse_serve(argv, Version("0.19.0"))
    assert parsed.given["compilation-config"] == {"cudagraph_mode": "NONE", "mode": 3}


def test_booleans_have_a_negative_form() -> None:
    parsed = parse_serve(["serve", "m", "--no-enable-prefix-caching", "--enforce-eager"], Version("0.11.0"))
    assert parsed.given == {"enable-prefix-caching": False, "enforce-eager": True}


def test_arguments_equal_to_the_default_are_not_shown() -> None:
    parsed = parse_serve(["serve", "m", "--gpu-memory-utilization", "0.9", "--port", "8000"], Version("0.19.0"))
    assert parsed.non_default == {"model_tag": "m", "model": "m"}
    newer = parse_serve(["serve", "m", "--gpu-memory-utilization", "0.9"], Version("0.20.0"))
    assert newer.non_default["gpu_memory_utilization"] == 0.9, "the default is 0.92 from 0.20.0"


@pytest.mark.parametrize(("text", "number"), [("16k", 16000), ("16K", 16384), ("1.5g", 1_500_000_000), ("8192", 8192)])
def test_lengths_may_be_abbreviated(text: str, number: int) -> None:
    assert human_readable_int(text) == number


@pytest.mark.parametrize(
    ("release", "arguments", "error"),
    [
        ("0.19.0", ["--no-such-flag", "1"], "vllm: error: unrecognized arguments: --no-such-flag 1"),
        ("0.18.0", ["--swap-space", "4"], "vllm: error: unrecognized arguments: --swap-space 4"),
        ("0.8.5", ["--async-scheduling"], "vllm: error: unrecognized arguments: --async-scheduling"),
        ("0.19.0", ["--max-num-seqs", "x"], "vllm serve: error: argument --max-num-seqs: invalid int value: 'x'"),
        ("0.19.0", ["--dtype", "int9"], "vllm serve: error: argument --dtype: invalid choice: 'int9'"),
    ],
)
def test_bad_arguments_end_with_usage_and_exit_code_2(
    simulate: Simulate, release: str, arguments: list[str], error: str
) -> None:
    refused = simulate("Qwen/Qwen3-0.6B", *arguments, VERSION=release)
    assert refused.wait() == 2
    assert any(line.startswith(error) for line in refused.lines)
    assert len(refused.lines) == 3, "the marker, the usage and the error, and no other line"


def test_a_flag_is_accepted_while_it_exists(simulate: Simulate) -> None:
    simulate("Qwen/Qwen3-0.6B", "--swap-space", "4", VERSION="0.17.1").ready()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DEVICE": "Potato"}, "no device 'Potato' is known"),
        ({"VERSION": "0.7.0"}, "vLLM 0.7.0 cannot be simulated"),
        ({"SPEED": "0"}, "write a number above zero"),
        ({"FAULT": "bored"}, "KPROF_SIMULATE_FAULT is 'bored'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(simulate: Simulate, settings: dict[str, str], words: str) -> None:
    refused = simulate("Qwen/Qwen3-0.6B", **settings)
    assert refused.wait() == 2
    assert words in refused.text


def test_version_is_printed_alone() -> None:
    command = [sys.executable, "-m", "orchestrator.simulator", "--version"]
    done = subprocess.run(command, env={"KPROF_SIMULATE_VERSION": "0.11.0"}, capture_output=True, text=True, check=True)
    assert done.stdout == "0.11.0\n"


def test_the_simulator_needs_no_heavy_library() -> None:
    code = (
        "import sys, orchestrator.simulator.launch, orchestrator.simulator.server; "
        "print(sorted({'pydantic', 'kubernetes', 'sqlalchemy', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
