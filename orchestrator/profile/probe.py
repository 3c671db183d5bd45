"""Live probes: /health, /metrics idle, and the KV accounting under one request."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.cluster.port import Cluster, PodSnapshot, PodUnreachableError
from orchestrator.profile.result import LiveCheck, LiveSample
from orchestrator.vllm.metrics import KvMetrics, read_metrics
from orchestrator.vllm_log import redact

CALL_SECONDS = 15.0
RETRY_SECONDS = 0.25
POLL_SECONDS = 0.03
PROMPT_TOKENS = 2000
DEFAULT_ROOM_TOKENS = 8000  # for a server that does not tell its max_model_len
SAMPLES_WANTED = 3
REQUESTS = 8  # a small model may be through a request before /metrics was read once
REQUEST_SECONDS = 120.0
REFUSAL_BYTES = 16 << 10  # redacted before the words are cut
REFUSAL_CHARACTERS = 2048
# Token ids that every vocabulary has; the prompt differs from block to block, so that no prefix is shared.
_FIRST_TOKEN, _TOKENS = 10, 200


@dataclass(frozen=True, slots=True)
class _Pages:
    """How one request is held against the pool: `block_size` None where blocks do not follow from tokens."""

    block_size: int | None
    null_block: bool


class Probe:
    """Talks to one pod's server. Transport trouble is retried until the caller's limit ends the wait."""

    def __init__(self, cluster: Cluster, pod: PodSnapshot) -> None:
        self._cluster = cluster
        self._pod = pod
        self.unhealthy_status: int | None = None  # what the server itself last said on /health, None when that was 200
        self.last_trouble: str | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of one GET; raises PodUnreachableError."""
        async with self._cluster.request(self._pod, "GET", path, timeout_seconds=CALL_SECONDS) as reply:
            return reply.status, await reply.body()

    async def wait_healthy(self) -> None:
        """Return once /health answers 200; never returns otherwise, so give it a limit."""

        async def healthy() -> bool:
            status, _ = await self.get("/health")
            self.unhealthy_status = None if status == 200 else status
            return status == 200

        await self._until(healthy)

    async def metrics(self) -> KvMetrics | None:
        """Return the KV figures of /metrics, None when the server has none; raises PodUnreachableError."""
        status, body = await self.get("/metrics")
        return read_metrics(body.decode("utf-8", "replace")) if status == 200 else None

    async def served_model(self) -> tuple[str, int | None]:
        """Return the model's served name and its max_model_len; raises PodUnreachableError."""
        status, body = await self.get("/v1/models")
        try:
            if status != 200:
                raise ValueError(status)
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

    async def live_check(self, tokens_equal_blocks: bool, block_size: int | None, null_block: bool = True) -> LiveCheck:
        """Send one request, read /metrics while it runs, and compare the blocks in use with arithmetic.

        `tokens_equal_blocks` says that the log's token capacity is blocks x block size: only then does one request
        of T tokens hold about T / block size blocks. Raises PodUnreachableError.
        """
        name, length = await self.served_model()
        room = length or DEFAULT_ROOM_TOKENS
        prompt = max(1, min(PROMPT_TOKENS, room // 4))
        # Not streamed: a small model would keep the server busy with the stream, and /metrics waiting.
        body = {
            "model": name,
            "prompt": [_FIRST_TOKEN + (index * 7 + index // _TOKENS) % _TOKENS for index in range(prompt)],
            "max_tokens": max(1, room - prompt),
            "min_tokens": max(1, room - prompt),
            "ignore_eos": True,
            "temperature": 0,
        }
        samples: list[LiveSample] = []
        for _ in range(REQUESTS):
            idle = await self.metrics()
            size = (idle.block_size if idle else None) or block_size
            more, refusal = await self._one_request(
                body, idle, prompt, _Pages(size if tokens_equal_blocks else None, null_block)
            )
            samples += more
            if refusal is not None or len(samples) >= SAMPLES_WANTED:
                break
        return _judge(prompt, size, idle.num_gpu_blocks if idle else None, samples, refusal)

    async def _one_request(
        self, body: dict[str, object], idle: KvMetrics | None, prompt: int, pages: _Pages
    ) -> tuple[list[LiveSample], str | None]:
        """Return the readings taken while one request ran, and the server's words when it refused the request."""
        request = asyncio.create_task(self._complete(json.dumps(body).encode()))
        try:
            samples = await self._sample(request, idle, prompt, pages)
            return samples, request.result() if request.done() else None
        finally:
            request.cancel()  # closing the connection ends the request, however long it was to be
            await asyncio.gather(request, return_exceptions=True)

    async def _complete(self, body: bytes) -> str | None:
        """Send a completion request and wait for its end; returns the server's words when it refused."""
        async with self._cluster.request(
            self._pod, "POST", "/v1/completions", body, timeout_seconds=REQUEST_SECONDS
        ) as reply:
            answer = await reply.body()
            if reply.status == 200:
                return None
            words = redact(answer[:REFUSAL_BYTES].decode("utf-8", "replace"))[:REFUSAL_CHARACTERS]
            return f"the server answered {reply.status}: {words}"

    async def _sample(
        self, request: asyncio.Task[str | None], idle: KvMetrics | None, prompt: int, pages: _Pages
    ) -> list[LiveSample]:
        base = (idle.generation_tokens if idle else None) or 0
        samples: list[LiveSample] = []
        while len(samples) < SAMPLES_WANTED and not request.done():
            metrics = await self.metrics()
            if metrics is None or metrics.usage_ratio is None:
                return samples
            # Between the start of prefill and the first token the blocks are being given out.
            generated = None if metrics.generation_tokens is None else metrics.generation_tokens - base
            if metrics.usage_ratio > 0 and (generated or 0) > 0:
                samples.append(_sample_of(metrics, prompt, generated, pages))
            await asyncio.sleep(POLL_SECONDS)
        return samples


def _sample_of(metrics: KvMetrics, prompt: int, generated: int | None, pages: _Pages) -> LiveSample:
    """Bound the blocks of one request by the tokens that the same reading counts.

    The newest token has no slot yet, so T tokens hold ceil((T - 1) / block size) blocks; an engine that schedules
    ahead holds the slot of up to one token more than it has counted.
    """
    low = high = None
    if pages.block_size and generated is not None:
        low = -(-(prompt + generated - 1) // pages.block_size)
        high = -(-(prompt + generated + 1) // pages.block_size)
    used = metrics.used_blocks(null_block=pages.null_block)
    return LiveSample(used, metrics.usage_ratio or 0.0, generated or 0, low, high)


def _judge(
    prompt: int, block_size: int | None, num_blocks: int | None, samples: list[LiveSample], refusal: str | None
) -> LiveCheck:
    note, agrees = refusal, None
    if not samples:
        note = refusal or "every request was over before /metrics showed it"
    elif num_blocks is None:
        note = "this version does not tell how many blocks there are"
    elif any(sample.used_blocks is None for sample in samples):
        agrees, note = False, "the usage is no whole number of blocks of (num_gpu_blocks - 1)"
    elif any(sample.expected_min_blocks is None for sample in samples):
        note = "the blocks of one request depend on layer groups; only whole numbers were checked"
    else:
        agrees = all(
            (sample.expected_min_blocks or 0) <= (sample.used_blocks or 0) <= (sample.expected_max_blocks or 0)
            for sample in samples
        )
    return LiveCheck(prompt, block_size, num_blocks, tuple(samples), agrees, note)
