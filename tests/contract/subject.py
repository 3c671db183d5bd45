"""A cluster under test, and the pods that the contract is tried with."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.manifest import Simulation, render_pod
from orchestrator.cluster.port import Change, Cluster, LogChunk, Phase, PodManifest, PodSnapshot
from tests.e2e.waiting import eventually
from tests.fakes.matrix import point

START_SECONDS = 60.0
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Subject:
    """One adapter: `vllm` runs what a point's pod says, `plain` runs a Python script in the same place."""

    vllm: Cluster
    plain: Cluster
    run: str


def serving(run: str, *, speed: float = 500, attempt: int = 0, **arguments: Any) -> PodManifest:
    """Return the pod of a small model on the simulator; `arguments` are vLLM's, with underscores."""
    fields = {name.replace("_", "-"): value for name, value in {"max_model_len": 4096, **arguments}.items()}
    chosen = point("Qwen/Qwen3-0.6B", arguments=fields, pod={"imagePullPolicy": "IfNotPresent"})
    return render_pod(chosen, run, attempt, Simulation(speed=speed))


def printing(run: str, script: str, *, gpus: int = 1, words: Sequence[str] = (), attempt: int = 0) -> PodManifest:
    """Return a pod that runs a Python script in place of the server."""
    chosen = point("org/script", arguments={"tensor-parallel-size": gpus, "seed": attempt})
    made = render_pod(chosen, run, attempt, Simulation())
    body = copy.deepcopy(dict(made.body))
    container = body["spec"]["containers"][0]
    container["command"], container["args"] = ["python3", "-u", "-c", script], list(words)
    del container["readinessProbe"]
    return PodManifest(made.name, made.labels, body, made.resource, made.devices)


async def until_started(cluster: Cluster, pod: PodSnapshot) -> PodSnapshot:
    """Wait until the container runs or ran."""

    async def started() -> PodSnapshot | None:
        now = await cluster.get(pod.name)
        return now if now is not None and now.started else None

    return await eventually(f"{pod.name} starts", started, seconds=START_SECONDS)


async def until_finished(cluster: Cluster, pod: PodSnapshot) -> PodSnapshot:
    """Wait until the container ended."""

    async def finished() -> PodSnapshot | None:
        now = await cluster.get(pod.name)
        return now if now is not None and now.finished else None

    return await eventually(f"{pod.name} ends", finished, seconds=START_SECONDS)


async def until_phase(cluster: Cluster, pod: PodSnapshot, phase: Phase) -> PodSnapshot:
    """Wait until the pod has a phase, which on Kubernetes follows the end of its container."""

    async def there() -> PodSnapshot | None:
        now = await cluster.get(pod.name)
        return now if now is not None and now.phase is phase else None

    return await eventually(f"{pod.name} is {phase}", there, seconds=START_SECONDS)


async def until_gone(cluster: Cluster, pod: PodSnapshot) -> None:
    """Wait until no pod has this name, or another one has it."""

    async def gone() -> bool:
        now = await cluster.get(pod.name)
        return now is None or now.uid != pod.uid

    await eventually(f"{pod.name} is gone", gone, seconds=START_SECONDS)


@dataclass
class Reader:
    """Follows a pod's log in the background; `data` is what came so far."""

    chunks: list[LogChunk] = field(default_factory=list)
    ended: bool = False

    @property
    def data(self) -> bytes:
        """Return all bytes so far."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def gaps(self) -> int:
        """Return how many chunks say that something before them was lost."""
        return sum(chunk.gap for chunk in self.chunks)

    async def until_line(self, text: bytes, seconds: float = START_SECONDS) -> None:
        """Wait until a line contains `text`."""

        async def there() -> bool:
            return text in self.data

        await eventually(f"the log says {text.decode()!r}", there, seconds=seconds)


@asynccontextmanager
async def reading(cluster: Cluster, pod: PodSnapshot) -> AsyncIterator[Reader]:
    """Follow the log of a pod until the block ends; `until_read_out` waits for the log's own end."""
    reader = Reader()
    final = asyncio.Event()

    async def follow() -> None:
        async for chunk in cluster.logs(pod, final.is_set):
            if chunk.data or chunk.gap:
                reader.chunks.append(chunk)
        reader.ended = True

    async def watch_end() -> None:
        await until_finished_or_gone(cluster, pod)
        final.set()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow()), group.create_task(watch_end())]
        try:
            yield reader
        finally:
            for task in tasks:
                task.cancel()


async def until_finished_or_gone(cluster: Cluster, pod: PodSnapshot) -> None:
    """Wait without a limit until the container ended or the pod is gone; the caller cancels it."""
    while True:
        now = await cluster.get(pod.name)
        if now is None or now.uid != pod.uid or now.finished:
            return
        await asyncio.sleep(0.1)


async def read_all(cluster: Cluster, pod: PodSnapshot, seconds: float = START_SECONDS) -> Reader:
    """Follow a pod's log from its first line to its end."""
    async with reading(cluster, pod) as reader:

        async def ended() -> bool:
            return reader.ended

        await eventually(f"the log of {pod.name} is read out", ended, seconds=seconds)
    return reader


@dataclass
class Follower:
    """Collects the changes of a run in the background."""

    changes: list[Change] = field(default_factory=list)

    async def until(self, what: str, fact: Any) -> Change:
        """Wait for a change for which `fact` holds and return it."""

        async def there() -> Change | None:
            return next((change for change in self.changes if fact(change)), None)

        return await eventually(what, there, seconds=START_SECONDS)


@asynccontextmanager
async def following(cluster: Cluster, run: str) -> AsyncIterator[Follower]:
    """Follow the changes of a run until the block ends."""
    follower = Follower()

    async def follow() -> None:
        async for change in cluster.changes(run):
            follower.changes.append(change)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        try:
            yield follower
        finally:
            task.cancel()
