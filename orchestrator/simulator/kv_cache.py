"""The end of an engine's start: sizing the KV cache, CUDA graphs, warm-up."""

from collections.abc import Sequence

from orchestrator.memory.kv_cache import KvCachePlan, kv_cache_plan, longest_model_len
from orchestrator.memory.runtime import GIB
from orchestrator.simulator import tracebacks
from orchestrator.simulator.budget import RankBudget, oom
from orchestrator.simulator.failures import CHAIN, EngineError
from orchestrator.simulator.processes import Rank
from orchestrator.simulator.profiling import graph_sizes
from orchestrator.simulator.wording import errors, memory
from orchestrator.simulator.worker import RUNNER, WORKER, Workers

WARM_UP_SECONDS = 0.5
CAPTURE_SECONDS_PER_LAYER = 0.001  # one graph of one layer


def _core_error(workers: Workers, text: str) -> EngineError:
    return EngineError(workers.engine, f"ValueError: {text}", tracebacks.KV_CACHE)


def size_kv_cache(workers: Workers, budgets: Sequence[RankBudget]) -> KvCachePlan:
    """Size the KV cache by the rank with the least memory; too little of it ends the start here."""
    run = workers.run
    layout, settings, version = run.memory.layout, run.settings, run.version
    available = min(budget.kv_cache for budget in budgets)
    core = workers.engine.core
    if available <= 0:
        raise _core_error(workers, errors.no_kv(version))
    # From 0.29.0 the null block is set aside before the check.
    reserved = layout.block_bytes if run.since("0.29.0") else 0
    longest = longest_model_len(available - reserved, layout, settings)
    if run.auto_length:
        if longest == 0:
            raise _core_error(workers, errors.auto_fit_impossible())
        fits = f"{memory.gib(version, available)} GiB available for KV cache"
        own, used = run.model.max_position_embeddings, settings.max_model_len
        place = "available KV cache memory" if run.since("0.32.0") else "available GPU memory"
        text = f"Auto-fit max_model_len: full model context length {own} fits in {place}"
        if used < own:
            text = f"Auto-fit max_model_len: reduced from {own} to {used} to fit in {place} ({fits})"
        run.log.record(core, "INFO", "v1/core/kv_cache_utils.py:1455", text)
    needed = layout.blocks_for_request(settings.max_model_len, settings.max_num_batched_tokens) * layout.block_bytes
    if needed > available - reserved:
        text = errors.kv_too_small(version, settings.max_model_len, needed, available, longest)
        raise _core_error(workers, text)
    plan = kv_cache_plan(available, layout, settings, version)
    times = len(workers.each(once_since="0.11.1"))
    for _ in range(times):
        if settings.num_gpu_blocks_override is not None:
            text = (
                f"Overriding num_gpu_blocks={available // layout.block_bytes} with "
                f"num_gpu_blocks_override={settings.num_gpu_blocks_override}"
            )
            run.log.record(core, "INFO", "v1/core/kv_cache_utils.py:829", text)
        for text in memory.kv_size(version, plan.tokens, settings.max_model_len, plan.max_concurrency):
            run.log.record(core, "INFO", "v1/core/kv_cache_utils.py:1319", text)
    return plan


async def warm_up(workers: Workers, budgets: Sequence[RankBudget], plan: KvCachePlan) -> None:
    """Allocate the KV cache, capture CUDA graphs and warm the sampler up."""
    run = workers.run
    kv_bytes = plan.num_blocks * run.memory.layout.block_bytes
    pairs = list(zip(workers.engine.ranks, budgets, strict=True))
    for rank, budget in pairs:
        held = budget.weights + budget.non_torch
        if held + kv_bytes > budget.free:
            _run_out(workers, (rank, budget), held=held, tried=kv_bytes, frames=tracebacks.ALLOCATE_KV)
    if not run.settings.enforce_eager:
        await _capture(workers, pairs, kv_bytes)
    for rank, budget in pairs:
        held = budget.weights + budget.non_torch + kv_bytes + budget.graphs
        if rank.last_stage and held + budget.activation // 2 > budget.free:
            error = f"RuntimeError: {errors.sampler_warmup(run.settings.max_num_seqs)}"
            first = oom(run, budget, rank.rank, held=held, tried=budget.activation // 2)
            cause = tracebacks.traceback(tracebacks.SAMPLER[1:], f"torch.OutOfMemoryError: {first}") + CHAIN
            raise EngineError(workers.engine, error, tracebacks.SAMPLER, [rank], "call", cause=cause)
    profiled = run.settings.kv_cache_memory_bytes is None
    if run.since("0.10.2") and profiled:
        for rank, budget in pairs:
            _suggest(workers, rank, budget)
    await run.wait(WARM_UP_SECONDS)


def _run_out(
    workers: Workers, pair: tuple[Rank, RankBudget], *, held: int, tried: int, frames: Sequence[tracebacks.Frame]
) -> None:
    rank, budget = pair
    text = oom(workers.run, budget, rank.rank, held=held, tried=tried)
    raise EngineError(workers.engine, f"torch.OutOfMemoryError: {text}", frames, [rank], "call")


async def _capture(workers: Workers, pairs: Sequence[tuple[Rank, RankBudget]], kv_bytes: int) -> None:
    run = workers.run
    sizes = graph_sizes(run.settings.max_num_seqs)
    layers = run.model.layers / run.settings.pipeline_parallel_size
    seconds = workers.capture_seconds = 2 * len(sizes) * layers * CAPTURE_SECONDS_PER_LAYER
    first = workers.engine.ranks[0]
    title = "Capturing CUDA graph shapes"
    if run.since("0.10.1"):
        title = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"
    bars = []
    for done in (*range(0, len(sizes), max(1, len(sizes) // 8)), len(sizes)):
        filled = 10 * done // len(sizes)
        bar = f"{'█' * filled}{' ' * (10 - filled)}| {done}/{len(sizes)} [00:00<00:01, {len(sizes) / seconds:.2f}it/s]"
        bars.append(f"{title}: {100 * done // len(sizes):3d}%|{bar}")
    # tqdm leaves its line open, so what the logger writes next is glued to the bar.
    run.log.progress(first.process, bars[: len(bars) // 2], end=False)
    for size in reversed(sizes[-3:]):
        descriptor = f"BatchDescriptor(num_tokens={size}, num_reqs=None, uniform=False)"
        text = f"Capturing a cudagraph on (PIECEWISE,{descriptor})"
        workers.say(first, "DEBUG", "compilation/cuda_graph.py:271", text)
    await run.wait(seconds)
    for rank, budget in pairs:
        held = budget.weights + budget.non_torch + kv_bytes
        faulty = run.environment.fault == "graph_oom"
        if faulty or held + budget.graphs > budget.free:
            run.log.progress(first.process, [], begin=False)
            tried = 32 * errors.MIB if faulty else budget.graphs
            held = budget.free - 10 * errors.MIB if faulty else held
            _run_out(workers, (rank, budget), held=held, tried=tried, frames=tracebacks.CAPTURE)
    run.log.progress(first.process, bars[len(bars) // 2 : -1], begin=False, end=False)
    finished = workers.each(once_since="0.11.1", each_since="0.29.0")
    # The first rank draws the bar, so the others finish while its line is still open.
    for rank, budget in (*pairs[1:], pairs[0]):
        if rank is first:
            run.log.progress(first.process, bars[-1:], begin=False)
        if rank in finished:
            took = f"Graph capturing finished in {seconds:.0f} secs, took {budget.graphs / GIB:.2f} GiB"
            workers.say(rank, "INFO", f"{RUNNER}:6046", took)
    for rank, budget in pairs:
        profiled = run.settings.kv_cache_memory_bytes is None
        if run.since("0.18.0") and budget.graphs and profiled:
            workers.say(rank, "INFO", f"{WORKER}:597", memory.graph_pool(budget.graphs, budget.graphs))


def _suggest(workers: Workers, rank: Rank, budget: RankBudget) -> None:
    run = workers.run
    loud = not run.since("0.11.0") or run.since("0.26.0")
    text = memory.suggestion(
        run.version,
        free=budget.free,
        total=budget.total,
        utilization=run.settings.gpu_memory_utilization,
        requested=budget.requested,
        weights_bytes=budget.weights,
        activation=budget.activation,
        non_torch=budget.non_torch,
        graphs=budget.graphs,
        estimate_in_budget=budget.graphs if run.memory.graph_in_budget else 0,
        kv_bytes=budget.kv_cache,
    )
    workers.say(rank, "INFO" if loud else "DEBUG", f"{WORKER}:661", text)
