"""Why a start-up failed: its cause, not a consequence, not a warning, not quoted source."""

import pytest

from tests.unit.vllm_log.log_lines import READY, failed, read, record, server

NO_ROOM = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing."
)
UNKNOWN = "KeyError: 'rope_type'"
CONSEQUENCES = (
    record("EngineCore failed to start.", level="ERROR"),
    record("WorkerProc initialization failed due to an exception in a background process.", level="ERROR"),
    record("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
           process="APIServer", pid=9, level="ERROR"),
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}",
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1, remote process exited",
    "ERROR:    Application startup failed. Exiting.",
)  # fmt: skip


def _error(words: str) -> str:
    return record(words, level="ERROR")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("vllm: error: unrecognized arguments: --foo 1", "config.argument"),
        ("vllm serve: error: argument --dtype: invalid choice: 'x'", "config.argument"),
        ("  Value error, max_num_batched_tokens (512) is smaller than max_model_len (4096).", "config.argument"),
        ("  Input should be less than or equal to 1 [type=less_than_equal, input_value=1.5]", "config.argument"),
        ("  Value error, User-specified max_model_len (65536) is greater than the derived max_model_len "
         "(max_position_embeddings=4096.0 or model_max_length=None in model's config.json).",
         "config.context_exceeds_model"),
        ("ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).",
         "config.parallelism"),
        ("AssertionError: 151936 is not divisible by 5", "config.parallelism"),
        ("ValueError: Model architectures ['Gemma9'] are not supported for now.", "config.unsupported"),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla P40 GPU "
         "has compute capability 6.1.", "config.unsupported"),
        ("ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
         "gpu.insufficient"),
        ("RuntimeError: CUDA error: invalid device ordinal", "gpu.insufficient"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "gpu.hardware"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.", "gpu.hardware"),
        ("OSError: You are trying to access a gated repo.", "model.access"),
        ("401 Client Error. Cannot access gated repo for url https://huggingface.co/x.", "model.access"),
        ("OSError: nobody/nothing is not a local folder and is not a valid model identifier listed on 'https://x'",
         "model.missing"),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", "model.unreachable"),
        ("RuntimeError: NCCL error: unhandled cuda error", "comm.failure"),
        ("RuntimeError: HCCL error: x", "comm.failure"),
        ("RuntimeError: Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",
         "host.oom"),
        ("TimeoutError: Timed out waiting for engine core processes to start.", "hang"),
        ("ValueError: Free memory on device cuda:0 (60.87/79.19 GiB) on startup is less than desired GPU memory "
         "utilization (0.95, 75.23 GiB).", "gpu.busy"),
        ("AssertionError: Error in memory profiling. Initial free memory 43.3 GiB, current free memory 43.9 GiB.",
         "gpu.busy"),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", "oom.warmup"),
        ("ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that can be stored "
         "in KV cache (4096).", "kv.context_too_long"),
        (NO_ROOM, "kv.no_room"),
        ("RuntimeError: Worker proc VllmWorker-1 died unexpectedly, shutting down executor.", "engine.died"),
        ("RuntimeError: Engine core initialization failed. See root cause above.", "engine.died"),
        ("KeyboardInterrupt: terminated", "interrupted"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("framed", [False, True], ids=["bare", "framed"])
def test_a_failing_line_gives_its_kind(words: str, kind: str, framed: bool) -> None:
    """With vLLM's head or as the interpreter prints it; the line is the evidence."""
    failure = failed(server("0.19.0"), _error(words) if framed else words)
    assert (failure.kind, failure.evidence.line_number) == (kind, 2)
    assert words.strip()[:40] in failure.evidence.line


@pytest.mark.parametrize("later", CONSEQUENCES)
def test_the_cause_wins_over_what_follows_from_it(later: str) -> None:
    """The last lines of a log never say why."""
    failure = failed(server("0.19.0"), _error(NO_ROOM), later, *CONSEQUENCES)
    assert (failure.kind, failure.evidence.line_number) == ("kv.no_room", 2)


@pytest.mark.parametrize("later", [one for one in CONSEQUENCES if "NCCL" not in one])
def test_the_cause_wins_over_a_consequence_that_was_printed_first(later: str) -> None:
    """`EngineCore failed to start.` stands above its own traceback."""
    failure = failed(server("0.19.0"), later, _error(NO_ROOM))
    assert (failure.kind, failure.evidence.line_number) == ("kv.no_room", 3)


@pytest.mark.parametrize(
    "earlier",
    [
        record("NCCL error: ignored, using the fallback", level="WARNING"),
        record("Failed to load NCCL library from libnccl.so .", level="WARNING"),
        record("ImportError: libfoo.so: cannot open shared object file", level="ERROR"),
        "ModuleNotFoundError: No module named 'flash_attn'",
        record("No platform detected, vLLM is running on UnspecifiedPlatform"),
        record("Received signal 15", level="WARNING"),
        "Traceback (most recent call last):",
    ],
)
def test_the_cause_wins_over_harmless_lines_before_it(earlier: str) -> None:
    """Much goes wrong in a start-up that goes on."""
    failure = failed(server("0.19.0"), earlier, _error(NO_ROOM))
    assert (failure.kind, failure.evidence.line_number) == ("kv.no_room", 3)


@pytest.mark.parametrize("last", [CONSEQUENCES[0], CONSEQUENCES[3], ""], ids=["framed", "bare", "log ends"])
@pytest.mark.parametrize(
    "exception",
    [
        UNKNOWN,
        "transformers.errors.OddError: x",
        "AttributeError",
        "mod.WeirdException: y",
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 757443 column 3",
    ],
)
def test_an_unknown_exception_is_kept_with_its_line(exception: str, last: str) -> None:
    """The engine did not come up: the kind is unknown, the evidence is not."""
    failure = failed(server("0.19.0"), _error("EngineCore failed to start."), _error(exception), last)
    assert (failure.kind, failure.evidence.line_number) == ("unknown", 3)
    assert exception in failure.evidence.line


@pytest.mark.parametrize(
    "line",
    [
        UNKNOWN,
        _error(UNKNOWN),
        record(NO_ROOM, level="WARNING"),
        record("403 Client Error: Forbidden for url https://huggingface.co/api", level="WARNING"),
        record("NCCL error: x, retrying", level="WARNING"),
        record("CUDA out of memory. Tried to allocate 1.00 GiB; falling back", level="WARNING"),
        record("Received signal 15 SIGTERM, shutting down", level="ERROR"),
        record("This can cause errors like `OSError: [Errno 24] Too many open files`", level="WARNING"),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["then ready", "after ready"])
def test_what_may_be_harmless_is_no_failure_when_the_server_came_up(line: str, before: bool) -> None:
    """A warning, a signal, an exception that nobody knows."""
    found = read(server("0.19.0"), *((line, READY) if before else (READY, line)))
    assert (found.failure, found.engine_ready) == (None, True)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_words_of_a_cause_at_a_quiet_level_are_no_failure(level: str) -> None:
    """Somebody's request may hold any text."""
    assert read(server("0.19.0"), record(f"Received request cmpl-1: prompt: {NO_ROOM}", level=level)).failure is None


@pytest.mark.parametrize(
    "quoted",
    [
        '    raise ValueError("No available memory for the cache blocks. "',
        '    raise RuntimeError(f"NCCL error: {error_str}")',
        '    "NCCL error: %s", error)',
        "    raise OutOfMemoryError(",
        '    f"is not divisible by {size}"',
        "    ^^^^^^^^^^^^^^^^^^^^^^^^^^",
        '  File "/vllm/errors.py", line 3, in raise_KeyError',
        '    msg = "CUDA error: out of memory"',
        '    assert a % b == 0, "{} is not divisible by {}".format(a, b)',
    ],
)
@pytest.mark.parametrize("framed", [False, True], ids=["bare", "framed"])
def test_quoted_source_is_not_the_message(quoted: str, framed: bool) -> None:
    """A traceback shows the line that raises before it shows what was raised."""
    line = _error(quoted) if framed else quoted
    failure = failed(server("0.19.0"), _error("EngineCore failed to start."), line, _error(UNKNOWN))
    assert (failure.kind, failure.evidence.line) == ("unknown", _error(UNKNOWN))


def test_the_first_of_two_causes_counts() -> None:
    """Another rank fails later, of something else."""
    failure = failed(
        record("ValueError: No available memory for the cache blocks.", process="Worker_TP1", pid=2, level="ERROR"),
        record("RuntimeError: NCCL error: remote process exited", process="Worker_TP0", pid=1, level="ERROR"),
    )
    assert (failure.kind, failure.rank, failure.stage) == ("kv.no_room", "TP1", "kv_cache")


def test_a_cut_log_with_nothing_left_for_the_cache_is_no_room() -> None:
    """The exception itself was cut off; the figure before it says enough."""
    failure = failed(
        server("0.11.0"), record("Available KV cache memory: -2.14 GiB"), _error("EngineCore failed to start.")
    )
    assert (failure.kind, failure.evidence.line_number) == ("kv.no_room", 2)


@pytest.mark.parametrize("process", ["Worker_TP1", "VllmWorkerProcess", "EngineCore"])
def test_a_failure_in_json_has_the_fields_of_the_contract(process: str) -> None:
    """Kind, stage, rank, line number, line, remedy."""
    found = read(record(NO_ROOM, process=process, level="ERROR")).to_json("x")["failure"]
    assert {"kind", "stage", "rank", "line_number", "line", "remedy"} <= found.keys()
    assert found["rank"] == ("TP1" if process == "Worker_TP1" else None)
