"""Real logs against what a careful reader takes from them, whole or as they arrive."""

import itertools
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.vllm_log import Event, LogParser, StartUp, parse_log

LOGS = Path(__file__).parents[2] / "data" / "logs"
NAMES = sorted(path.name for path in LOGS.glob("*.log"))
RAW = {name: (LOGS / name).read_bytes() for name in NAMES}

# By hand: version, engine ready, kind and line of the failure, facts; only what is printed.
LABELS: dict[str, tuple[str, bool, str | None, str, dict[str, float]]] = {
    "013-v092-profiling-assertion.log": (
        "0.9.2",
        False,
        "gpu.busy",
        "Error in memory profiling. Initial free memory 43.37432861328125 GiB",
        {"weights_gib": 2.8798, "device_free_gib": 43.37432861328125, "model_load_seconds": 1.889719},
    ),
    "018-v01011-qwen2-7b-tp2-samenode.log": (
        "0.10.1.1",
        True,
        None,
        "",
        {
            "weights_gib": 7.1217,
            "cuda_graph_gib": 0.65,
            "kv_cache_gib": 12.02,
            "kv_cache_tokens": 450192,
            "max_concurrency": 27.48,
            "concurrency_tokens": 16384,
            "model_load_seconds": 168.306294,
            "engine_init_seconds": 86.34,
        },
    ),
    "063-v0271-qwen36-27b-tp2.log": (
        "0.27.1",
        True,
        None,
        "",
        {
            "weights_gib": 25.69,
            "activation_gib": 2.32,
            "cuda_graph_gib": 1.01,
            "kv_cache_gib": 44.73,
            "kv_cache_tokens": 1407894,
            "max_concurrency": 21.48,
            "concurrency_tokens": 65536,
            "device_total_gib": 79.25,
            "device_free_gib": 78.1,
            "model_load_seconds": 65.36253,
            "engine_init_seconds": 300.72,
        },
    ),
    "070-v0190-gemma2-27b-gated-403.log": ("0.19.0", False, "model.access", "403 Client Error: Forbidden", {}),
    "078-v0221-mlops-h100.log": (
        "0.22.1",
        True,
        None,
        "",
        {
            "weights_gib": 29.08,
            "cuda_graph_gib": 0.22,
            "kv_cache_gib": 42.54,
            "kv_cache_tokens": 464656,
            "max_concurrency": 56.72,
            "concurrency_tokens": 8192,
            "model_load_seconds": 596.567233,
            "engine_init_seconds": 75.54,
        },
    ),
    "083-v0230-utf16-wsl-negative-kv.log": (
        "0.23.0",
        False,
        "kv.no_room",
        "No available memory for the cache blocks",
        {"weights_gib": 3.32, "kv_cache_gib": -2.14, "model_load_seconds": 119.535175},
    ),
    "cpu-0.27.1_info_ok.log": (
        "0.27.1",
        True,
        None,
        "",
        {
            "kv_cache_gib": 3.89,
            "kv_cache_tokens": 2040064,
            "max_concurrency": 996.12,
            "concurrency_tokens": 2048,
            "engine_init_seconds": 2.27,
        },
    ),
    "cpu-0.32.0_kv_lt_one_seq.log": (
        "0.32.0",
        False,
        "kv.context_too_long",
        "the estimated maximum model length is 1008",
        {},
    ),
    "cpu-0.32.0_tp2.log": (
        "0.32.0",
        True,
        None,
        "",
        {
            "kv_cache_gib": 2.76,
            "kv_cache_tokens": 2889856,
            "max_concurrency": 1411.06,
            "concurrency_tokens": 2048,
            "engine_init_seconds": 2.56,
        },
    ),
    "cpu-0.32.0_tp3_indivisible.log": (
        "0.32.0",
        False,
        "config.parallelism",
        "Total number of attention heads (4) must be divisible by tensor parallel size (3)",
        {},
    ),
}
# Facts that these logs do not print: they must stay unknown.
UNKNOWN = {
    "018-v01011-qwen2-7b-tp2-samenode.log": {"activation_gib", "non_torch_gib", "device_total_gib"},
    "078-v0221-mlops-h100.log": {"activation_gib", "non_torch_gib", "device_total_gib"},
    "070-v0190-gemma2-27b-gated-403.log": {"weights_gib", "kv_cache_gib", "kv_cache_tokens"},
    "cpu-0.27.1_info_ok.log": {"weights_gib", "activation_gib", "cuda_graph_gib"},
}


def test_every_log_has_a_label() -> None:
    """A log without one would test nothing."""
    assert set(NAMES) == set(LABELS)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_gives_the_facts_a_careful_reader_finds(name: str) -> None:
    """Version, readiness and every labelled figure, each with the line that proves it."""
    version, ready, _, _, facts = LABELS[name]
    (found,) = parse_log(RAW[name])
    assert (found.vllm_version, found.engine_ready) == (version, ready)
    assert {key: found.facts.get(key) for key in facts} == pytest.approx(facts, rel=1e-9)
    assert not UNKNOWN.get(name, set()) & found.facts.keys()
    lines = RAW[name].decode("utf-8", "replace").split("\n")
    for key in facts:
        whole = int(facts[key])
        line = lines[found.evidence[key].line_number - 1]
        assert str(whole) in line or f"{whole:,}" in line


@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_gives_the_root_cause_and_its_line(name: str) -> None:
    """Not the last line, not `See root cause above`; and no failure where the server came up."""
    _, _, kind, words, _ = LABELS[name]
    (found,) = parse_log(RAW[name])
    if kind is None:
        assert found.failure is None
        return
    assert found.failure is not None
    assert found.failure.kind == kind
    assert words in found.failure.evidence.line
    assert words in RAW[name].decode("utf-8", "replace").split("\n")[found.failure.evidence.line_number - 1]
    assert found.failure.remedy


def test_the_remedy_is_computed_from_the_numbers_of_the_line() -> None:
    """The nearest size that divides, the longest context that fits, the GiB that are missing."""

    def remedy(name: str) -> str:
        failure = parse_log(RAW[name])[0].failure
        assert failure is not None
        return failure.remedy or ""

    assert "--tensor-parallel-size 2 divides the 4 attention heads" in remedy("cpu-0.32.0_tp3_indivisible.log")
    assert "--max-model-len 1008" in remedy("cpu-0.32.0_kv_lt_one_seq.log")
    assert "2.14 GiB are missing" in remedy("083-v0230-utf16-wsl-negative-kv.log")


def test_figures_are_kept_per_rank() -> None:
    """Overall, the largest weights and the smallest KV cache of the ranks count."""
    log = (
        b"(Worker_TP0 pid=1) INFO 01-01 00:00:00 [m.py:1] Model loading took 10.00 GiB and 1.0 seconds\n"
        b"(Worker_TP1 pid=2) INFO 01-01 00:00:00 [m.py:1] Model loading took 11.00 GiB and 3.0 seconds\n"
        b"(Worker_TP0 pid=1) INFO 01-01 00:00:00 [w.py:1] Available KV cache memory: 5.00 GiB\n"
        b"(Worker_TP1 pid=2) INFO 01-01 00:00:00 [w.py:1] Available KV cache memory: -0.25 GiB\n"
        b"(Worker_TP0 pid=1) INFO 01-01 00:00:00 [g.py:1] Graph capturing finished in 9 secs, took -0.45 GiB\n"
        b"(Worker_TP1 pid=2) INFO 01-01 00:00:00 [g.py:1] Graph capturing finished in 9 secs, took -0.88 GiB\n"
    )
    document = parse_log(log)[0].to_json("x")
    assert [rank["rank"] for rank in document["ranks"]] == ["TP0", "TP1"]
    assert [rank["kv_cache_gib"] for rank in document["ranks"]] == [5.0, -0.25]
    facts = document["facts"]
    assert (facts["weights_gib"], facts["kv_cache_gib"], facts["cuda_graph_gib"]) == (11.0, -0.25, -0.45)
    assert facts["model_load_seconds"] == 3.0


def test_a_restart_in_the_same_file_is_a_start_up_of_its_own() -> None:
    """Results of one start never mix with those of the next."""
    both = parse_log(RAW["cpu-0.32.0_kv_lt_one_seq.log"] + RAW["cpu-0.27.1_info_ok.log"])
    assert [(s.number, s.vllm_version, s.engine_ready) for s in both] == [(1, "0.32.0", False), (2, "0.27.1", True)]
    assert both[1].failure is None


def test_a_windows_file_reads_like_any_other() -> None:
    """UTF-16 with a byte order mark and CRLF gives the same facts."""
    name = "cpu-0.27.1_info_ok.log"
    text = RAW[name].decode().replace("\n", "\r\n")
    assert _facts(parse_log(text.encode("utf-16"))) == _facts(parse_log(RAW[name]))


def test_colours_and_foreign_prefixes_do_not_hide_a_figure() -> None:
    """kubectl, docker compose and terminals put their own words around a line."""
    head = "vllm-1  | \x1b[36m(EngineCore pid=9)\x1b[0;0m INFO 01-01 00:00:00 [w.py:1] "
    line = head + "Available KV cache memory: 1.50 GiB\n"
    assert parse_log(line.encode())[0].facts["kv_cache_gib"] == 1.5


def _facts(found: list[StartUp]) -> list[dict[str, Any]]:
    return [{"facts": s.facts, "ready": s.engine_ready, "version": s.vllm_version} for s in found]


def _in_chunks(raw: bytes, cuts: list[int]) -> tuple[list[Event], list[dict[str, Any]]]:
    parser = LogParser()
    events: list[Event] = []
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    for start, end in itertools.pairwise(places):
        events += parser.feed(raw[start:end])
    return events, [s.to_json("x") for s in parser.close()]


@given(st.sampled_from(NAMES), st.lists(st.integers(0, 1 << 20), max_size=30))
@settings(max_examples=60)
def test_any_chunking_gives_what_the_whole_log_gives(name: str, cuts: list[int]) -> None:
    """Events and results do not depend on where the stream was cut."""
    assert _in_chunks(RAW[name], cuts) == _in_chunks(RAW[name], [])


def test_a_log_fed_byte_by_byte_gives_the_same() -> None:
    """The worst stream of all."""
    raw = RAW["cpu-0.32.0_tp3_indivisible.log"]
    assert _in_chunks(raw, list(range(len(raw)))) == _in_chunks(raw, [])


def test_ready_and_failure_are_told_as_soon_as_their_line_is_complete() -> None:
    """A sweep does not wait for the end of a log that never ends."""
    parser = LogParser()
    head, mark, _ = RAW["cpu-0.27.1_info_ok.log"].partition(b"Application startup complete.")
    assert "ready" not in [event.name for event in parser.feed(head + mark)]
    assert [event.name for event in parser.feed(b"\n")][:1] == ["ready"]
    failing = LogParser()
    events = failing.feed(b"ValueError: No available memory for the cache blocks.\n")
    assert [(event.name, event.value) for event in events if event.name == "failure"] == [("failure", "kv.no_room")]


@given(st.binary(max_size=2000))
@settings(max_examples=150)
def test_random_bytes_are_read_without_an_exception(raw: bytes) -> None:
    """A binary file is a log without facts."""
    for found in parse_log(raw):
        found.to_json("x")


@given(st.sampled_from(NAMES), st.randoms(use_true_random=False), st.integers(1, 60))
@settings(max_examples=60)
def test_a_damaged_log_is_read_without_an_exception(name: str, dice: random.Random, damages: int) -> None:
    """Bytes flipped, cut and doubled in a real log do no harm."""
    raw = bytearray(RAW[name][:20_000])
    for _ in range(damages):
        place = dice.randrange(len(raw))
        match dice.randrange(4):
            case 0:
                raw[place] = dice.randrange(256)
            case 1:
                del raw[place : place + dice.randrange(200)]
            case 2:
                raw[place:place] = raw[place : place + dice.randrange(200)]
            case _:
                raw[place:place] = dice.choice([b"\n", b"\r", b"\x00", b"-", b"nan", b"9" * 400, b".", b",,"])
        if not raw:
            return
    for found in parse_log(bytes(raw)):
        found.to_json("x")


WORDS = st.sampled_from(
    ["Model loading took ", "Available KV cache memory: ", " GiB", "1.5", "-", ",", ".", "9" * 400, " GiB memory and ",
     " seconds", "KV cache size: ", " tokens", "Maximum concurrency for ", " tokens per request: ", "x", "1e5", "²",
     "Free memory on device (", "/", ") on startup", "Traceback (most recent call last)", "CUDA out of memory. Tried ",
     "to allocate 1 GiB", "Total number of attention heads (", ") must be divisible by tensor parallel size (", "0",
     ")", "the estimated maximum model length is ", "tensor_parallel_size=", "block_size=", "\n",
     "(EngineCore_DP0 pid=1) ",
     "User-specified max_model_len (", ") is greater than the derived max_model_len (a=", "\x1b[0m", "World size (",
     ") is larger than the number of available GPUs (", "vLLM API server version "]
)  # fmt: skip


@given(st.lists(WORDS, max_size=40).map("".join))
@settings(max_examples=300)
def test_lines_in_vllms_own_words_but_without_sense_do_no_harm(text: str) -> None:
    """Numbers may be empty, huge or zero where a wording expects one."""
    for found in parse_log(text.encode()):
        found.to_json("x")


@pytest.mark.timeout(20)
def test_a_line_of_50_megabytes_takes_no_memory() -> None:
    """A progress bar without newlines, fed as it comes, is bounded; what follows is still read."""
    parser = LogParser()
    chunk = b"Model loading took " + b"#" * (1 << 16)
    tracemalloc.start()
    try:
        for _ in range(50 * 16):
            parser.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20
    parser.feed(b"\nAvailable KV cache memory: 1.50 GiB\n")
    (found,) = parser.close()
    assert found.facts == {"kv_cache_gib": 1.5}


def test_a_long_log_takes_no_memory() -> None:
    """An hour of log lines, each a figure or a traceback of another process, leaves no trace but the last values."""
    parser = LogParser()
    tracemalloc.start()
    try:
        for pid in range(5_000):
            parser.feed(
                f"(Worker pid={pid}) Traceback (most recent call last):\n"
                f'(Worker pid={pid})   File "a.py", line 1, in run_{pid}\n'.encode()
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
