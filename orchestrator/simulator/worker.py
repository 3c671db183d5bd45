"""The start of one engine's workers: distributed groups, weights and profiling."""

import asyncio
import os
import signal
import time

from orchestrator.memory.runtime import GIB
from orchestrator.simulator import tracebacks
from orchestrator.simulator.budget import largest_tensor, oom, rank_budget
from orchestrator.simulator.failures import EngineError
from orchestrator.simulator.log import Level
from orchestrator.simulator.processes import EngineProcesses, Rank
from orchestrator.simulator.run import Run
from orchestrator.simulator.wording import errors, memory

SHARD_GIB = 4.6  # most repositories cut their weights into files of about this size
LOAD_GIB_PER_SECOND = 1.4
COMPILE_SECONDS, COMPILE_SECONDS_PER_LAYER = 3.0, 0.2
RUNNER = "v1/worker/gpu_model_runner.py"
WORKER = "v1/worker/gpu_worker.py"

LOADING_NOISE = (
    ("v1/sample/ops/topk_topp_sampler.py:57", "FlashInfer top-p/top-k sampling is available but disabled by default."),
    ("model_executor/offloader/base.py:107", "Offloader set to NoopOffloader (no offloading)."),
    ("compilation/backends.py:101", "Using InductorStandaloneAdaptor"),
    ("config/compilation.py:1194", "enabled custom ops: Counter()"),
    ("model_executor/model_loader/base_loader.py:63", "Loading weights on cuda ..."),
)


class Workers:
    """The workers of one engine, from the first process to the end of profiling."""

    def __init__(self, run: Run, engine: EngineProcesses) -> None:
        self.run = run
        self.engine = engine
        layers = run.model.layers / run.settings.pipeline_parallel_size
        self.compile_seconds = 0.0
        if not run.settings.enforce_eager:
            self.compile_seconds = COMPILE_SECONDS + COMPILE_SECONDS_PER_LAYER * layers
        self.capture_seconds = 0.0

    def each(self, *, once_since: str | None, each_since: str | None = None) -> tuple[Rank, ...]:
        """Return the ranks that print a line: from `once_since` the first one, from `each_since` all again."""
        ranks = self.engine.ranks
        if each_since is not None and self.run.since(each_since):
            return ranks
        return ranks[:1] if once_since is not None and self.run.since(once_since) else ranks

    def say(self, rank: Rank, level: Level, where: str, text: str) -> None:
        """Write one record of one worker."""
        self.run.log.record(rank.process, level, where, text)

    async def start(self) -> None:
        """Create the workers and their communication groups; a device that is too full ends it here."""
        run, settings = self.run, self.run.settings
        await run.wait(1.0)
        world = settings.world_size
        for rank in self.engine.ranks:
            text = (
                f"world_size={world} rank={rank.rank} local_rank={rank.rank} "
                "distributed_init_method=tcp://127.0.0.1:45259 backend=nccl"
            )
            run.log.record(rank.early, "DEBUG", "distributed/parallel_state.py:1356", text)
            if run.since("0.11.1"):
                run.log.record(rank.early, "INFO", "distributed/parallel_state.py:1400", text)
        if world > 1:
            for rank in self.each(once_since="0.11.1"):
                where = "distributed/device_communicators/pynccl.py:111"
                run.log.record(rank.early, "INFO", where, "vLLM is using nccl==2.27.5")
        if run.environment.fault == "nccl":
            error = "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"
            ranks = self.engine.ranks[-1:]
            raise EngineError(self.engine, error, tracebacks.INIT_DISTRIBUTED, ranks, "start", early=True)
        for rank in self.each(once_since="0.11.1"):
            run.log.record(rank.early, "INFO", "distributed/parallel_state.py:1716", self._assignment(rank))
        for rank in self.engine.ranks:
            self._look_at_device(rank)

    def _assignment(self, rank: Rank) -> str:
        since, settings = self.run.since, self.run.settings
        text = (
            f"rank {rank.rank} in world size {settings.world_size} is assigned as DP rank {self.engine.index}, "
            f"PP rank {rank.pipeline_rank}, "
        )
        if since("0.12.0"):
            text += "PCP rank 0, "
        text += f"TP rank {rank.tensor_rank}"
        if since("0.30.0"):
            text += ", ETP rank 0"
        if since("0.9.0"):
            dense = since("0.14.0") and self.run.model.moe is None
            text += f", EP rank {'N/A' if dense else rank.tensor_rank}"
        return text + ", EPLB rank N/A" if since("0.17.0") else text

    def _look_at_device(self, rank: Rank) -> None:
        run = self.run
        budget = rank_budget(run, rank)
        if run.since("0.14.0"):
            used = budget.total - budget.free
            text = memory.snapshot(run.version, budget.free, budget.total, used, time.time())
            run.log.record(rank.early, "DEBUG", f"{WORKER}:284", text)
        unlimited = run.settings.kv_cache_memory_bytes is not None
        if run.since("0.9.1") and not unlimited and budget.free < budget.requested:
            text = errors.busy_device(
                run.version,
                gpu=rank.rank,
                free=budget.free,
                total=budget.total,
                utilization=run.settings.gpu_memory_utilization,
                requested=budget.requested,
            )
            raise EngineError(
                self.engine, f"ValueError: {text}", tracebacks.REQUEST_MEMORY, [rank], "start", early=True
            )
        if run.since("0.14.0"):
            requested = f"worker requested memory: {memory.rounded_gib(budget.requested)}GiB"
            run.log.record(rank.early, "DEBUG", f"{WORKER}:285", requested)

    async def load(self) -> None:
        """Load the weights shard by shard; weights that do not fit end it here."""
        run = self.run
        for rank in self.each(once_since="0.11.1"):
            self.say(rank, "INFO", f"{RUNNER}:4735", f"Starting to load model {run.arguments.model}...")
            self.say(rank, "INFO", "platforms/cuda.py:334", self._attention_backend())
        self._check_shards_of_vocabulary()
        first = self.engine.ranks[0]
        budget = rank_budget(run, first)
        total_gib = budget.weights * run.settings.world_size / GIB
        shards = max(1, round(total_gib / SHARD_GIB))
        seconds = 0.4 + total_gib / LOAD_GIB_PER_SECOND
        for where, text in LOADING_NOISE:
            self.say(first, "DEBUG", where, text)
        if budget.weights > budget.free:
            await self._run_out_while_loading(seconds)
        await self._read_shards(first, shards, seconds)
        for rank in self.each(once_since="0.11.1"):
            where = "model_executor/model_loader/default_loader.py:384"
            where = where if run.since("0.9.0") else "model_executor/model_loader/loader.py:458"
            self.say(rank, "INFO", where, f"Loading weights took {seconds:.2f} seconds")
        for rank in self.each(once_since="0.11.1", each_since="0.29.0"):
            own = rank_budget(run, rank)
            self.say(rank, "INFO", f"{RUNNER}:4820", memory.weights(run.version, own.weights, seconds + 0.52))

    def _attention_backend(self) -> str:
        if not self.run.since("0.11.1"):
            return "Using Flash Attention backend on V1 engine."
        stop = "." if self.run.since("0.16.0") else ""
        return (
            "Using FLASH_ATTN attention backend out of potential backends: "
            f"['FLASH_ATTN', 'FLASHINFER', 'TRITON_ATTN', 'FLEX_ATTENTION']{stop}"
        )

    def _check_shards_of_vocabulary(self) -> None:
        padded = -(-self.run.model.vocab_size // 64) * 64
        tensor = self.run.settings.tensor_parallel_size
        if padded % tensor:
            error = f"AssertionError: {padded} is not divisible by {tensor}"
            raise EngineError(self.engine, error, tracebacks.LOAD_MODEL[:3], self.engine.ranks)

    async def _read_shards(self, rank: Rank, shards: int, seconds: float) -> None:
        run = self.run
        faulty = run.environment.fault
        for done in range(shards + 1):
            spent, left = seconds * done / shards, seconds * (shards - done) / shards
            rate = f"{seconds / shards:.2f}s/it" if done else "?it/s"
            clock = f"{int(spent) // 60:02d}:{int(spent) % 60:02d}<"
            clock += f"{int(left) // 60:02d}:{int(left) % 60:02d}" if done else "?"
            bar = f"{100 * done // shards:3d}% Completed | {done}/{shards} [{clock}, {rate}]"
            run.log.progress(rank.process, [f"Loading safetensors checkpoint shards: {bar}"])
            if faulty in {"hang", "killed"} and done == shards // 2:
                await self._stop_here(faulty)
            if done < shards:
                await run.wait(seconds / shards)
        run.log.raw(rank.process, "")

    async def _stop_here(self, fault: str) -> None:
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()

    async def _run_out_while_loading(self, seconds: float) -> None:
        run = self.run
        await run.wait(seconds / 4)
        rank = self.engine.ranks[-1]
        budget, tensor = rank_budget(run, rank), largest_tensor(run)
        text = oom(run, budget, rank.rank, held=max(0, budget.free) // tensor * tensor, tried=tensor)
        if run.since("0.13.0"):
            self.say(rank, "ERROR", f"{RUNNER}:4767", f"{errors.LOAD_OOM} (original error: {text})")
        error = f"torch.OutOfMemoryError: {text}"
        raise EngineError(self.engine, error, tracebacks.LOAD_MODEL, [rank])
