"""One sweep: resume or start a run, profile its points side by side, leave nothing behind."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.cluster.manifest import Simulation, avoiding, pod_name, render_pod
from orchestrator.cluster.port import SPEC_LABEL, Cluster, PodManifest, PodSnapshot, PodStuckError
from orchestrator.cluster.uninterrupted import uninterrupted
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import ClusterError, KprofError, RunDrivenError, UsageError
from orchestrator.matrix.expand import LoadedMatrix
from orchestrator.matrix.point import Point, matrix_digest
from orchestrator.profile.evidence import LogEvidence
from orchestrator.profile.point_run import PointRun, UnsavedResultError
from orchestrator.profile.recording import patiently
from orchestrator.profile.result import PointResult, Source
from orchestrator.store import RunRecord, Store
from orchestrator.sweep.budget import POLL_SECONDS, Budget, devices_of
from orchestrator.sweep.schedule import Limits, longest_first, startable
from orchestrator.sweep.trouble import Troubles, of_cluster


@dataclass(frozen=True, slots=True)
class Progress:
    """What happens to a point: its id, and the stage it is in; `failure` is set with the stage `done`."""

    point: Point
    stage: str
    result: PointResult | None = None


class Sweep:
    """Runs the selected points of one matrix on one cluster, resuming the newest run of the same matrix."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        matrix: LoadedMatrix,
        *,
        limits: Limits,
        simulation: Simulation | None = None,
        observe: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._matrix = matrix
        self._limits = limits
        self._simulation = simulation
        self._observe = observe
        self.source = Source.MEASURED if simulation is None else Source.SIMULATED
        self.left_behind: list[str] = []  # pods that were deleted and do not go away
        self._troubles = Troubles()
        self._stopped: str | None = None
        self._checked = False
        self._present: frozenset[str] = frozenset()  # uids of the pods that a killed kprof left
        self._unsaved = False

    async def prepare(self, selected: Sequence[Point], *, fresh: bool, repeat: bool = False) -> RunRecord:
        """Return the newest run of this matrix, cluster and source, or record a new one.

        A new one is made when there is none, with `fresh` always, and with `repeat` when every selected point of the
        newest has a result: so a nightly run goes on with what was interrupted, and measures anew what was not.
        A new run is recorded only when the cluster could run the selected points; raises ClusterError otherwise.
        Without `fresh`, one that another kprof has recorded meanwhile is returned instead.
        """
        digest = matrix_digest(list(self._matrix.points))
        known = self._store.latest_run(digest, self._cluster.name, str(self.source))
        if known is not None and not fresh and not (repeat and self._all_have_results(known, selected)):
            self._store.describe_points(known.id, self._matrix.points)
            return known
        self._refuse_too_large(selected)
        run_id = secrets.token_hex(4)
        await self._cluster.check([render_pod(point, run_id, 0, self._simulation) for point in selected])
        self._checked = True
        since = None if fresh else 0 if known is None else known.number
        name, points = self._matrix.name, self._matrix.points
        run = self._store.create_run(run_id, name, digest, self._cluster.name, str(self.source), points, since=since)
        if run.id != run_id:  # started at the same time, as by a CronJob and by hand: one of the two may drive it
            self._store.describe_points(run.id, points)
        return run

    async def _clear_abandoned(self, run: RunRecord) -> None:
        """Delete what killed kprofs left of other runs, of any store, unless somebody drives them again."""
        for name in await self._cluster.abandoned():
            if name != run.id:
                # One that cannot be cleared is for its owner to look at; `kprof clean` says what is wrong.
                with contextlib.suppress(RunDrivenError, ClusterError):
                    async with self._cluster.hold(name):
                        await self._cluster.close_run(name)

    def _all_have_results(self, run: RunRecord, selected: Sequence[Point]) -> bool:
        done = {result.point.hash for result in self._store.results(run.id)}
        return all(point.hash in done for point in selected)

    def remaining(self, run: RunRecord, selected: Sequence[Point]) -> list[Point]:
        """Return the selected points that have no result yet, or only the cluster's trouble for one."""
        done = {result.point.hash for result in self._store.results(run.id) if not of_cluster(result.failure_kind)}
        return [point for point in selected if point.hash not in done]

    async def run(self, run: RunRecord, selected: Sequence[Point]) -> None:
        """Profile what remains of the selected points.

        Raises ClusterError when the cluster cannot be used, or when the first points fail alike for its reasons;
        RunDrivenError when another kprof drives the run.
        """
        await self._clear_abandoned(run)
        async with self._cluster.hold(run.id):
            await self._run(run, selected)

    async def _run(self, run: RunRecord, selected: Sequence[Point]) -> None:
        waiting = longest_first(self.remaining(run, selected))
        if not waiting and run.finished_at is not None:
            return
        self._refuse_too_large(waiting)
        # With nothing to do the last recorded point's pod may still be there: a kprof may have been killed in between.
        if waiting and not self._checked:
            await self._cluster.check([self._manifest(point, run, self._attempt(run, point)) for point in waiting])
        await self._cluster.open_run(run.id)
        try:
            async with PodWatch(self._cluster, run.id) as watch:
                adopt = await self._leftovers(watch, run, waiting)
                await self._drive(run, watch, waiting, adopt)
        finally:
            if not self._unsaved:
                self.left_behind = await uninterrupted(self._cluster.close_run(run.id))
        if self._stopped is not None:
            raise ClusterError(self._stopped, remedy="mend it, then run the same command: it goes on from here")
        await self._finish(run)

    def _refuse_too_large(self, points: Sequence[Point]) -> None:
        limit = self._limits.max_gpus
        for point in points:
            if limit is not None and point.accelerator.count > limit:
                raise UsageError(
                    f"{point.id} takes {point.accelerator.count} devices, --max-gpus is {limit}",
                    remedy="raise --max-gpus, or leave the point out with --only",
                )

    async def _finish(self, run: RunRecord) -> None:
        if run.finished_at is None and not self.remaining(run, self._matrix.points):
            await patiently(lambda: self._store.finish_run(run.id))

    def _attempt(self, run: RunRecord, point: Point) -> int:
        return self._store.next_attempt(run.id, point.hash)

    def _manifest(self, point: Point, run: RunRecord, attempt: int) -> PodManifest:
        return render_pod(point, run.id, attempt, self._simulation)

    async def _leftovers(self, watch: PodWatch, run: RunRecord, waiting: Sequence[Point]) -> list[Point]:
        """Delete pods of a kprof that was killed, except those whose points wait: return these points, to be adopted.

        Of pods that run, only as many are adopted as today's limits allow; the others' points start anew in their turn.
        """
        there = watch.pods()
        self._present = frozenset(pod.uid for pod in there)
        names = {pod_name(run.id, point.hash, self._attempt(run, point)): point.hash for point in waiting}
        leaving = [pod for pod in there if pod.name in names and pod.deleting]
        leaving += await self._deleted([pod for pod in there if pod.name not in names])
        of = {names[pod.name]: pod for pod in there if pod.name in names and not pod.deleting}
        ended = [point for point in waiting if point.hash in of and self._ended(of[point.hash], point, run)]
        going = [point for point in waiting if point.hash in of and point not in ended]
        kept = startable(going, [], {}, self._limits, devices_of(leaving, self._matrix.points))
        await self._deleted([of[point.hash] for point in going if point not in kept])
        return kept + ended

    def _ended(self, pod: PodSnapshot, point: Point, run: RunRecord) -> bool:
        """Say whether a pod has ended that will be read as it is; one of another specification will be made anew."""
        manifest = self._manifest(point, run, self._attempt(run, point))
        return pod.finished and pod.labels.get(SPEC_LABEL) == manifest.labels[SPEC_LABEL]

    async def _deleted(self, pods: Sequence[PodSnapshot]) -> list[PodSnapshot]:
        """Delete pods and return those that do not go away."""

        async def stays(pod: PodSnapshot) -> bool:
            try:
                await self._cluster.delete(pod)
            except PodStuckError:
                return True
            return False

        stuck = await asyncio.gather(*(stays(pod) for pod in pods))
        return [pod for pod, stayed in zip(pods, stuck, strict=True) if stayed]

    async def _drive(self, run: RunRecord, watch: PodWatch, waiting: list[Point], adopt: list[Point]) -> None:
        running: dict[asyncio.Task[bool], Point] = {}
        budget = Budget(self._cluster, watch, self._limits, self._matrix.points)
        try:
            async with asyncio.TaskGroup() as group:
                while running or (waiting and self._stopped is None):
                    # Pods to adopt hold their devices already: they go first, whatever is free.
                    at_hand = startable(adopt, list(running.values()), {}, self._limits)
                    chosen = at_hand if adopt else await budget.choose(waiting, list(running.values()))
                    if self._stopped is not None:  # a point told that no further one would fare better
                        chosen, waiting, adopt = [], [], []
                    elif not chosen and not running:
                        # Nothing of ours holds a device, so waiting frees none: the cluster's queue decides, and the
                        # point's own limit on queueing.
                        await budget.wait_for_room(waiting[0])
                        chosen = waiting[:1]
                    adopt = [point for point in adopt if point not in chosen]
                    for point in chosen:
                        waiting.remove(point)
                        running[group.create_task(self._point(run, watch, budget, point), name=point.id)] = point
                    done, _ = await asyncio.wait(
                        running, timeout=POLL_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        budget.look_again()
                        point = running.pop(task)
                        if task.exception() is None and task.result():
                            await self._cluster.open_run(run.id)  # whoever deleted the anchor took the pod along
                            waiting.insert(0, point)
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from group_error

    async def _point(self, run: RunRecord, watch: PodWatch, budget: Budget, point: Point) -> bool:
        """Run one attempt at a point; returns whether the point shall be tried again."""
        attempt = await patiently(lambda: self._attempt(run, point))
        manifest = avoiding(self._manifest(point, run, attempt), self._troubles.avoided)

        def created(pod: PodSnapshot) -> None:
            with contextlib.suppress(KprofError):  # the name finds the pod again; the uid is for people
                self._store.created(run.id, point.hash, attempt, pod.uid)

        def record(result: PointResult, log: LogEvidence) -> None:
            self._store.record(run.id, result.to_json(), log.compressed(), log.size, truncated=log.truncated)

        def progress(stage: str) -> None:
            if stage == "starting":
                budget.starts(point)
            self._observe(Progress(point, stage))

        def others_hold() -> bool:
            return budget.others_hold(point)

        earlier = self._troubles.earlier.pop(point.hash, None)
        there = self._present
        job = PointRun(self._cluster, watch, point, manifest, self.source, attempt, others_hold, earlier, there)
        with budget.attempt(point, manifest.name):
            await patiently(lambda: self._store.intend(run.id, point.hash, manifest.name, attempt))
            try:
                result = await job.run(created, progress, record)
            except UnsavedResultError:
                self._unsaved = True
                raise
        if self._stopped is None and self._troubles.again(result):
            kind = self._troubles.earlier[point.hash]
            self._observe(Progress(point, f"{kind}: to be tried again"))
            return True
        self._observe(Progress(point, "done", result))
        self._stopped = self._stopped or self._troubles.stop(result)
        return False


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
