"""Structured loggers: the record is an object, and the message one of its fields."""

import json

import pytest

from orchestrator.vllm_log import StartUp, parse_log
from tests.unit.vllm_log.log_lines import failed, read, record

WEIGHTS = "Model loading took 14.99 GiB memory and 7.400000 seconds"
KV_CACHE = "Available KV cache memory: 58.11 GiB"
NO_ROOM = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."


def _object(message: str, *, name: str = "Worker_TP1", pid: int = 77, level: str = "INFO", **more: str) -> str:
    """Return a record of vLLM's own JSON formatter (0.32)."""
    fields = {
        "asctime": "2026-11-21 03:08:42,343",
        "levelname": level,
        "name": "vllm.v1.worker.gpu_worker",
        "processName": "VllmWorker-1",
        "process": pid,
        "message": message,
        **more,
        "vllm_process_name": name,
    }
    return json.dumps(fields)


def _docker(line: str) -> str:
    return json.dumps({"log": f"{line}\n", "stream": "stderr", "time": "2026-11-21T03:08:42.343123456Z"})


def _traceback(last: str, *, function: str = "run_engine_core") -> str:
    return f'Traceback (most recent call last):\n  File "/vllm/core.py", line 1, in {function}\n    raise E(\n{last}'


PLAIN = record(KV_CACHE, process="Worker_TP1", pid=77)
LOGFMT = f'time="2026-11-21T03:08:42Z" level=info msg="{KV_CACHE}" pid=77 process_name=Worker_TP1'


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(_object(KV_CACHE), id="json"),
        pytest.param(f"[pod/vllm-0/vllm] {_object(KV_CACHE)}", id="json behind a prefix"),
        pytest.param(_docker(PLAIN), id="plain in docker"),
        pytest.param(_docker(_object(KV_CACHE)), id="json in docker"),
        pytest.param(f"2026-11-21T03:08:42Z {_docker(PLAIN)}", id="docker behind a time"),
        pytest.param(LOGFMT, id="logfmt"),
        pytest.param(_docker(LOGFMT), id="logfmt in docker"),
        pytest.param(_object(f"\x1b[32m{KV_CACHE}\x1b[0m"), id="colours inside json"),
        pytest.param(_docker(PLAIN.replace("INFO", "\x1b[32mINFO\x1b[0m")), id="colours in docker"),
    ],
)
def test_every_structured_logger_gives_figure_rank_and_line(line: str) -> None:
    """The figure belongs to the rank that the record names, and the whole physical line proves it."""
    found = read("first line", line)
    assert found.ranks == {"TP1": {"kv_cache_gib": 58.11}}
    proof = found.evidence["kv_cache_gib"]
    assert proof.line_number == 2
    assert "58.11 GiB" in proof.line


def test_two_processes_of_a_json_log_are_two_ranks() -> None:
    """The process number tells them apart where the name does not."""
    found = read(
        _object("Model loading took 10.0 GiB memory and 1.0 seconds", name="Worker", pid=5),
        _object("Model loading took 11.0 GiB memory and 1.0 seconds", name="Worker", pid=6),
    )
    assert [facts["weights_gib"] for facts in found.ranks.values()] == [10.0, 11.0]


def test_the_server_line_of_a_json_log_tells_version_and_settings() -> None:
    """A JSON log has no banner; the version stands in an ordinary message."""
    found = read(
        _object("vLLM server version 0.32.0, serving model /m", name="APIServer", pid=9),
        _object("non-default args: {'model': '/m', 'max_model_len': 2048}", name="APIServer", pid=9),
    )
    assert found.vllm_version == "0.32.0"
    assert found.settings["max_model_len"] == 2048


@pytest.mark.parametrize("wrap", [str, _docker], ids=["json", "json in docker"])
def test_the_exception_of_a_json_record_is_the_cause(wrap: type[str]) -> None:
    """The message only says that the engine did not start; the traceback in `exc_info` says why."""
    line = wrap(_object("EngineCore failed to start.", level="ERROR", exc_info=_traceback(NO_ROOM)))
    failure = failed("first line", line)
    assert (failure.kind, failure.rank, failure.evidence.line_number) == ("kv.no_room", "TP1", 2)


def test_the_frames_in_exc_info_tell_the_stage() -> None:
    """Out of memory inside `determine_available_memory` is out of memory of the profile."""
    trace = _traceback(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", function="determine_available_memory"
    )
    line = _object("EngineCore failed to start.", level="ERROR", exc_info=trace)
    assert failed(line).kind == "oom.profile"


def test_a_traceback_that_docker_keeps_line_by_line_tells_the_stage() -> None:
    """Each line of the traceback is an object of its own, with its quotes escaped."""
    trace = _traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", function="load_model")
    assert failed(*(_docker(line) for line in trace.split("\n"))).kind == "oom.load"


def test_the_level_of_a_structured_record_counts() -> None:
    """A warning with the words of a cause gives way to an error; an error does not."""
    error = _object("ValueError: User-specified max_model_len (9) is greater than the derived", level="ERROR")
    assert failed(_object(NO_ROOM, level="WARNING"), error).kind == "config.context_exceeds_model"
    assert failed(_object(NO_ROOM, level="ERROR"), error).kind == "kv.no_room"


def test_an_error_in_logfmt_is_found() -> None:
    """Quotes inside the message are escaped there."""
    message = 'ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len (\\"a\\"=4096'
    assert failed(f'level=error msg="{message}" pid=12').kind == "config.context_exceeds_model"


@pytest.mark.parametrize(
    "words",
    [
        '{"message": "hello", "process": 999, "levelname": "ERROR", "vllm_process_name": "Worker_TP3"}',
        '{"id": 1, "message": "hello", "process": 999, "vllm_process_name": "Worker_TP3"}',
        '{"log": "x", "pid": 999}',
        'headers {"event": "start"}',
        'msg="hello" pid=999 process_name=Worker_TP3',
    ],
)
def test_an_object_inside_a_message_is_no_record(words: str) -> None:
    """Figures beside it belong to the process of the line, not to one that the object names."""
    found = read(record(f"got {words} Available KV cache memory: 1.50 GiB", process="Worker_TP1", pid=77))
    assert found.ranks == {"TP1": {"kv_cache_gib": 1.5}}


def test_an_object_that_is_cut_is_read_as_far_as_it_goes() -> None:
    """A line cut in the middle of its JSON is text; nothing is invented, nothing raised."""
    whole = _object(KV_CACHE)
    for end in range(len(whole)):
        (found,) = parse_log(whole[:end].encode())
        assert found.facts in ({}, {"kv_cache_gib": 58.11})


def test_a_message_of_several_lines_is_several_records() -> None:
    """V0's profile is one record of three lines; a JSON logger keeps it in one string."""
    message = (
        "Memory profiling takes 5.00 seconds\r\n"
        "the current vLLM instance can use total_gpu_memory (79.19GiB) x gpu_memory_utilization (0.90) = 71.27GiB\r\n"
        "model weights take 12.55GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes 2.38GiB; "
        "the rest of the memory reserved for KV Cache is 56.18GiB."
    )
    facts = read(_object(message)).ranks["TP1"]
    assert (facts["profile_seconds"], facts["requested_gib"], facts["kv_cache_gib"]) == (5.0, 71.27, 56.18)


def test_a_secret_inside_an_object_does_not_leave_the_parser() -> None:
    """The quotes around a key are escaped there; the evidence is the whole line."""
    line = _object(f'ValueError: Value error, bad {{"api_key": "S3cr3tV4lue0123"}} {NO_ROOM}', level="ERROR")
    found: StartUp = read(line)
    assert found.failure is not None
    assert "S3cr3tV4lue0123" not in json.dumps(found.to_json("x"))
