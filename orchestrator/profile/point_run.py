"""One point from creation to deletion: watch the pod, stream its log into the parser, probe, record, delete."""

import asyncio
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

from orchestrator.cluster.port import (
    Cluster,
    PodManifest,
    PodRejectedError,
    PodSnapshot,
    PodStuckError,
)
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import KprofError
from orchestrator.matrix.point import Point
from orchestrator.profile.clock import PointClock
from orchestrator.profile.evidence import LogEvidence
from orchestrator.profile.observation import LAST_LINE_BYTES, Observation
from orchestrator.profile.pod_failures import PodTrouble, pod_trouble
from orchestrator.profile.probing import Probing
from orchestrator.profile.queueing import TICK_SECONDS, Progress, Queueing
from orchestrator.profile.recording import patiently
from orchestrator.profile.result import PointResult, Source
from orchestrator.profile.verdict import verdict

DEATH_GRACE_SECONDS = 60.0  # from the line that proves a failure to the end of the container
LOG_DRAIN_SECONDS = 90.0  # for the last lines of a container that has ended
NODE_LOST_SECONDS = 300.0  # how long a log may be refused before its node counts as lost
CLOCK_SKEW_SECONDS = 30.0
UNCOUNTED_SECONDS = 5.0


class UnsavedResultError(KprofError):
    """A result could not be written; its pod was left for the next run to read."""


Record = Callable[[PointResult, LogEvidence], None]


class PointRun:
    """Profiles one attempt at one point on a cluster.

    `record` is called exactly once, with the result, before the pod is deleted. The pod is
    deleted on every path but one: a result that cannot be written leaves it for the next run.
    """

    def __init__(
        self,
        cluster: Cluster,
        watch: PodWatch,
        point: Point,
        manifest: PodManifest,
        source: Source,
        attempt: int,
        others_hold: Callable[[], bool] = lambda: False,
        earlier: str | None = None,
        present: Container[str] = frozenset(),
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._point = point
        self._manifest = manifest
        self._source = source
        self._attempt = attempt
        self._earlier = earlier
        self._present = present
        self._adopted = False
        self._seen = Observation()
        self._clock = PointClock(lambda: cluster.answering)
        self._queueing = Queueing(cluster, watch, self._clock, point.timeouts, others_hold)

    async def run(self, created: Callable[[PodSnapshot], None], progress: Progress, record: Record) -> PointResult:
        """Run the attempt to its result; raises ClusterError when kprof itself could not do its job.

        `earlier` of the constructor is the failure kind for which the attempt before this one was given up; `present`
        are the uids of pods that a killed kprof had made: of one that is adopted nobody knows when what began.
        """
        clock = asyncio.get_running_loop().time
        begin = clock()
        progress("creating")
        try:
            pod = await self._queueing.accepted(self._manifest, progress)
        except PodRejectedError as error:
            self._seen.trouble = PodTrouble(error.kind, error.message)
            result = self._verdict(None)
            await self._record(result, record)
            return result
        self._adopted = pod.uid in self._present  # not by its name: a pod of another specification was replaced
        unsaved = False
        try:
            self._watch.saw(pod)
            created(pod)
            await self._observe(pod, progress)
            self._seen.seconds["total"] = clock() - begin
            if self._adopted:
                self._seen.seconds = {name: took for name, took in self._seen.seconds.items() if name == "probe"}
            result = self._verdict(self._watch.get(pod.uid) or pod)
            await self._record(result, record)
        except UnsavedResultError:
            unsaved = True  # the pod stays: a later run of the same command reads it again
            raise
        finally:
            if not unsaved:
                progress("deleting")
                try:
                    await self._cluster.delete(pod)
                except PodStuckError as error:
                    progress(f"stuck: {error.message}")
        return result

    async def _record(self, result: PointResult, record: Record) -> None:
        try:
            await patiently(lambda: record(result, self._seen.evidence))
        except KprofError as error:
            raise UnsavedResultError(f"{self._point.id}: {error.message}", remedy=error.remedy) from error

    async def _observe(self, pod: PodSnapshot, progress: Progress) -> None:
        clock = self._clock
        begin = clock()
        progress("queued")
        self._seen.trouble = await self._queueing.started(pod, progress)
        self._seen.seconds["queued"] = clock() - begin
        if self._seen.trouble is not None:
            return
        pod = self._watch.get(pod.uid) or pod  # a Job has told by now which pod it made
        progress("starting")
        begin = self._seen.last_progress = clock()
        reader = asyncio.create_task(self._read_log(pod, progress), name=f"log-{pod.name}")
        try:
            await self._start_up(pod, begin, reader)
            self._seen.seconds["startup"] = clock() - begin
            if self._seen.ready.is_set() and self._seen.trouble is None:
                progress("probing")
                begin = clock()
                await Probing(self._cluster, self._watch, self._point, self._clock, self._seen).run(pod)
                self._seen.seconds["probe"] = clock() - begin
            if self._ended(pod):
                await self._drain(pod, reader)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _drain(self, pod: PodSnapshot, reader: asyncio.Task[None]) -> None:
        """Wait for the last lines; those that do not come in time are a gap.

        They may hold the cause, so a refused log is waited for as long as that of a container that runs.
        """
        begin = readable_since = self._clock()
        while not reader.done():
            await asyncio.wait({reader}, timeout=TICK_SECONDS)
            now = self._clock()
            if self._seen.unreadable is not None:
                readable_since = now
            lost = self._node_lost(pod, begin)
            if lost is not None or now - readable_since > LOG_DRAIN_SECONDS:
                self._seen.gaps += 1
                self._seen.trouble = self._seen.trouble or lost
                return
        reader.result()

    def _ended(self, pod: PodSnapshot) -> bool:
        now = self._watch.get(pod.uid)
        return now is None or now.finished

    async def _start_up(self, pod: PodSnapshot, begin: float, reader: asyncio.Task[None]) -> None:
        """Wait until the log says ready, the container ended, or a limit passed."""
        clock = self._clock
        limits = self._point.timeouts
        failing_since: float | None = None
        while not self._seen.ready.is_set():
            now = self._watch.get(pod.uid)
            self._seen.trouble = pod_trouble(now, pod.runs_as)
            if self._seen.trouble is not None or now is None or now.finished:
                return
            if reader.done():
                reader.result()  # raises what stopped it; a reader does not end before its container
            if self._seen.failing.is_set():
                failing_since = failing_since or clock()
                if clock() - failing_since > DEATH_GRACE_SECONDS:
                    return
            if (lost := self._node_lost(now, self._seen.unreadable_since)) is not None:
                self._seen.trouble = lost
                return
            waited = clock() - begin
            silent = 0.0 if self._seen.unreadable else clock() - self._seen.last_progress
            if waited > limits.startup_seconds or silent > limits.stall_seconds:
                words = (
                    f"no line for {silent:.0f} s"
                    if silent > limits.stall_seconds
                    else f"not ready after {waited:.0f} s"
                )
                self._seen.trouble = PodTrouble("hang", f"{words}; the last one was: {self._seen.last_line}")
                return
            await self._wait_any(pod, now)

    def _node_lost(self, pod: PodSnapshot, since: float) -> PodTrouble | None:
        """Judge a node by its kubelet: when it does not give out the log for long, the pod's phase means nothing."""
        words, silent = self._seen.unreadable, self._clock() - since
        if words is None or silent < NODE_LOST_SECONDS:
            return None
        return PodTrouble("pod.node_lost", f"node {pod.node} gave out no log for {silent:.0f} s: {words}")

    async def _wait_any(self, pod: PodSnapshot, seen: PodSnapshot | None) -> None:
        waiters = {
            asyncio.create_task(self._seen.ready.wait()),
            asyncio.create_task(self._watch.wait_for(pod.uid, lambda now: now != seen)),
        }
        try:
            done, _ = await asyncio.wait(waiters, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiters:
                task.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
        for task in done:
            task.result()

    async def _read_log(self, pod: PodSnapshot, progress: Progress) -> None:
        # Twice within the limit on silence, so that a dead connection is never taken for a silent server.
        idle = self._point.timeouts.stall_seconds / 2
        async for chunk in self._cluster.logs(pod, lambda: self._ended(pod), idle):
            if chunk.unreadable is not None and self._seen.unreadable is None:
                self._seen.unreadable_since = self._clock()
            self._seen.unreadable = chunk.unreadable
            self._seen.gaps += chunk.gap
            self._seen.last_progress = self._clock()
            if not chunk.data:
                continue
            self._seen.evidence.add(chunk.data)
            lines = chunk.data.rstrip().rsplit(b"\n", 1)
            if lines[-1].strip():
                self._seen.last_bytes = lines[-1][:LAST_LINE_BYTES]
            for event in self._seen.parser.feed(chunk.data):
                if event.name == "ready":
                    self._seen.ready.set()
                elif event.name == "failure":
                    self._seen.failing.set()
                elif event.name == "stage":
                    progress(event.value)

    def _verdict(self, pod: PodSnapshot | None) -> PointResult:
        notes = list(self._notes())
        result = verdict(self._point, self._manifest, self._attempt, self._source, self._seen, pod, notes)
        return replace(result, adopted=self._adopted)

    def _notes(self) -> Iterator[str]:
        """Yield what happened to this attempt that a reader of its figures should know."""
        if self._earlier is not None:
            yield f"the attempt before this one ended in {self._earlier}"
        if self._clock.uncounted_seconds > UNCOUNTED_SECONDS:
            yield f"the cluster did not answer for {self._clock.uncounted_seconds:.0f} s, which no duration counts"
        skew = self._cluster.clock_skew_seconds
        if skew is not None and abs(skew) > CLOCK_SKEW_SECONDS:
            order = "ahead of" if skew > 0 else "behind"
            yield f"this machine's clock is {abs(skew):.0f} s {order} the cluster's"
