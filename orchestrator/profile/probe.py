"""Live probes: /health, /metrics idle, and the KV accounting under one request."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from orchestrator.cluster.port import Cluster, HttpReply, PodSnapshot, PodUnreachableError
from orchestrator.profile.result import LiveCheck, LiveSample
from orchestrator.vllm.metrics import KvMetrics, read_metrics

CALL_SECONDS = 15.0
RETRY_SECONDS = 0.25
PROMPT_TOKENS = 2000
GENERATED_TOKENS = 512
SAMPLES_WANTED = 3
# Token ids that every vocabulary has; the prompt differs from block to block, so that no prefix is shared.
_FIRST_TOKEN, _TOKENS = 10, 200


class Probe:
    """Talks to one pod's server. Transport trouble is retried until the caller's limit ends the wait."""

    def __init__(self, cluster: Cluster, pod: PodSnapshot) -> None:
        self._cluster = cluster
        self._pod = pod

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of one GET; raises PodUnreachableError."""
        async with self._cluster.request(self._pod, "GET", path, timeout_seconds=CALL_SECONDS) as reply:
            return reply.status, await reply.body()

    async def wait_healthy(self) -> None:
        """Return once /health answers 200; never returns otherwise, so give it a limit."""

        async def healthy() -> bool:
            return (await self.get("/health"))[0] == 200

        await self._until(healthy)

    async def metrics(self) -> KvMetrics | None:
        """Return the KV figures of /metrics, None when the server has none; raises PodUnreachableError."""
        status, body = await self.get("/metrics")
        return read_metrics(body.decode("utf-8", "replace")) if status == 200 else None

    async def served_model(self) -> tuple[str, int | None]:
        """Return the model's served name and its max_model_len; raises PodUnreachableError."""
        status, body = await self.get("/v1/models")
        try:
            model = json.loads(body)["data"][0]
            length = model.get("max_model_len")
            return str(model["id"]), length if isinstance(length, int) else None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise PodUnreachableError(f"GET /v1/models answered {status} without a model") from error

    async def _until(self, predicate: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                if await predicate():
                    return
            except PodUnreachableError:
                pass
            await asyncio.sleep(RETRY_SECONDS)

    async def live_check(self, tokens_equal_blocks: bool, block_size: int | None) -> LiveCheck:
        """Send one streamed request, read /metrics while it runs, and compare the blocks in use with arithmetic.

        `tokens_equal_blocks` says that the log's token capacity is blocks x block size: only then does one request
        of T tokens hold ceil(T / block size) blocks. Raises PodUnreachableError.
        """
        name, length = await self.served_model()
        idle = await self.metrics()
        size = (idle.block_size if idle else None) or block_size
        room = length or PROMPT_TOKENS + GENERATED_TOKENS
        prompt = max(1, min(PROMPT_TOKENS, room * 3 // 4))
        generate = max(1, min(GENERATED_TOKENS, room - prompt))
        body = {
            "model": name,
            "prompt": [_FIRST_TOKEN + (index * 7 + index // _TOKENS) % _TOKENS for index in range(prompt)],
            "max_tokens": generate,
            "min_tokens": generate,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        raw = json.dumps(body).encode()
        async with self._cluster.request(
            self._pod, "POST", "/v1/completions", raw, timeout_seconds=CALL_SECONDS * 8
        ) as reply:
            if reply.status != 200:
                words = (await reply.body(2048)).decode("utf-8", "replace")
                blocks = idle.num_gpu_blocks if idle else None
                return LiveCheck(prompt, 0, size, blocks, (), None, f"the server answered {reply.status}: {words}")
            counter = _TokenCounter()
            exact = size if tokens_equal_blocks else None
            reader = asyncio.create_task(counter.read(reply))
            try:
                samples = await self._sample(counter, prompt, generate, exact)
            finally:
                reader.cancel()  # closing the connection ends the request
                await asyncio.gather(reader, return_exceptions=True)
        return _judge(prompt, counter.tokens, size, idle, samples)

    async def _sample(
        self, counter: "_TokenCounter", prompt: int, generate: int, block_size: int | None
    ) -> list[LiveSample]:
        samples: list[LiveSample] = []
        await counter.started.wait()
        while len(samples) < SAMPLES_WANTED and not counter.done:
            before = counter.tokens
            metrics = await self.metrics()
            after = generate if counter.done else counter.tokens
            if metrics is None or metrics.usage_ratio is None:
                return samples
            # A gauge may lag behind the first step; a reading of 0 says nothing yet.
            if metrics.usage_ratio > 0:
                low = high = None
                if block_size:
                    low = -(-prompt // block_size) if before == 0 else -(-(prompt + before - 1) // block_size)
                    high = -(-(prompt + min(after + _LOOKAHEAD, generate)) // block_size)
                samples.append(LiveSample(metrics.used_blocks, metrics.usage_ratio, low, high))
            await asyncio.sleep(RETRY_SECONDS / 5)
        return samples


# Tokens the engine may have computed that the stream has not delivered yet.
_LOOKAHEAD = 64


class _TokenCounter:
    """Counts the tokens of a streamed completion as they arrive."""

    def __init__(self) -> None:
        self.tokens = 0
        self.done = False
        self.started = asyncio.Event()

    async def read(self, reply: HttpReply) -> None:
        try:
            async for event in _events(reply.chunks):
                usage = event.get("usage") or {}
                count = usage.get("completion_tokens")
                self.tokens = count if isinstance(count, int) else self.tokens + 1
                self.started.set()
        finally:
            self.done = True
            self.started.set()


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and b"[DONE]" not in line:
                try:
                    event = json.loads(line[5:])
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event


def _judge(
    prompt: int, generated: int, block_size: int | None, idle: KvMetrics | None, samples: list[LiveSample]
) -> LiveCheck:
    blocks = idle.num_gpu_blocks if idle else None
    note = None
    agrees: bool | None = None
    if not samples:
        note = "the request was over before /metrics showed it"
    elif any(sample.used_blocks is None for sample in samples):
        agrees, note = False, "the usage is no whole number of blocks of (num_gpu_blocks - 1)"
    elif any(sample.expected_min_blocks is None for sample in samples):
        note = "the blocks of one request depend on layer groups; only whole numbers were checked"
    else:
        agrees = all(
            (sample.expected_min_blocks or 0) <= (sample.used_blocks or 0) <= (sample.expected_max_blocks or 0)
            for sample in samples
        )
    return LiveCheck(prompt, generated, block_size, blocks, tuple(samples), agrees, note)
