"""A whole sweep within the test's own process, on the adapter for Kubernetes and the fault server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster.kubernetes import lease
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.matrix.expand import LoadedMatrix
from orchestrator.matrix.point import Point
from orchestrator.store import RunRecord, Store, StoredResult, open_store
from orchestrator.sweep.run import Progress, Sweep
from orchestrator.sweep.schedule import Limits
from tests.e2e.waiting import eventually
from tests.fakes.matrix import document, group, load_text
from tests.faults.kubelet import Script
from tests.faults.pace import hurried
from tests.faults.scripts import serving
from tests.faults.server import FaultServer

LIMITS = {"queueSeconds": 900, "startupSeconds": 1000, "stallSeconds": 300, "probeSeconds": 30}
FACTOR = 40.0


def matrix_of(points: int = 1, *, queue: str | None = None, **defaults: Any) -> LoadedMatrix:
    """Return a matrix of so many points, with a queue of Kueue where one is named."""
    groups = [group(f"g{number}", arguments={"seed": number}) for number in range(points)]
    fields = document(*groups, **{"timeouts": LIMITS, "pod": {"imagePullPolicy": "IfNotPresent"}} | defaults)
    return load_text(yaml.safe_dump(fields | ({"kueue": {"queueName": queue}} if queue else {}), sort_keys=False))


@dataclass
class Bench:
    """A server, and the sweeps that one store of results knows."""

    server: FaultServer
    folder: Path
    store: Store
    matrix: LoadedMatrix = field(default_factory=matrix_of)
    progress: list[Progress] = field(default_factory=list)
    connected: list[KubernetesCluster] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    _sweeping: set[asyncio.Task[Any]] = field(default_factory=set)

    async def sweep(self, limits: Limits | None = None, only: Sequence[Point] | None = None) -> list[StoredResult]:
        """Run what remains of the matrix, or of some of its points, and return the newest run's results."""
        points = self.matrix.points if only is None else only
        if (task := asyncio.current_task()) is not None:
            self._sweeping.add(task)
        async with self.cluster() as cluster:
            sweep = Sweep(cluster, self.store, self.matrix, limits=limits or Limits(), observe=self.progress.append)
            run = await sweep.prepare(points, fresh=False)
            try:
                await sweep.run(run, points)
            finally:
                self.left_behind = sweep.left_behind
        return self.results()

    async def end(self) -> None:
        """Stop the sweeps that a failed test left, while the server still answers: they clean up."""
        left = {task for task in self._sweeping if not task.done()} - {asyncio.current_task()}
        for cluster in self.connected if left else ():
            cluster.hurry()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[KubernetesCluster]:
        """Open an adapter of its own."""
        path = str(self.server.kubeconfig(self.folder))
        queued = any(point.queue is not None for point in self.matrix.points)
        async with KubernetesCluster.connect(path, None, None, queued=queued) as cluster:
            self.connected.append(cluster)
            yield cluster

    async def until_read(self) -> None:
        """Wait until the watch and a log are being read."""

        async def read() -> bool:
            return self.server.streams >= 2

        await eventually("the watch and the log are being read", read)

    def before_the_log(self) -> float:
        """Return how long the log of the only pod was not asked for: a stall lengthens this, and never shortens it."""
        (created,) = self.server.asked("POST", "/pods")
        return next(call.seconds for call in self.server.calls if call.is_log) - created.seconds

    def run(self) -> RunRecord:
        """Return the newest run."""
        run = self.store.latest_run()
        assert run is not None
        return run

    def results(self) -> list[StoredResult]:
        """Return the results of the newest run."""
        return self.store.results(self.run().id)

    def failure(self) -> tuple[str | None, str]:
        """Return kind and words of the only result's failure."""
        (result,) = self.results()
        return result.failure_kind, str((result.document.get("failure") or {}).get("line") or "")


def on_bench(
    folder: Path,
    work: Callable[[Bench], Coroutine[Any, Any, None]],
    *,
    script: Script = serving,
    points: int = 1,
    factor: float = FACTOR,
    **defaults: Any,
) -> None:
    """Do some work on a bench, by a clock that runs faster; at the end nothing of kprof may be left."""

    async def whole() -> None:
        store = open_store(str(folder / "kprof.db"))
        try:
            async with FaultServer(script) as server:
                bench = Bench(server, folder, store, matrix_of(points, **defaults))
                try:
                    await work(bench)
                finally:
                    await bench.end()
        finally:
            store.close()

    with pytest.MonkeyPatch.context() as patch:
        # Too short a time for this machine when its clock is hurried.
        patch.setattr(lease, "RELEASE_SECONDS", lease.RELEASE_SECONDS * factor)
        hurried(whole(), factor=factor)
