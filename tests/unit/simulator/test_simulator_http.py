"""The HTTP side: completions, streams, errors and metrics that agree with the log."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

Simulate = Callable[..., Any]
MODEL = "Qwen/Qwen3-0.6B"


async def scrape(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/metrics") as response:
        assert response.status == 200
        return await response.text()


def metric(text: str, name: str) -> float:
    match = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert match is not None, f"{name} is not in\n{text}"
    return float(match.group(1))


def cache_info(text: str) -> dict[str, str]:
    line = next(line for line in text.split("\n") if line.startswith("vllm:cache_config_info{"))
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


@pytest.mark.parametrize(
    ("release", "usage", "hits"),
    [
        ("0.8.5", "vllm:gpu_cache_usage_perc", "vllm:gpu_prefix_cache_hits_total"),
        ("0.11.0", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_hits_total"),
        ("0.33.0", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_hits_total"),
    ],
)
async def test_metrics_speak_the_release_and_agree_with_the_log(
    simulate: Simulate, release: str, usage: str, hits: str
) -> None:
    server = simulate(MODEL, "--block-size", "128", VERSION=release).ready()
    async with aiohttp.ClientSession() as session:
        text = await scrape(session, server.url)
    labels = cache_info(text)
    assert metric(text, hits) == 0.0
    assert labels["block_size"] == "128"
    tokens = re.search(r"KV cache size: ([\d,]+) tokens", server.text)
    assert tokens is not None
    if release == "0.8.5":
        assert labels["num_gpu_blocks"] == "None"
        assert metric(text, usage) > 0, "the null block counted as used"
        return
    assert metric(text, usage) == 0.0
    printed = re.search(r"num_gpu_blocks is: (\d+)", server.text)
    assert printed is not None
    assert labels["num_gpu_blocks"] == printed.group(1)
    if release == "0.11.0":
        assert int(labels["num_gpu_blocks"]) * 128 == int(tokens.group(1).replace(",", ""))
        assert "kv_cache_size_tokens" not in labels
    else:
        assert labels["kv_cache_size_tokens"] == tokens.group(1).replace(",", "")


async def test_usage_while_a_request_runs_is_the_ceiling_of_its_tokens(simulate: Simulate) -> None:
    server = simulate(MODEL, "--block-size", "128", "--max-model-len", "16000", SPEED="200").ready()
    body = {"model": MODEL, "prompt": list(range(15_049)), "max_tokens": 20, "ignore_eos": True}
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        posted = group.create_task(session.post(f"{server.url}/v1/completions", json=body))
        text = ""
        while "running{" not in text or metric(text, "vllm:num_requests_running") == 0:
            assert not posted.done(), "the request ended before anybody could see it"
            text = await scrape(session, server.url)
        blocks = int(cache_info(text)["num_gpu_blocks"])
        assert metric(text, "vllm:kv_cache_usage_perc") == 1 - (blocks - 1 - 118) / (blocks - 1)
        answer = await (await posted).json()
        assert answer["usage"] == {"prompt_tokens": 15049, "completion_tokens": 20, "total_tokens": 15069}
        assert answer["choices"][0]["finish_reason"] == "length"
        after = await scrape(session, server.url)
        assert metric(after, "vllm:kv_cache_usage_perc") == 0.0
        assert metric(after, "vllm:prompt_tokens_total") == 15049
        assert metric(after, "vllm:generation_tokens_total") == 20
        assert 'finished_reason="length",model_name="Qwen/Qwen3-0.6B"} 1.0' in after


async def test_a_stream_ends_with_usage_and_done(simulate: Simulate) -> None:
    server = simulate(MODEL).ready()
    body = {
        "messages": [{"role": "user", "content": "Where is the memory?"}],
        "max_tokens": 7,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.headers["Server"] == "kprof-simulator/0.1.0"
        events = [line.removeprefix("data: ") for line in (await response.text()).split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 7
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 6 + ["length"]
    assert chunks[0]["object"] == "chat.completion.chunk"


async def test_a_client_that_goes_away_frees_its_blocks(simulate: Simulate) -> None:
    server = simulate(MODEL, SPEED="50").ready()
    body = {"prompt": [1] * 1000, "max_tokens": 30_000, "ignore_eos": True}
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        posted = asyncio.create_task(session.post(f"{server.url}/v1/completions", json=body))
        while metric(await scrape(session, server.url), "vllm:num_requests_running") == 0:
            assert not posted.done()
        posted.cancel()
        while metric(await scrape(session, server.url), "vllm:kv_cache_usage_perc") > 0:
            assert server.process.poll() is None


async def test_a_repeated_prompt_hits_the_prefix_cache(simulate: Simulate) -> None:
    server = simulate(MODEL).ready()
    body = {"model": MODEL, "prompt": list(range(100)), "max_tokens": 2, "ignore_eos": True}
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(f"{server.url}/v1/completions", json=body) as response:
                assert response.status == 200
        text = await scrape(session, server.url)
    assert metric(text, "vllm:prefix_cache_queries_total") == 200
    assert metric(text, "vllm:prefix_cache_hits_total") == 96


async def test_errors_have_the_wording_of_vllm(simulate: Simulate) -> None:
    cases: list[tuple[Any, int, str]] = [
        ({"model": "other", "prompt": "x"}, 404, "The model `other` does not exist."),
        ({"prompt": [1] * 2000}, 400, "maximum context length is 1024 tokens. However, your request has 2000 input"),
        ({"prompt": [1] * 1000, "max_tokens": 100}, 400, "'max_tokens' or 'max_completion_tokens' is too large: 100."),
        ({"prompt": ""}, 400, "prompt"),
        ("{no json", 400, "json_invalid"),
    ]
    server = simulate(MODEL, "--max-model-len", "1024").ready()
    async with aiohttp.ClientSession() as session:
        for body, status, words in cases:
            sent = body if isinstance(body, str) else json.dumps(body)
            async with session.post(f"{server.url}/v1/completions", data=sent) as response:
                assert response.status == status
                error = (await response.json(content_type=None))["error"]
            assert words in error["message"]
            assert error["code"] == status


async def test_old_releases_have_the_error_at_the_top(simulate: Simulate) -> None:
    server = simulate(MODEL, "--max-model-len", "1024", VERSION="0.8.5").ready()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/completions", json={"prompt": [1] * 2000}) as response,
    ):
        body = await response.json()
    assert body["object"] == "error"
    assert "However, you requested 2016 tokens (2000 in the messages, 16 in the completion)." in body["message"]


async def test_version_models_health_and_key(simulate: Simulate) -> None:
    server = simulate(MODEL, "--served-model-name", "tiny", "--api-key", "k1", VERSION="0.11.0").ready()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/version") as response:
            assert await response.json() == {"version": "0.11.0", "kprof_simulator": "0.1.0"}
        async with session.get(f"{server.url}/health") as response:
            assert response.status == 200
        async with session.get(f"{server.url}/v1/models") as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer k1"}
        async with session.get(f"{server.url}/v1/models", headers=headers) as response:
            listed = (await response.json())["data"][0]
    assert (listed["id"], listed["root"], listed["max_model_len"]) == ("tiny", MODEL, 40960)


async def test_nobody_listens_before_the_server_is_ready(simulate: Simulate) -> None:
    server = simulate(MODEL, FAULT="hang", port="0", host="127.0.0.1")
    server.wait_for("Loading safetensors checkpoint shards")
    assert "Starting vLLM server" not in server.text
    assert server.terminate() == 0


async def test_an_engine_that_runs_out_of_memory_answers_500_and_ends(simulate: Simulate) -> None:
    server = simulate(MODEL, FAULT="runtime_oom").ready()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/completions", json={"prompt": "hello"}) as response,
    ):
        assert response.status == 500
    assert server.wait() == 1
    text = server.text
    assert text.index("EngineCore encountered a fatal error.") < text.index("torch.OutOfMemoryError")
    assert "EngineDeadError: EngineCore encountered an issue." in text


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("0.11.0", "Shutting down FastAPI HTTP server."),
        ("0.33.0", "[shutdown] API server: shutting down FastAPI HTTP server"),
    ],
)
async def test_a_stop_in_the_middle_of_a_request_is_quick_and_clean(
    simulate: Simulate, release: str, words: str
) -> None:
    server = simulate(MODEL, VERSION=release, SPEED="50").ready()
    body = {"prompt": "hello", "max_tokens": 40_000, "ignore_eos": True}
    async with aiohttp.ClientSession() as session:
        posted = asyncio.create_task(session.post(f"{server.url}/v1/completions", json=body))
        while metric(await scrape(session, server.url), "vllm:num_requests_running") == 0:
            assert not posted.done()
        before = time.monotonic()
        code = await asyncio.to_thread(server.terminate)
        assert time.monotonic() - before < 5, "it finished the request first"
        posted.cancel()
    assert code == 0
    assert words in server.text
    assert "Traceback" not in server.text


def test_a_stop_during_the_start_is_clean(simulate: Simulate) -> None:
    server = simulate(MODEL, SPEED="1")
    server.wait_for("kprof simulator")
    assert server.terminate() == 0
