"""Which points may start now: what the cluster has free, what the user allows, and what pods that leave still hold."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from orchestrator.cluster.port import POINT_LABEL, Cluster, PodSnapshot
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import ClusterError
from orchestrator.matrix.point import Point
from orchestrator.sweep.schedule import Limits, startable

QUEUED_AT_ONCE = 20  # Jobs that wait in a queue of Kueue, which orders them better than a sweep could
POLL_SECONDS = 10.0  # how often to look around while nothing ends
DEVICES_SECONDS = 60.0  # how often to ask for free devices while none of the sweep's own pods goes


class Budget:
    """Follows the devices of one sweep; `points` are all that its pods may belong to."""

    def __init__(self, cluster: Cluster, watch: PodWatch, limits: Limits, points: Sequence[Point]) -> None:
        self._cluster = cluster
        self._watch = watch
        self._limits = limits
        self._points = points
        self._driven: set[str] = set()  # names of the pods of attempts that go on
        self._holding: set[str] = set()  # hashes of points whose container runs
        self._free: dict[str | None, int | None] = {}  # devices by resource, when the cluster was last asked
        self._looked = 0.0
        self._pods: set[str] = set()

    @contextmanager
    def attempt(self, point: Point, pod: str) -> Iterator[None]:
        """Count a pod as its point's own while the attempt goes on; afterwards it counts until it is gone."""
        self._driven.add(pod)
        try:
            yield
        finally:
            self._driven.discard(pod)
            self._holding.discard(point.hash)

    def starts(self, point: Point) -> None:
        """Note that a point has its devices."""
        self._holding.add(point.hash)

    def others_hold(self, point: Point) -> bool:
        """Say whether other points of the sweep have devices, for which a pod may be waiting."""
        return bool(self._holding - {point.hash})

    def look_again(self) -> None:
        """Forget what was free: something of the sweep has ended."""
        self._free.clear()

    async def choose(self, waiting: Sequence[Point], running: Sequence[Point]) -> list[Point]:
        """Return the waiting points that may start now, in order."""
        if any(point.queue is not None for point in waiting):
            queued = sum(point.hash not in self._holding for point in running)
            chosen = startable(waiting, running, {}, self._limits, self._leaving())
            return chosen[: max(0, QUEUED_AT_ONCE - queued)]
        free = await self._free_devices(waiting)
        chosen = startable(waiting, running, free, self._limits, self._leaving())
        # Where the cluster does not tell what is free, one point at a time queues; its neighbours would only wait too.
        blind = {resource for resource, count in free.items() if count is None and resource is not None}
        queued = any(point.accelerator.resource in blind and point.hash not in self._holding for point in running)
        first = [point for point in chosen if point.accelerator.resource in blind][: 0 if queued else 1]
        chosen = [point for point in chosen if point.accelerator.resource not in blind or point in first]
        for point in chosen:
            if (known := free[point.accelerator.resource]) is not None:
                free[point.accelerator.resource] = max(0, known - max(1, point.accelerator.count))
        return chosen

    async def wait_for_room(self, point: Point) -> None:
        """Wait while pods that do not go away leave no room for a point within --max-gpus.

        Raises ClusterError, which names them, after the point's limit on queueing.
        """
        clock, limit = asyncio.get_running_loop().time, self._limits.max_gpus
        end = clock() + point.timeouts.queue_seconds
        while limit is not None and self._leaving() + point.accelerator.count > limit:
            if clock() > end:
                names = [pod.pod_name for pod in self._watch.pods() if pod.name not in self._driven]
                words = f"no room for {point.id} within --max-gpus {limit}: pods that do not go away hold it"
                remedy = f"look at their nodes: {self._cluster.look_command(*names)}"
                raise ClusterError(f"{words}: {', '.join(names)}", remedy=remedy)
            await asyncio.sleep(POLL_SECONDS)

    async def _free_devices(self, waiting: Sequence[Point]) -> dict[str | None, int | None]:
        """Return what is free by resource; on a large cluster that is a long list, so it is asked for rarely."""
        clock, pods = asyncio.get_running_loop().time, {pod.name for pod in self._watch.pods()}
        if self._pods - pods or clock() - self._looked > DEVICES_SECONDS:
            self._free.clear()
        self._pods = pods
        for resource in {point.accelerator.resource for point in waiting} - self._free.keys():
            self._free[resource] = await self._cluster.free_devices(resource)
            self._looked = clock()
        return self._free

    def _leaving(self) -> int:
        """Return the devices of pods whose attempts have ended: until they are gone, they may still hold them."""
        return devices_of((pod for pod in self._watch.pods() if pod.name not in self._driven), self._points)


def devices_of(pods: Iterable[PodSnapshot], points: Iterable[Point]) -> int:
    """Return how many devices pods take together that belong to any of these points."""
    counts = {point.hash: point.accelerator.count for point in points}
    return sum(counts.get(pod.labels.get(POINT_LABEL, ""), 0) for pod in pods)
