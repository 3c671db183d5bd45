"""What terminals, container runtimes and progress bars put around and between vLLM's records."""

import pytest

from orchestrator.vllm_log import LogParser, parse_log
from tests.unit.vllm_log.log_lines import read, record, text

LINE = record("Available KV cache memory: 1.50 GiB", process="Worker_TP1", pid=77, file="gpu_worker")
BYTES = record("Available memory: 26664089702, total memory: 65452113920", process="Worker_TP1", pid=77)
COLOURED = (
    "\x1b[0;36m(Worker_TP1 pid=77)\x1b[0;0m \x1b[32mINFO\x1b[0m \x1b[90m01-02 03:04:05\x1b[0m "
    "\x1b[90m[gpu_worker.py:1]\x1b[0m Available KV cache memory: \x1b[1m1.50\x1b[0m GiB"
)
BAR = "Loading safetensors checkpoint shards: {}% Completed | 1/4 [00:05<00:15,  5.01s/it]"
WRAPPERS = {
    "kubectl --prefix": ("[pod/vllm-0/vllm] ", ""),
    "kubectl --timestamps": ("2026-01-02T03:04:05.123456789Z ", ""),
    "containerd": ("2026-01-02T03:04:05.123456789Z stderr F ", ""),
    "compose": ("vllm-1  | ", ""),
    "srun -l": ("3: ", ""),
    "journal": ("Jan 02 03:04:05 node1 vllm[123]: ", ""),
    "k9s": ("│ ", "        │"),
    "indented": ("    ", ""),
    "quoted": ("> ", ""),
    "ray": ("\x1b[36m(RayWorkerWrapper pid=5, ip=10.0.0.2)\x1b[0m ", ""),
    "ray, repeated": ("(RayWorkerWrapper pid=5, ip=10.0.0.2) ", " [repeated 3x across cluster]"),
    "ray twice": ("(TaskRunner pid=4) (vLLMHttpServer pid=5) ", ""),
    "logging prefix": ("[my-app] ", ""),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_hides_neither_figure_nor_rank(wrapper: str) -> None:
    """The innermost prefix names the process, whoever printed the line again."""
    before, after = WRAPPERS[wrapper]
    assert read(before + LINE + after).ranks == {"TP1": {"kv_cache_gib": 1.5}}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_does_not_hide_a_figure_at_the_end_of_a_line(wrapper: str) -> None:
    """Ascend prints bytes without a unit as the last word of the line."""
    before, after = WRAPPERS[wrapper]
    facts = read(before + BYTES + after).ranks["TP1"]
    assert facts["kv_cache_gib"] == pytest.approx(24.8329, abs=1e-4)
    assert facts["device_total_gib"] == pytest.approx(60.9570, abs=1e-4)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(COLOURED, id="colours of 0.13"),
        pytest.param(LINE.replace("(Worker_TP1 pid=77)", "\x1b[1;36m(Worker_TP1 pid=77)\x1b[0;0m"), id="until 0.12"),
        pytest.param(f"\x1b]8;;http://x\x1b\\{LINE}", id="hyperlink"),
        pytest.param(LINE.replace("[gpu_worker.py:1]", "[v1/worker/.../gpu_worker.py:435]"), id="path at DEBUG"),
        pytest.param(LINE.replace("[gpu_worker.py:1]", "gpu_worker.py:1115]"), id="head until 0.7.3"),
        pytest.param(f"{BAR.format(25)}\r{BAR.format(100)}\r{LINE}", id="progress bar"),
        pytest.param(f"{BAR.format(100)}{LINE}", id="progress bar without return"),
        pytest.param("\r".join([BAR.format(25)] * 40) + LINE, id="many updates"),
        pytest.param(f"{LINE}\r", id="CRLF"),
        pytest.param(f"\x00{LINE}\x00", id="NUL bytes"),
        pytest.param(f"\ufeff{LINE}", id="UTF-8 byte order mark"),
    ],
)
def test_a_record_is_read_whatever_shares_its_line(line: str) -> None:
    """Colours, bars and odd bytes change neither the figure nor the rank."""
    assert read(line).ranks == {"TP1": {"kv_cache_gib": 1.5}}


def test_glued_records_of_two_ranks_keep_apart() -> None:
    """Two processes wrote to one physical line; each figure belongs to its own."""
    first = record("Model loading took 10.0 GiB memory and 1.5 seconds", process="Worker_TP0", pid=1)
    second = record("Model loading took 11.0 GiB memory and 2.5 seconds", process="Worker_TP1", pid=2)
    for glue in ("", " ", "\r", f"\r{BAR.format(50)}"):
        found = read(first + glue + second)
        assert found.ranks == {
            "TP0": {"weights_gib": 10.0, "model_load_seconds": 1.5},
            "TP1": {"weights_gib": 11.0, "model_load_seconds": 2.5},
        }


def test_three_glued_records_without_prefixes_are_three_records() -> None:
    """A pasted log that lost its newlines still tells all of it."""
    line = "".join(
        record(words, process="")
        for words in (
            "Available KV cache memory: 1.50 GiB",
            "GPU KV cache size: 12,288 tokens",
            "Maximum concurrency for 4,096 tokens per request: 3.00x",
        )
    )
    facts = read(line).facts
    assert (facts["kv_cache_gib"], facts["kv_cache_tokens"], facts["max_concurrency"]) == (1.5, 12288, 3.0)


def test_a_glued_warning_does_not_lend_its_level_to_its_neighbour() -> None:
    """The error behind a warning on one line is an error, and so the first cause."""
    line = record("something odd", level="WARNING") + record(
        "ValueError: No available memory for the cache blocks.", level="ERROR"
    )
    later = record("ValueError: User-specified max_model_len (9) is greater than the derived", level="ERROR")
    failure = read(line, later).failure
    assert failure is not None
    assert failure.kind == "kv.no_room"


def test_ray_workers_of_two_hosts_with_one_pid_are_two_ranks() -> None:
    """A pid is unique on its host only."""
    weights = "INFO 01-02 03:04:05 model_runner.py:1] Loading model weights took {} GB"
    found = read(
        "(RayWorkerWrapper pid=7, ip=10.0.0.1) " + weights.format("10.0000"),
        "(RayWorkerWrapper pid=7, ip=10.0.0.2) " + weights.format("11.0000"),
    )
    assert sorted(facts["weights_gib"] for facts in found.ranks.values()) == [10.0, 11.0]


def test_continuation_lines_with_carriage_returns_are_read() -> None:
    """V0's record of three lines repeats its head and ends its lines with CR LF."""
    words = (
        "Memory profiling takes 5.00 seconds",
        "the current vLLM instance can use total_gpu_memory (79.19GiB) x gpu_memory_utilization (0.90) = 71.27GiB",
        "model weights take 12.55GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes 2.38GiB; "
        "the rest of the memory reserved for KV Cache is 56.18GiB.",
    )
    found = read(*(record(part, process="") + "\r" for part in words))
    assert found.facts == {
        "profile_seconds": 5.0, "device_total_gib": 79.19, "utilization_ratio": 0.9, "requested_gib": 71.27,
        "weights_gib": 12.55, "non_torch_gib": 0.16, "activation_gib": 2.38, "kv_cache_gib": 56.18,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_utf_16_file_is_read_with_either_byte_order(encoding: str) -> None:
    """Windows consoles write a byte order mark first, and CRLF."""
    words = ("" if encoding == "utf-16" else "\ufeff") + text("noise", LINE).decode().replace("\n", "\r\n")
    (found,) = parse_log(words.encode(encoding))
    assert found.facts == {"kv_cache_gib": 1.5}
    assert found.evidence["kv_cache_gib"].line_number == 2


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_utf_16_log_that_arrives_in_pieces_gives_what_the_file_gives(size: int) -> None:
    """Whole file and stream give the same answer."""
    raw = text("noise", LINE).decode().encode("utf-16")
    parser = LogParser()
    for start in range(0, len(raw), size):
        parser.feed(raw[start : start + size])
    assert [found.facts for found in parser.close()] == [found.facts for found in parse_log(raw)]
