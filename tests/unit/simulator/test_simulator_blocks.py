"""Accounting of KV-cache blocks in the pretended engine."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.memory.kv_cache import KvCacheLayout
from orchestrator.simulator.block_pool import BlockPool
from orchestrator.simulator.engine import Engine
from orchestrator.simulator.requests import Finish, Request

BLOCK = 16
UNIFORM = KvCacheLayout(1, 1, 1, 0, BLOCK, None)
HYBRID = KvCacheLayout(1, 1, 1, 2, BLOCK, 64)


def engine_of(blocks: int, *, layout: KvCacheLayout = UNIFORM, caching: bool = False, seqs: int = 64) -> Engine:
    return Engine(layout, blocks, max_num_seqs=seqs, max_num_batched_tokens=2048, prefix_caching=caching)


def request(prompt: int, answer: int, *, start: int = 0) -> Request:
    return Request(prompt=list(range(start, start + prompt)), max_tokens=answer, ignore_eos=True)


def run_to_end(engine: Engine, *, steps: int = 20_000) -> None:
    now = 0.0
    for _ in range(steps):
        if not (engine.running or engine.waiting):
            return
        engine.step(now)
        assert 0 <= engine.pool.used_blocks <= engine.pool.num_blocks - 1
        held = sum(len(running.blocks) + len(running.window_blocks) for running in engine.running)
        assert held >= engine.pool.used_blocks
        now += 0.05
    pytest.fail("the engine never became idle")


@given(st.lists(st.tuples(st.integers(1, 120), st.integers(1, 60)), min_size=1, max_size=8), st.integers(13, 60))
@settings(max_examples=60, deadline=None)
def test_the_pool_is_never_overdrawn_and_empty_at_the_end(sizes: list[tuple[int, int]], blocks: int) -> None:
    engine = engine_of(blocks)
    requests = [request(prompt, answer, start=1000 * index) for index, (prompt, answer) in enumerate(sizes)]
    for each in requests:
        engine.submit(each)
    run_to_end(engine)
    assert engine.pool.used_blocks == 0
    assert [each.produced for each in requests] == [answer for _, answer in sizes]
    assert engine.counters.generation_tokens == sum(answer for _, answer in sizes)
    assert engine.counters.prompt_tokens == sum(prompt for prompt, _ in sizes)
    assert engine.counters.finished[Finish.LENGTH] == len(sizes)


@given(st.integers(1, 400), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_usage_is_exactly_the_ceiling_of_tokens_over_block_size(prompt: int, answer: int) -> None:
    engine = engine_of(100)
    each = request(prompt, answer)
    engine.submit(each)
    now = 0.0
    while each.finish is None:
        engine.step(now)
        if each.finish is None:
            assert engine.pool.used_blocks == -(-(prompt + each.produced) // BLOCK)
        now += 0.02


@given(st.integers(1, 600), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_a_hybrid_model_holds_what_its_layout_says(prompt: int, answer: int) -> None:
    engine = engine_of(400, layout=HYBRID)
    each = request(prompt, answer)
    engine.submit(each)
    engine.step(0.0)
    assert engine.pool.used_blocks == HYBRID.blocks_for_request(prompt, 2048)
    run_to_end(engine)
    assert engine.pool.used_blocks == 0


def test_the_seed_measurement_takes_118_blocks() -> None:
    engine = Engine(
        KvCacheLayout(1, 1, 1, 0, 128, None), 1444, max_num_seqs=256, max_num_batched_tokens=8192, prefix_caching=True
    )
    engine.submit(request(15_049, 10))
    engine.step(0.0)
    assert engine.pool.used_blocks == 118
    assert round(100 * engine.pool.used_blocks / (engine.pool.num_blocks - 1), 2) == 8.18


def test_a_full_pool_makes_requests_wait() -> None:
    engine = engine_of(11)
    first, second = request(100, 5), request(100, 5, start=500)
    engine.submit(first)
    engine.submit(second)
    engine.step(0.0)
    assert engine.running == [first]
    assert list(engine.waiting) == [second]
    run_to_end(engine)
    assert second.produced == 5


def test_the_newest_request_is_preempted_and_finishes_later() -> None:
    engine = engine_of(11)
    old, new = request(64, 60), request(64, 60, start=500)
    engine.submit(old)
    engine.submit(new)
    engine.step(0.0)
    assert len(engine.running) == 2
    run_to_end(engine)
    assert engine.counters.preemptions >= 1
    assert (old.produced, new.produced) == (60, 60)


def test_more_sequences_than_allowed_wait() -> None:
    engine = engine_of(100, seqs=1)
    engine.submit(request(10, 5))
    engine.submit(request(10, 5, start=100))
    engine.step(0.0)
    assert (len(engine.running), len(engine.waiting)) == (1, 1)


def test_a_shared_prefix_costs_blocks_once_and_counts_as_hits() -> None:
    engine = engine_of(100, caching=True)
    engine.submit(request(100, 5))
    engine.step(0.0)
    assert engine.pool.used_blocks == 7
    engine.submit(request(100, 5))
    engine.step(0.0)
    assert engine.pool.used_blocks == 8, "6 full blocks are shared, the seventh is each request's own"
    assert engine.counters.prefix_queries == 200
    assert engine.counters.prefix_hits == 96
    run_to_end(engine)
    assert engine.pool.used_blocks == 0


def test_the_last_token_is_always_computed_again() -> None:
    engine = engine_of(100, caching=True)
    for _ in range(2):
        engine.submit(request(32, 1))
        run_to_end(engine)
    assert engine.counters.prefix_hits == 16


def test_freed_blocks_stay_cached_until_they_are_needed() -> None:
    engine = engine_of(9, caching=True)
    engine.submit(request(100, 1))
    run_to_end(engine)
    engine.submit(request(128, 1, start=5000))
    run_to_end(engine)
    engine.submit(request(100, 1))
    run_to_end(engine)
    assert engine.counters.prefix_hits == 0, "the second prompt took every block"


def test_an_aborted_request_gives_its_blocks_back() -> None:
    engine = engine_of(100)
    each = request(100, 500)
    engine.submit(each)
    engine.step(0.0)
    engine.abort(each)
    assert engine.pool.used_blocks == 0
    assert each.finish is Finish.ABORT


def test_the_pool_refuses_more_than_it_has() -> None:
    pool = BlockPool(4)
    assert pool.allocate(4) is None, "block 0 is the null block"
    assert pool.allocate(3) == [1, 2, 3]
    assert pool.free_blocks == 0


async def test_a_request_stays_visible_however_fast_the_simulation() -> None:
    engine = Engine(UNIFORM, 100, max_num_seqs=4, max_num_batched_tokens=64, prefix_caching=False, speed=10_000)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(engine.run())
        each = request(10, 2)
        before = loop.time()
        engine.submit(each)
        while each.finish is None:
            each.news.clear()
            await each.news.wait()
        assert loop.time() - before > 0.3
        running.cancel()
