"""The pod's HTTP server through the port."""

import json

import pytest

from orchestrator.cluster.port import PodSnapshot, PodUnreachableError
from tests.contract.subject import Subject, reading, serving, until_started

SLOW_START = 3.0
SLOW_STREAM = 10.0  # 3000 tokens take 3 s, so that they come in many pieces also on a busy machine


async def _serving(subject: Subject, speed: float = 500) -> PodSnapshot:
    made = await subject.vllm.create(serving(subject.run, speed=speed))
    await until_started(subject.vllm, made)
    async with reading(subject.vllm, made) as reader:
        await reader.until_line(b"Application startup complete.")
    return made


async def test_health_metrics_and_an_answer_that_says_no(subject: Subject) -> None:
    """GET reaches the server; a 404 or 400 of the server's own is an answer, not a transport error."""
    pod = await _serving(subject)
    async with subject.vllm.request(pod, "GET", "/health", timeout_seconds=10) as reply:
        assert reply.status == 200
        assert await reply.body() == b""
    async with subject.vllm.request(pod, "GET", "/metrics", timeout_seconds=10) as reply:
        text = (await reply.body()).decode()
    assert reply.status == 200
    assert "vllm:kv_cache_usage_perc{" in text
    assert "vllm:cache_config_info{" in text
    async with subject.vllm.request(pod, "GET", "/no/such/page", timeout_seconds=10) as reply:
        assert reply.status == 404
        await reply.body()
    bad = json.dumps({"model": "nobody", "prompt": "x"}).encode()
    async with subject.vllm.request(pod, "POST", "/v1/completions", bad, timeout_seconds=10) as reply:
        assert reply.status == 404
        assert json.loads(await reply.body())["error"]


async def test_a_completion_is_streamed(subject: Subject) -> None:
    """The tokens of POST /v1/completions come as they are made, down to the last event."""
    pod = await _serving(subject, SLOW_STREAM)
    body = {"model": "Qwen/Qwen3-0.6B", "prompt": "a b c", "max_tokens": 3000, "stream": True, "ignore_eos": True}
    async with subject.vllm.request(
        pod, "POST", "/v1/completions", json.dumps(body).encode(), timeout_seconds=30
    ) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        chunks = [chunk async for chunk in reply.chunks]
    events = [line for line in b"".join(chunks).split(b"\n\n") if line]
    assert events[-1] == b"data: [DONE]"
    assert len(events) > 100
    assert len(chunks) > 3
    assert all(json.loads(event.removeprefix(b"data: "))["object"] == "text_completion" for event in events[:-1])


async def test_leaving_a_stream_early_frees_the_server(subject: Subject) -> None:
    """A caller may go away in the middle; the next request works."""
    pod = await _serving(subject)
    body = {"model": "Qwen/Qwen3-0.6B", "prompt": "a b c", "max_tokens": 4000, "stream": True, "ignore_eos": True}
    async with subject.vllm.request(
        pod, "POST", "/v1/completions", json.dumps(body).encode(), timeout_seconds=30
    ) as reply:
        async for _ in reply.chunks:
            break
    async with subject.vllm.request(pod, "GET", "/health", timeout_seconds=10) as reply:
        assert reply.status == 200


async def test_a_server_that_does_not_listen_yet_is_unreachable(subject: Subject) -> None:
    """Before the server listens, and after the pod is gone, there is one error for it."""
    made = await subject.vllm.create(serving(subject.run, speed=SLOW_START))
    pod = await until_started(subject.vllm, made)
    with pytest.raises(PodUnreachableError):
        async with subject.vllm.request(pod, "GET", "/health", timeout_seconds=10):
            pass
    await subject.vllm.delete(pod)
    with pytest.raises(PodUnreachableError):
        async with subject.vllm.request(pod, "GET", "/health", timeout_seconds=10):
            pass
