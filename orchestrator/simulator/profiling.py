"""The profile run: compilation, peak memory and what remains for the KV cache."""

from orchestrator.memory.runtime import GIB
from orchestrator.simulator import tracebacks
from orchestrator.simulator.budget import RankBudget, oom, rank_budget
from orchestrator.simulator.failures import EngineError
from orchestrator.simulator.processes import Rank
from orchestrator.simulator.wording import errors, memory
from orchestrator.simulator.worker import RUNNER, WORKER, Workers

PROFILE_SECONDS = 2.5
CACHE_FOLDER = "/home/vllm/.cache/vllm/torch_compile_cache/b9570f3049"


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Return the batch sizes vLLM captures by default: 1, 2, 4, then steps of 8 and 16 up to 512."""
    top = min(2 * max_num_seqs, 512)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    return [size for size in sizes if size <= top]


async def compile_model(workers: Workers) -> None:
    """Pretend torch.compile; eager mode prints none of it."""
    run, seconds = workers.run, workers.compile_seconds
    if not seconds:
        return
    dynamo = seconds * 0.4
    for rank in workers.engine.ranks:
        text = f"Start compiling function <code object forward at 0x1052b290, rank {rank.rank}>"
        workers.say(rank, "DEBUG", "compilation/decorators.py:528", text)
    tag = "[backbone] " if run.since("0.32.0") else ""
    backends = "compilation/backends.py"
    await run.wait(dynamo)
    for rank in workers.each(once_since="0.11.1"):
        folder = f"{CACHE_FOLDER}/rank_{rank.rank}_0/backbone"
        text = f"{tag}Using cache directory: {folder} for vLLM's torch.compile"
        workers.say(rank, "INFO", f"{backends}:1051", text)
        workers.say(rank, "INFO", f"{backends}:1111", f"{tag}Dynamo bytecode transform time: {dynamo:.2f} s")
    await run.wait(seconds - dynamo)
    what = "dynamic shape"
    if run.since("0.13.0"):
        what = f"compile range (1, {run.settings.max_num_batched_tokens})"
    elif not run.since("0.10.0"):
        what = "general shape"
    verb = "took" if run.since("0.18.0") else "takes"
    for rank in workers.each(once_since="0.11.1"):
        text = f"{tag}Compiling a graph for {what} takes {seconds - dynamo:.2f} s"
        workers.say(rank, "INFO", f"{backends}:390", text)
        workers.say(rank, "INFO", "compilation/monitor.py:48", f"{tag}torch.compile {verb} {seconds:.2f} s in total")


async def profile(workers: Workers) -> list[RankBudget]:
    """Run the profile step of every rank; returns the budgets, with the KV cache each rank could have."""
    run = workers.run
    if run.model.vision is not None:
        for rank in workers.each(once_since="0.11.1"):
            budget_tokens = run.settings.max_num_batched_tokens
            text = (
                f"Encoder cache will be initialized with a budget of {budget_tokens} tokens, and profiled with "
                "1 image items of the maximum feature size."
            )
            workers.say(rank, "INFO", f"{RUNNER}:5640", text)
    await compile_model(workers)
    await run.wait(PROFILE_SECONDS)
    budgets = [rank_budget(run, rank) for rank in workers.engine.ranks]
    for rank, budget in zip(workers.engine.ranks, budgets, strict=True):
        _check_peak(workers, rank, budget)
    if run.environment.fault == "profiling_race":
        rank, budget = workers.engine.ranks[0], budgets[0]
        text = errors.profiling_race(run.version, budget.free, budget.free + GIB // 2)
        raise EngineError(workers.engine, f"AssertionError: {text}", tracebacks.PROFILE_ASSERTION, [rank], "call")
    if run.since("0.18.0"):
        for rank in workers.each(once_since="0.11.1"):
            text = "Initial profiling/warmup run took 0.46 s"
            workers.say(rank, "INFO", "compilation/monitor.py:76", text)
    for rank, budget in zip(workers.engine.ranks, budgets, strict=True):
        _report(workers, rank, budget)
    return budgets


def _check_peak(workers: Workers, rank: Rank, budget: RankBudget) -> None:
    held = budget.weights + budget.non_torch
    if held + budget.activation > budget.free:
        text = oom(workers.run, budget, rank.rank, held=held, tried=budget.activation)
        error = f"torch.OutOfMemoryError: {text}"
        raise EngineError(workers.engine, error, tracebacks.PROFILE, [rank], "call")


def _report(workers: Workers, rank: Rank, budget: RankBudget) -> None:
    run = workers.run
    version, settings = run.version, run.settings
    if settings.kv_cache_memory_bytes is not None:
        text = memory.kv_bytes_mode(version, budget.free, settings.kv_cache_memory_bytes)
        workers.say(rank, "INFO", f"{WORKER}:378", text)
        return
    if run.since("0.18.0") and budget.graphs:
        _report_graph_estimate(workers, rank, budget)
    if not run.since("0.9.1"):
        return
    within = budget.requested - (budget.free - budget.free_after_profiling)
    initial = memory.initial_free(
        version, budget.free, budget.free_after_profiling, settings.gpu_memory_utilization, budget.requested
    )
    workers.say(rank, "DEBUG", f"{WORKER}:424", initial)
    if run.since("0.10.1"):
        text = memory.free_after(version, budget.free_after_profiling, within)
        workers.say(rank, "DEBUG", f"{WORKER}:430", text)
    seconds = workers.compile_seconds + PROFILE_SECONDS
    breakdown = memory.profiling(version, seconds, budget.weights, budget.activation, budget.non_torch)
    workers.say(rank, "DEBUG", f"{WORKER}:435", breakdown)
    if rank in workers.each(once_since="0.11.1"):
        workers.say(rank, "INFO", f"{WORKER}:436", memory.available_kv(version, budget.kv_cache))
    if run.since("0.18.0") and budget.graphs:
        share = budget.graphs / budget.total
        workers.say(rank, "INFO", f"{WORKER}:470", memory.graph_advice(version, settings.gpu_memory_utilization, share))


def _report_graph_estimate(workers: Workers, rank: Rank, budget: RankBudget) -> None:
    sizes = graph_sizes(workers.run.settings.max_num_seqs)
    kinds = ", ".join(f"{kind}={len(sizes)} (largest={sizes[-1]})" for kind in ("PIECEWISE", "FULL"))
    workers.say(rank, "INFO", f"{RUNNER}:5876", f"Profiling CUDA graph memory: {kinds}")
    each = budget.graphs / 2**20 / 4 / max(1, len(sizes) - 1)
    for kind in ("PIECEWISE", "FULL"):
        first = budget.graphs / 2**20 / 2 - each * (len(sizes) - 1)
        text = (
            f"Estimated {kind} CUDA graph memory: {first:.2f} MiB first-capture + ({len(sizes)}-1) × "
            f"{each:.2f} MiB per-graph"
        )
        workers.say(rank, "DEBUG", f"{RUNNER}:5928", text)
    text = f"Estimated CUDA graph memory: {budget.graphs / GIB:.2f} GiB total"
    workers.say(rank, "INFO", f"{RUNNER}:5955", text)
