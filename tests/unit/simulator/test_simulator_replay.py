"""Replay of recorded logs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from orchestrator.simulator.replay import pause_seconds, recorded_facts

Simulate = Callable[..., Any]
_FRONT, _CORE = "(APIServer pid=1) INFO 04-22", "(EngineCore_DP0 pid=2) INFO 04-22"
STARTED = f"""\
{_FRONT} 00:03:35 [api_server.py:1839] vLLM API server version 0.11.0
{_FRONT} 00:03:35 [utils.py:233] non-default args: {{'model': 'org/model', 'block_size': 128}}
{_CORE} 00:03:46 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='org/model'
{_CORE} 00:04:20 [kv_cache_utils.py:1087] GPU KV cache size: 184,832 tokens
{_CORE} 00:04:20 [kv_cache_utils.py:1091] Maximum concurrency for 16,000 tokens per request: 11.55x
{_FRONT} 00:04:25 [loggers.py:142] Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: 1444
(APIServer pid=1) INFO:     Application startup complete.
"""
FAILED = """\
INFO 04-22 00:03:35 [api_server.py:1043] vLLM API server version 0.8.5
ValueError: No available memory for the cache blocks.
RuntimeError: Engine core initialization failed. See root cause above.
"""


async def test_a_replayed_server_serves_what_its_log_says(simulate: Simulate, tmp_path: Path) -> None:
    log = tmp_path / "started.log"
    log.write_text(STARTED)
    server = simulate("org/model", REPLAY=str(log)).ready()
    assert server.lines[0].startswith("kprof simulator 0.1.0: vLLM")
    assert server.lines[2:] == STARTED.rstrip("\n").split("\n")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/metrics") as response:
            text = await response.text()
        async with session.get(f"{server.url}/v1/models") as response:
            listed = (await response.json())["data"][0]
    assert 'block_size="128"' in text
    assert 'num_gpu_blocks="1444"' in text
    assert (listed["id"], listed["max_model_len"]) == ("org/model", 16000)
    assert server.terminate() == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_log_that_fails_ends_with_exit_code_1(simulate: Simulate, tmp_path: Path, encoding: str) -> None:
    log = tmp_path / "failed.log"
    log.write_text(FAILED, encoding=encoding)
    failed = simulate("org/model", REPLAY=str(log))
    assert failed.wait() == 1
    assert failed.lines[-1] == "RuntimeError: Engine core initialization failed. See root cause above."


def test_the_pace_is_that_of_the_time_stamps(simulate: Simulate, tmp_path: Path) -> None:
    log = tmp_path / "slow.log"
    log.write_text("INFO 04-22 00:00:00 [a.py:1] x\nINFO 04-22 00:01:00 [a.py:1] y\n")
    before = time.monotonic()
    assert simulate("org/model", REPLAY=str(log), SPEED="60").wait() == 1
    assert time.monotonic() - before >= 1.0


def test_pauses_are_never_negative() -> None:
    stamp, seconds = pause_seconds("12-31 23:59:59", "INFO 01-01 00:00:00 [a.py:1] new year")
    assert (stamp, seconds) == ("01-01 00:00:00", 0.0)
    assert pause_seconds("04-22 00:00:00", "no stamp") == ("04-22 00:00:00", 0.0)


def test_blocks_are_counted_where_the_log_does_not_say() -> None:
    facts = recorded_facts(
        ["GPU KV cache size: 7,216 tokens", "Maximum concurrency for 1,024 tokens per request: 7.05x"]
    )
    assert (facts.num_blocks, facts.block_size, facts.max_model_len) == (451, 16, 1024)
