"""A server that is ready: what it prints of requests is no failure and no figure, and its death is told."""

import pytest

from orchestrator.vllm_log import StartUp, parse_log

UP = """(APIServer pid=1) INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.11.0
(EngineCore_DP0 pid=9) INFO 01-01 00:00:01 [gpu_model_runner.py:1] Model loading took 14.99 GiB and 7.4 seconds
(EngineCore_DP0 pid=9) INFO 01-01 00:00:02 [gpu_worker.py:1] Available KV cache memory: 58.11 GiB
(EngineCore_DP0 pid=9) INFO 01-01 00:00:02 [kv_cache_utils.py:1] GPU KV cache size: 476,016 tokens
(EngineCore_DP0 pid=9) INFO 01-01 00:00:03 [core.py:1] init engine (profile, create kv cache, warmup model) took 4.1 s
(APIServer pid=1) INFO:     Application startup complete.
"""
HEAD = "(APIServer pid=1) ERROR 01-01 00:01:00 [serving.py:1] "
FATAL = "(EngineCore_DP0 pid=9) ERROR 01-01 00:01:00 [core.py:1] EngineCore encountered a fatal error.\n"


def after_ready(text: str) -> StartUp:
    """Return the only start-up of a server that came up and then printed some text."""
    (found,) = parse_log((UP + text).encode())
    return found


@pytest.mark.parametrize(
    "line",
    [
        HEAD + "Error in fetching image: 404 Client Error: Not Found for url: https://a/b.png",
        "HTTPError: 403 Client Error: Forbidden",
        HEAD + "usage stats: MaxRetryError: HTTPSConnectionPool(host='vllm.ai'): Failed to resolve 'stats.vllm.ai'",
        "MemoryError",
        "INFO 01-01 00:01:00 [logger.py:1] Received request: prompt: 'OutOfMemoryError: CUDA out of memory. Tried to'",
        HEAD + "ValueError: max_num_batched_tokens (1) is smaller than max_model_len",
        "KeyError: 'x'",
    ],
)
def test_a_request_that_fails_is_no_failure_of_the_server(line: str) -> None:
    """Its client, its image or its length was wrong."""
    found = after_ready(line + "\n")
    assert (found.state, found.failure) == ("ready", None)


def test_a_retry_before_the_server_was_ready_was_no_failure() -> None:
    """What looked like a cause was overcome."""
    head, ready = UP.split("\n", 1)
    retry = "(APIServer pid=1) ERROR 01-01 00:00:00 [h.py:1] Error retrieving file list: 401 Client Error, retrying"
    (found,) = parse_log(f"{head}\n{retry}\n{ready}".encode())
    assert (found.state, found.failure) == ("ready", None)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (FATAL + "(EngineCore_DP0 pid=9) RuntimeError: something odd\n", "unknown", "something odd"),
        (FATAL, "engine.died", "fatal error"),
        (HEAD + "Worker proc VllmWorker-1 died unexpectedly, shutting down executor.\n", "engine.died", "VllmWorker-1"),
        (
            HEAD + "vllm.v1.engine.EngineDeadError: EngineCore encountered an issue.\n",
            "engine.died",
            "issue",
        ),
        (HEAD + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n", "oom.runtime", "2.00 GiB"),
        (HEAD + "Worker proc W-1 died unexpectedly (exit code: -9), shutting down.\n", "host.oom", "-9"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n", "gpu.hardware", "Xid"),
    ],
)
def test_the_death_of_a_server_is_told(text: str, kind: str, words: str) -> None:
    """It was ready, and then something of it ended."""
    found = after_ready(text)
    assert found.engine_ready
    assert found.state == "died"
    assert found.failure is not None
    assert (found.failure.kind, found.failure.stage) == (kind, "runtime")
    assert words in found.failure.evidence.line


def test_a_server_that_was_told_to_end_did_not_die() -> None:
    """Its processes complain while they go."""
    found = after_ready(f"INFO 01-01 00:01:00 [launcher.py:1] Received signal 15\n{HEAD}EngineDeadError: x\n")
    assert found.failure is None


def test_a_signal_during_start_up_is_the_cause_of_what_follows() -> None:
    """NCCL breaks because its neighbours went."""
    text = UP.split("\n")[0] + (
        "\nINFO 01-01 00:01:00 [launcher.py:1] Received signal 15\n"
        "ERROR 01-01 00:01:00 [pynccl.py:1] RuntimeError: NCCL error: unhandled system error\n"
    )
    (found,) = parse_log(text.encode())
    assert found.state == "interrupted"


@pytest.mark.parametrize(
    "line",
    [
        "INFO 01-01 00:01:00 [logger.py:1] Received request cmpl-1: prompt: 'Available KV cache memory: 0.50 GiB'",
        "(Worker_TP1 pid=4) INFO 01-01 00:01:00 [w.py:1] Available KV cache memory: 0.50 GiB",
        HEAD + "CUDA out of memory. Tried. has a total capacity of 9.00 GiB of which 1.00 GiB is free",
    ],
)
def test_figures_of_a_ready_server_stay_as_they_are(line: str) -> None:
    """A start-up's figures are complete when it is ready; a prompt may quote any log."""
    found = after_ready(line + "\n")
    assert found.facts == after_ready("").facts
    assert found.ranks.keys() == {"TP0"}
