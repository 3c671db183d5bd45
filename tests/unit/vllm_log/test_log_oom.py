"""Out of memory: at which stage, on a device that was whose."""

import pytest

from tests.unit.vllm_log.log_lines import READY, failed, read, record, server

OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 786.00 MiB. GPU 0 has a total capacity of 79.19 GiB "
    "of which 552.50 MiB is free. {others}Including non-PyTorch memory, this process has {own} memory in use. Of the "
    "allocated memory 74.91 GiB is allocated by PyTorch, and 1.78 GiB is reserved by PyTorch but unallocated."
)
PLAIN = OOM.format(others="", own="78.64 GiB")
LOADED = record("Model loading took 14.99 GiB memory and 7.0 seconds")
PROFILED = record("Available KV cache memory: 58.11 GiB")
SIZED = record("GPU KV cache size: 476,016 tokens")
CAPTURED = record("Graph capturing finished in 12 secs, took 0.55 GiB")
LOADING = record("Starting to load model m...")


def _error(words: str, *, process: str = "EngineCore", pid: int = 1) -> str:
    return record(words, process=process, pid=pid, level="ERROR")


def _frame(function: str, path: str = "gpu_worker.py") -> str:
    return f'  File "/usr/lib/python3/vllm/v1/worker/{path}", line 12, in {function}'


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ((), "oom"),
        ((LOADING,), "oom.load"),
        ((LOADING, LOADED), "oom.profile"),
        ((LOADING, LOADED, PROFILED, SIZED), "oom.graph_capture"),
        ((LOADED, record("Capturing cudagraphs for decoding.")), "oom.graph_capture"),
        ((LOADED, PROFILED, SIZED, CAPTURED), "oom.warmup"),
        ((LOADED, PROFILED, SIZED, CAPTURED, READY), "oom.runtime"),
    ],
)
def test_without_a_traceback_the_log_tells_how_far_it_was(before: tuple[str, ...], kind: str) -> None:
    """The stage is the one that the last figures belong to."""
    assert failed(server("0.19.0"), *before, _error(PLAIN)).kind == kind


@pytest.mark.parametrize(
    ("functions", "kind"),
    [
        (("load_model", "initialize_model"), "oom.load"),
        (("load_model", "process_weights_after_loading"), "oom.load"),
        (("determine_available_memory", "profile_run", "_dummy_run"), "oom.profile"),
        (("determine_num_available_blocks", "execute_model"), "oom.profile"),
        (("compile_or_warm_up_model", "capture_model", "_dummy_run"), "oom.graph_capture"),
        (("compile_or_warm_up_model", "_dummy_sampler_run"), "oom.warmup"),
        (("run_busy_loop", "step", "execute_model"), "oom.runtime"),
    ],
)
@pytest.mark.parametrize("message_first", [False, True], ids=["frames first", "message first"])
def test_the_functions_of_the_traceback_tell_the_stage(
    functions: tuple[str, ...], kind: str, message_first: bool
) -> None:
    """They know better than the figures; V0 prints the message once more above the frames."""
    trace = [_error("Traceback (most recent call last):"), *(_error(_frame(name)) for name in functions)]
    lines = [_error(PLAIN), *trace, _error(PLAIN)] if message_first else [*trace, _error(PLAIN)]
    failure = failed(server("0.19.0"), LOADED, *lines)
    assert failure.kind == kind
    assert failure.stage == kind.removeprefix("oom.")


def test_frames_of_another_process_do_not_count() -> None:
    """The tracebacks of two ranks are interleaved."""
    failure = failed(
        server("0.19.0"),
        _error("Traceback (most recent call last):", process="Worker_TP0", pid=1),
        _error("Traceback (most recent call last):", process="Worker_TP1", pid=2),
        _error(_frame("run_busy_loop"), process="Worker_TP0", pid=1),
        _error(_frame("load_model"), process="Worker_TP1", pid=2),
        _error(PLAIN, process="Worker_TP1", pid=2),
    )
    assert (failure.kind, failure.rank) == ("oom.load", "TP1")


def test_frames_of_an_earlier_traceback_do_not_count() -> None:
    """A harmless traceback during loading was over long before."""
    failure = failed(
        server("0.19.0"),
        record("Traceback (most recent call last):", level="WARNING"),
        record(_frame("load_model"), level="WARNING"),
        record("ImportError: libfoo.so", level="WARNING"),
        LOADED,
        _error("Traceback (most recent call last):"),
        _error(_frame("determine_available_memory")),
        _error(PLAIN),
    )
    assert failure.kind == "oom.profile"


@pytest.mark.parametrize(
    ("later", "kind"),
    [
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", "oom.warmup"),
        ("Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization.", "oom.load"),
        ("The error occurred during profile run. This might be due to insufficient GPU memory", "oom.profile"),
    ],
)
def test_a_later_line_that_says_more_settles_the_stage(later: str, kind: str) -> None:
    """The line of torch stays the evidence."""
    failure = failed(server("0.19.0"), LOADED, PROFILED, SIZED, _error(PLAIN), _error(later))
    assert (failure.kind, failure.stage) == (kind, kind.removeprefix("oom."))
    assert "Tried to allocate 786.00 MiB" in failure.evidence.line


@pytest.mark.parametrize(
    "words",
    [
        PLAIN,
        PLAIN.replace("torch.", "torch.cuda."),
        PLAIN.replace("capacity", "capacty"),
        "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.96 GiB total capacity; 57.44 GiB "
        "already allocated; 57.44 GiB current active; 1.53 GiB free; 57.59 GiB reserved in total by PyTorch)",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA error: out of memory",
        "torch.AcceleratorError: CUDA error: out of memory",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.",
    ],
)
def test_every_backend_s_sentence_is_out_of_memory(words: str) -> None:
    """CUDA, ROCm, Ascend, TPU; old and new torch."""
    assert failed(server("0.19.0"), LOADING, _error(words)).kind == "oom.load"


@pytest.mark.parametrize(
    ("others", "own", "kind"),
    [
        ("Process 4711 has 60.00 GiB memory in use. ", "18.00 GiB", "gpu.busy"),
        ("Process 1 has 30.00 GiB memory in use. Process 2 has 30.00 GiB memory in use. ", "18.00 GiB", "gpu.busy"),
        ("Process 4711 has 500.00 MiB memory in use. ", "78.00 GiB", "oom.load"),
        ("", "78.64 GiB", "oom.load"),
        ("", "0 bytes", "oom.load"),
    ],
)
def test_a_device_that_others_fill_is_busy(others: str, own: str, kind: str) -> None:
    """Then the configuration is not to blame."""
    assert failed(server("0.19.0"), LOADING, _error(OOM.format(others=others, own=own))).kind == kind


def test_the_sentence_tells_the_device() -> None:
    """Total and free memory count where no line of the profile gave them."""
    found = read(server("0.19.0"), LOADING, _error(PLAIN))
    assert found.facts["device_total_gib"] == 79.19
    assert found.facts["device_free_gib"] == pytest.approx(552.5 / 1024)
    profiled = record("Initial free memory: 78.68 GiB; Requested memory: 0.950000 (util), 75.23 GiB")
    assert read(server("0.19.0"), profiled, _error(PLAIN)).facts["device_free_gib"] == 78.68


@pytest.mark.parametrize("zero", ["0 bytes", "0.00 MiB"])
def test_nothing_free_is_zero_and_not_unknown(zero: str) -> None:
    """The sentence says 0 bytes where nothing is left."""
    found = read(server("0.19.0"), LOADING, _error(PLAIN.replace("552.50 MiB", zero)))
    assert found.facts["device_free_gib"] == 0
