"""The memory of one rank at each moment of a start-up, in bytes, and what runs out of it."""

from dataclasses import dataclass, replace

from orchestrator.memory.activation import activation_bytes
from orchestrator.memory.runtime import CONTEXT_GIB, GIB
from orchestrator.simulator.processes import Rank
from orchestrator.simulator.run import Run
from orchestrator.simulator.wording.errors import MIB, out_of_memory


@dataclass(frozen=True, slots=True)
class RankBudget:
    """Memory of one rank in bytes; `kv_cache` is what profiling leaves and may be negative."""

    total: int
    free: int
    busy: int
    requested: int
    weights: int
    activation: int
    non_torch: int
    graphs: int
    kv_cache: int

    @property
    def free_after_profiling(self) -> int:
        """Return free memory once the peak activation was given back."""
        return self.free - self.weights - self.non_torch


def rank_budget(run: Run, rank: Rank) -> RankBudget:
    """Return the budget of one rank; only the last pipeline stage samples, so only it has the sampler's peak."""
    memory = run.memory
    activation = memory.activation_bytes
    if not rank.last_stage:
        activation = activation_bytes(run.model, replace(run.settings, max_num_seqs=1), run.version)
    kv = memory.kv_cache_bytes
    if run.settings.kv_cache_memory_bytes is None:
        kv += memory.activation_bytes - activation
        if not run.since("0.9.1"):
            # These releases counted everything outside torch, other processes included.
            kv -= round(run.environment.busy_gib * GIB)
    return RankBudget(
        total=memory.device_total_bytes,
        free=memory.device_free_bytes,
        busy=round(run.environment.busy_gib * GIB),
        requested=memory.requested_bytes,
        weights=memory.weight_bytes,
        activation=activation,
        non_torch=memory.non_torch_bytes,
        graphs=memory.cuda_graph_bytes,
        kv_cache=kv,
    )


def largest_tensor(run: Run) -> int:
    """Return the bytes of one weight tensor of a layer, at least 2 MiB, the allocator's granularity."""
    layers = max(1, run.model.layers // run.settings.pipeline_parallel_size)
    return max(2 * MIB, run.memory.weight_bytes // layers // 4 // (2 * MIB) * 2 * MIB)


def oom(run: Run, budget: RankBudget, gpu: int, *, held: int, tried: int) -> str:
    """Return the sentence for `tried` bytes that do not fit beside `held` bytes; the numbers agree with each other."""
    room = budget.free - held
    # What fits of the request in smaller pieces has been taken before the one that failed.
    free = max(0, min(room, tried - MIB))
    reserved = min(16 * MIB, max(0, held) // 16)
    context = round(CONTEXT_GIB * GIB)
    free = min(free, budget.total - budget.busy - context)
    return out_of_memory(
        run.version,
        run.environment.device.platform,
        gpu=gpu,
        tried=tried,
        total=budget.total,
        free=free,
        other=budget.busy,
        reserved=reserved,
    )
