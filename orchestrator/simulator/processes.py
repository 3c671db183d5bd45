"""The processes one server consists of, and the names under which a release prints them."""

import os
from dataclasses import dataclass

from packaging.version import Version

from orchestrator.simulator.log import Process
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least


@dataclass(frozen=True, slots=True)
class Rank:
    """One worker: `rank` counts over tensor and pipeline parallel ranks of its engine."""

    rank: int
    tensor_rank: int
    pipeline_rank: int
    last_stage: bool
    early: Process
    process: Process


@dataclass(frozen=True, slots=True)
class EngineProcesses:
    """One engine core and its workers; with one rank the worker runs inside the core."""

    index: int
    core: Process
    ranks: tuple[Rank, ...]


def api_server(version: Version) -> Process:
    """Return the front end's process; it has a name from 0.10.1 on."""
    return Process("APIServer" if at_least(version, "0.10.1") else None, os.getpid())


def _core_name(version: Version, index: int, engines: int) -> str | None:
    if at_least(version, "0.18.0"):
        return f"EngineCore_DP{index}" if engines > 1 else "EngineCore"
    if at_least(version, "0.10.2"):
        return f"EngineCore_DP{index}"
    if at_least(version, "0.10.1") or engines > 1:
        return f"EngineCore_{index}"
    return None


def _worker_name(version: Version, settings: EngineSettings, index: int, tensor: int, pipeline: int) -> str:
    rank = pipeline * settings.tensor_parallel_size + tensor
    if not at_least(version, "0.10.1"):
        return f"VllmWorker rank={rank}"
    parts = []
    if settings.data_parallel_size > 1:
        parts.append(f"DP{index}")
    if settings.pipeline_parallel_size > 1:
        parts.append(f"PP{pipeline}")
    if settings.tensor_parallel_size > 1:
        parts.append(f"TP{tensor}")
    if not at_least(version, "0.10.2"):
        return "VllmWorker " + "_".join(parts)
    return "_".join(["Worker", *parts])


def engine_processes(version: Version, settings: EngineSettings, index: int) -> EngineProcesses:
    """Return the processes of one engine, named as the release does."""
    base = os.getpid() + 130 + 1000 * index
    core = Process(_core_name(version, index, settings.data_parallel_size), base)
    tensor_size, stages = settings.tensor_parallel_size, settings.pipeline_parallel_size
    if settings.world_size == 1:
        return EngineProcesses(index, core, (Rank(0, 0, 0, last_stage=True, early=core, process=core),))
    ranks = []
    for rank in range(settings.world_size):
        pipeline, tensor = divmod(rank, tensor_size)
        process = Process(_worker_name(version, settings, index, tensor, pipeline), base + 70 + rank)
        # Until the groups exist a worker does not know its place.
        early = Process("Worker", process.pid) if at_least(version, "0.10.2") else process
        last_stage = pipeline == stages - 1
        ranks.append(Rank(rank, tensor, pipeline, last_stage=last_stage, early=early, process=process))
    return EngineProcesses(index, core, tuple(ranks))
