"""A pretended engine core: a queue, a scheduler and true accounting of KV-cache blocks."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from orchestrator.memory.kv_cache import KvCacheLayout
from orchestrator.simulator.block_pool import BlockPool
from orchestrator.simulator.requests import Finish, Request, block_prefixes

STEP_SECONDS = 0.01
TOKENS_PER_SECOND = 100.0
VISIBLE_SECONDS = 0.4  # however fast the simulation: a poller must be able to see every request


@dataclass
class Counters:
    """What `/metrics` counts, in tokens or requests since the start."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    finished: dict[Finish, int] = field(default_factory=lambda: dict.fromkeys(Finish, 0))


class EngineDeadError(Exception):
    """The engine met an error and serves no more requests."""


class Engine:
    """One engine: requests wait until the pool has blocks for them, then produce tokens at a steady pace."""

    def __init__(
        self,
        layout: KvCacheLayout,
        num_blocks: int,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: bool,
        speed: float = 1.0,
    ) -> None:
        self.pool = BlockPool(num_blocks)
        self.layout = layout
        self.counters = Counters()
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.dead = False
        self._max_num_seqs = max_num_seqs
        self._batch = max_num_batched_tokens
        self._prefix_caching = prefix_caching
        self._speed = speed
        self._work = asyncio.Event()

    def submit(self, request: Request) -> None:
        """Put a request into the queue; raises EngineDeadError after a fatal error."""
        if self.dead:
            raise EngineDeadError
        self.waiting.append(request)
        self._work.set()

    def abort(self, request: Request) -> None:
        """Drop a request whose client went away; one that has ended stays as it is."""
        if request.finish is None:
            self._finish(request, Finish.ABORT)

    def die(self) -> None:
        """End all requests, as after a fatal error of the engine core."""
        self.dead = True
        for request in [*self.running, *self.waiting]:
            self._finish(request, Finish.ABORT)

    async def run(self) -> None:
        """Schedule for ever; sleeps while there is nothing to do."""
        loop = asyncio.get_running_loop()
        while True:
            if not (self.running or self.waiting):
                self._work.clear()
                await self._work.wait()
            self.step(loop.time())
            await asyncio.sleep(STEP_SECONDS)

    def step(self, now: float) -> None:
        """Admit what fits, then let every running request produce the tokens that are due at `now` (seconds)."""
        for request in list(self.running):
            # A request that was preempted by an earlier one of this step no longer runs.
            if request in self.running:
                self._produce(request, now)
        while self.waiting and len(self.running) < self._max_num_seqs and self._admit(self.waiting[0], now):
            self.running.append(self.waiting.popleft())

    def _admit(self, request: Request, now: float) -> bool:
        size, groups = self.layout.block_size, self.layout.full_groups
        shared: list[int] = []
        if self._prefix_caching and self.layout.sliding_window is None and groups == 1:
            request.prefixes = block_prefixes(request.prompt, size)
            # The last token is always computed again, or there would be no logits to sample from.
            for prefix in request.prefixes[: (request.tokens - 1) // size]:
                block = self.pool.cached(prefix)
                if block is None:
                    break
                shared.append(block)
        full, window = self._blocks_needed(request.tokens)
        needed = full - len(shared) + window
        if needed > self.pool.free_blocks - sum(self.pool.is_free(block) for block in shared):
            return False
        for block in shared:
            self.pool.share(block)
        request.blocks = [*shared, *(self.pool.allocate(full - len(shared)) or [])]
        request.window_blocks = self.pool.allocate(window) or []
        self._remember(request)
        request.started, request.resumed_from = now, request.produced
        if self._prefix_caching:
            self.counters.prefix_queries += request.tokens
            self.counters.prefix_hits += len(shared) * size
        return True

    def _blocks_needed(self, tokens: int) -> tuple[int, int]:
        total = self.layout.blocks_for_request(tokens, self._batch)
        full = -(-tokens // self.layout.block_size) * self.layout.full_groups
        return full, total - full

    def _remember(self, request: Request) -> None:
        # The last block of a prompt is rarely full, so there can be more blocks than prefixes.
        for block, prefix in zip(request.blocks, request.prefixes, strict=False):
            self.pool.remember(block, prefix)

    def _due(self, request: Request, now: float) -> int:
        assert request.started is not None
        elapsed = now - request.started
        pace = min(TOKENS_PER_SECOND * self._speed, request.limit / VISIBLE_SECONDS)
        return min(request.limit, request.resumed_from + int(elapsed * pace))

    def _produce(self, request: Request, now: float) -> None:
        due = self._due(request, now)
        while request.produced < due:
            if request.produced + 1 < request.limit and not self._grow(request, request.tokens + 1):
                return
            if request.produced == 0:
                self.counters.prompt_tokens += len(request.prompt)
            request.produced += 1
            self.counters.generation_tokens += 1
        if request.produced >= request.limit:
            self._finish(request, request.expected_finish)
        elif due:
            request.news.set()

    def _grow(self, request: Request, tokens: int) -> bool:
        full, window = self._blocks_needed(tokens)
        while full + window > len(request.blocks) + len(request.window_blocks):
            more = self.pool.allocate(1)
            if more is None:
                newest = self.running[-1]
                self._preempt(newest)
                if newest is request:
                    return False
                continue
            (request.blocks if len(request.blocks) < full else request.window_blocks).extend(more)
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._release(request)
        self.waiting.appendleft(request)
        self.counters.preemptions += 1

    def _release(self, request: Request) -> None:
        self.pool.release(request.window_blocks)
        self.pool.release(request.blocks)
        request.blocks, request.window_blocks = [], []

    def _finish(self, request: Request, reason: Finish) -> None:
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._release(request)
        request.finish = reason
        self.counters.finished[reason] += 1
        request.news.set()
