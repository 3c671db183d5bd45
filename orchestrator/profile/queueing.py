"""A pod on its way to its first container: accepted by the API server, released by a queue, placed, started."""

import asyncio
import contextlib
import random
from collections.abc import Callable

from orchestrator.cluster.port import Cluster, PodManifest, PodRejectedError, PodSnapshot
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import KprofError
from orchestrator.matrix.point import Timeouts
from orchestrator.profile.clock import PointClock
from orchestrator.profile.pod_failures import PodTrouble, fits_nowhere, pod_trouble
from orchestrator.vllm_log import redact

TICK_SECONDS = 1.0
CREATE_PAUSE_SECONDS = 10.0
LONGEST_CREATE_PAUSE_SECONDS = 60.0  # a hundred points that wait for a quota ask 2 times a second
FITS_NOWHERE_SECONDS = 600.0  # how long a pod waits that no node would take even if it were empty
SCALING_LOOK_SECONDS = 60.0
GATE_FIRST_LOOK_SECONDS = 5.0  # a queue needs a moment to judge a Job
GATE_LOOK_SECONDS = 30.0
SHOWN_CHARACTERS = 400

Progress = Callable[[str], None]


class Queueing:
    """Waits for the start of one pod.

    `queue_seconds` limit the time without a node, `startup_seconds` that from there to the first container.
    `others_hold` says whether other points of the sweep hold devices: waiting for these is no sign of trouble.
    """

    def __init__(
        self,
        cluster: Cluster,
        watch: PodWatch,
        clock: PointClock,
        timeouts: Timeouts,
        others_hold: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._clock = clock
        self._queue_seconds = timeouts.queue_seconds
        self._startup_seconds = timeouts.startup_seconds
        self._others_hold = others_hold
        self._told = ""
        self._asked: float | None = None
        self._why: str | None = None

    async def accepted(self, manifest: PodManifest, progress: Progress) -> PodSnapshot:
        """Create the pod, waiting while a quota or the devices are in use; raises PodRejectedError."""
        waited, pause = 0.0, CREATE_PAUSE_SECONDS
        while True:
            begin = self._clock()
            try:
                return await self._create(manifest)
            except PodRejectedError as error:
                if not error.waits or waited > self._queue_seconds:
                    raise
                self._tell(error.message, progress)
            await asyncio.sleep(random.uniform(0.75, 1.25) * pause)  # noqa: S311 - spreads requests, guards nothing
            pause = min(LONGEST_CREATE_PAUSE_SECONDS, pause * 1.5)
            if not self._others_hold():
                waited += self._clock() - begin

    async def _create(self, manifest: PodManifest) -> PodSnapshot:
        """Create the pod; when cancelled, the request may be on its way: its pod is waited for and deleted."""
        creating = asyncio.ensure_future(self._cluster.create(manifest))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(KprofError):
                await self._cluster.delete(await creating)
            raise

    async def started(self, pod: PodSnapshot, progress: Progress) -> PodTrouble | None:
        """Wait until the container runs or ran and return None, or return the trouble that outlasted its grace."""
        waited, last = 0.0, self._clock()
        placed: float | None = None
        trouble_since: dict[str, float] = {}
        nowhere = _FitsNowhere(self._cluster)
        while True:
            now = self._watch.get(pod.uid)
            if now is not None and now.started:
                return None
            trouble = pod_trouble(now)
            reason = trouble.message if trouble else (await self._why_queued(now) if now else None)
            if trouble is None and now is not None:
                trouble = await nowhere.trouble(now, reason or "", self._clock())
            self._tell(reason or "", progress)
            if trouble is not None:
                since = trouble_since.setdefault(trouble.kind, self._clock())
                if self._clock() - since >= trouble.grace_seconds:
                    return trouble
            else:
                trouble_since.clear()  # it mended itself; the next trouble has its whole grace again
            at = self._clock()
            if now is not None and now.node is not None:
                # It has its devices: what it waits for now is its image, or a volume.
                placed = at if placed is None else placed
                if at - placed > self._startup_seconds:
                    return PodTrouble("pod.config", self._not_started(now, at - placed))
            excused = self._others_hold() or placed is not None or (now is not None and now.gated is not None)
            waited, last = waited if excused else waited + at - last, at
            if waited > self._queue_seconds:
                words = (now.unschedulable if now else None) or "no node was found in time"
                return PodTrouble("pod.unschedulable", words)
            await self._tick(pod, now)

    async def _why_queued(self, pod: PodSnapshot) -> str | None:
        if pod.gated is None:
            return pod.unschedulable
        pause = GATE_LOOK_SECONDS if self._why else GATE_FIRST_LOOK_SECONDS
        if self._asked is None or self._clock() - self._asked >= pause:
            self._asked = self._clock()
            self._why = await self._cluster.why_gated(pod)
        return f"{pod.gated}: {self._why}" if self._why else pod.gated

    def _tell(self, reason: str, progress: Progress) -> None:
        if reason and reason != self._told:
            self._told = reason
            words = redact(reason)
            progress(f"queued: {words if len(words) <= SHOWN_CHARACTERS else words[:SHOWN_CHARACTERS] + '...'}")

    def _not_started(self, pod: PodSnapshot, seconds: float) -> str:
        reason = pod.container.reason if pod.container else "no container"
        look = self._cluster.look_command(pod.pod_name)
        return f"on node {pod.node} for {seconds:.0f} s without starting: {reason}; see {look}"

    async def _tick(self, pod: PodSnapshot, seen: PodSnapshot | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await self._watch.wait_for(pod.uid, lambda now: now != seen)


class _FitsNowhere:
    """Follows one pod that no node would take even if it were empty, or no queue even if nobody else waited.

    An autoscaler may be adding a node that does.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: float | None = None
        self._looked = 0.0
        self._scaling: bool | None = False

    async def trouble(self, pod: PodSnapshot, why: str, now: float) -> PodTrouble | None:
        """Return what is wrong once it has lasted; `why` are the queue's or the scheduler's words, `now` the clock."""
        if not fits_nowhere(why):
            self._since = None
            return None
        if pod.gated is None and (self._since is None or now - self._looked >= SCALING_LOOK_SECONDS):
            self._scaling, self._looked = await self._cluster.scaling_up(pod), now
        self._since = now if self._since is None else self._since
        # Where the cluster does not tell about new nodes, the whole time for queueing is given.
        if self._scaling is not False or now - self._since < FITS_NOWHERE_SECONDS:
            return None
        return PodTrouble("pod.unschedulable", why)
