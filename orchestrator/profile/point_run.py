"""One point from creation to deletion: watch the pod, stream its log into the parser, probe, record, delete."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.cluster.port import (
    Cluster,
    PodManifest,
    PodRejectedError,
    PodSnapshot,
    PodStuckError,
    PodUnreachableError,
)
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import KprofError
from orchestrator.matrix.point import Point
from orchestrator.profile.evidence import LogEvidence
from orchestrator.profile.pod_failures import REMEDIES, PodTrouble, pod_trouble
from orchestrator.profile.probe import Probe
from orchestrator.profile.result import IdleMetrics, LiveCheck, PointFailure, PointResult, Source
from orchestrator.vllm.devices import DEVICES
from orchestrator.vllm.metrics import KvMetrics, has_null_block
from orchestrator.vllm_log import Check, LogParser, StartUp, against_metrics, redact

DEATH_GRACE_SECONDS = 60.0  # from the line that proves a failure to the end of the container
LOG_DRAIN_SECONDS = 90.0  # longer than a stream may be silent before it is taken up again
TICK_SECONDS = 1.0
CREATE_PAUSE_SECONDS = 10.0
RECORD_TRIES = 12
RECORD_PAUSE_SECONDS = 5.0
DEVICE_TOLERANCE = 0.05  # of the total memory by which a device of the named product may differ


class UnsavedResultError(KprofError):
    """A result could not be written; its pod was left for the next run to read."""


Progress = Callable[[str], None]
Record = Callable[[PointResult, LogEvidence], None]


@dataclass(slots=True)
class _Observation:
    """What was seen of the pod so far."""

    parser: LogParser = field(default_factory=LogParser)
    evidence: LogEvidence = field(default_factory=LogEvidence)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failing: asyncio.Event = field(default_factory=asyncio.Event)
    last_line: str = ""
    last_progress: float = 0.0
    gaps: int = 0
    trouble: PodTrouble | None = None
    idle: IdleMetrics | None = None
    live: LiveCheck | None = None
    seconds: dict[str, float] = field(default_factory=dict)


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
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._point = point
        self._manifest = manifest
        self._source = source
        self._attempt = attempt
        self._others_hold = others_hold
        self._seen = _Observation()

    async def run(self, created: Callable[[PodSnapshot], None], progress: Progress, record: Record) -> PointResult:
        """Run the attempt to its result; raises ClusterError when kprof itself could not do its job."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        progress("creating")
        try:
            pod = await self._accepted(progress)
        except PodRejectedError as error:
            self._seen.trouble = PodTrouble(error.kind, error.message)
            result = self._result(None)
            await self._record(result, record)
            return result
        unsaved = False
        try:
            self._watch.saw(pod)
            created(pod)
            await self._observe(pod, progress)
            self._seen.seconds["total"] = clock() - begin
            result = self._result(self._watch.get(pod.uid) or pod)
            await self._record(result, record)
        except UnsavedResultError:
            unsaved = True  # the pod stays: a later run of the same command reads it again
            raise
        finally:
            if not unsaved:
                progress("deleting")
                with contextlib.suppress(PodStuckError):
                    await self._cluster.delete(pod)
        return result

    async def _record(self, result: PointResult, record: Record) -> None:
        """Record the result; a store that is full or locked gets a minute."""
        for _ in range(RECORD_TRIES - 1):
            try:
                record(result, self._seen.evidence)
            except KprofError:
                await asyncio.sleep(RECORD_PAUSE_SECONDS)
            else:
                return
        try:
            record(result, self._seen.evidence)
        except KprofError as error:
            raise UnsavedResultError(f"{self._point.id}: {error.message}", remedy=error.remedy) from error

    async def _accepted(self, progress: Progress) -> PodSnapshot:
        """Create the pod, waiting while a quota or the devices are in use; raises PodRejectedError."""
        clock = asyncio.get_running_loop().time
        waited = 0.0
        while True:
            begin = clock()
            try:
                return await self._create()
            except PodRejectedError as error:
                if not error.waits or waited > self._point.timeouts.queue_seconds:
                    raise
            progress("queued")
            await asyncio.sleep(CREATE_PAUSE_SECONDS)
            if not self._others_hold():
                waited += clock() - begin

    async def _create(self) -> PodSnapshot:
        """Create the pod; when cancelled, the request may be on its way: its pod is waited for and deleted."""
        creating = asyncio.ensure_future(self._cluster.create(self._manifest))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(KprofError):
                await self._cluster.delete(await creating)
            raise

    async def _observe(self, pod: PodSnapshot, progress: Progress) -> None:
        clock = asyncio.get_running_loop().time
        begin = clock()
        progress("queued")
        started = await self._started(pod, progress)
        self._seen.seconds["queued"] = clock() - begin
        if not started:
            return
        progress("starting")
        begin = self._seen.last_progress = clock()
        reader = asyncio.create_task(self._read_log(pod, progress), name=f"log-{pod.name}")
        try:
            await self._start_up(pod, begin, reader)
            self._seen.seconds["startup"] = clock() - begin
            if self._seen.ready.is_set() and self._seen.trouble is None:
                progress("probing")
                begin = clock()
                await self._probe(pod)
                self._seen.seconds["probe"] = clock() - begin
            if self._ended(pod):
                async with asyncio.timeout(LOG_DRAIN_SECONDS):
                    await asyncio.shield(reader)
        except TimeoutError:
            self._seen.gaps += 1  # the last lines did not come in time
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _ended(self, pod: PodSnapshot) -> bool:
        now = self._watch.get(pod.uid)
        return now is None or now.finished

    async def _started(self, pod: PodSnapshot, progress: Progress) -> bool:
        """Wait until the container runs or ran; on trouble that outlasts its grace note it and return False."""
        clock = asyncio.get_running_loop().time
        waited, last, told = 0.0, clock(), ""
        trouble_since: dict[str, float] = {}
        while True:
            now = self._watch.get(pod.uid)
            if now is not None and now.started:
                return True
            trouble = pod_trouble(now)
            reason = trouble.message if trouble else (now.unschedulable if now else None)
            if reason is not None and reason != told:
                told = reason
                progress(f"queued: {redact(reason)[:160]}")
            if trouble is not None:
                since = trouble_since.setdefault(trouble.kind, clock())
                if clock() - since >= trouble.grace_seconds:
                    self._seen.trouble = trouble
                    return False
            else:
                trouble_since.clear()  # it mended itself; the next trouble has its whole grace again
            # While other points of the sweep hold devices, waiting for them is no sign of trouble.
            now_at = clock()
            waited, last = waited if self._others_hold() else waited + now_at - last, now_at
            if waited > self._point.timeouts.queue_seconds:
                words = (now.unschedulable if now else None) or "the pod did not start in time"
                self._seen.trouble = PodTrouble("pod.unschedulable", words)
                return False
            await self._tick(pod, now)

    async def _tick(self, pod: PodSnapshot, seen: PodSnapshot | None) -> None:
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._watch.wait_for(pod.uid, lambda now: now != seen)
        except TimeoutError:
            pass

    async def _start_up(self, pod: PodSnapshot, begin: float, reader: asyncio.Task[None]) -> None:
        """Wait until the log says ready, the container ended, or a limit passed."""
        clock = asyncio.get_running_loop().time
        limits = self._point.timeouts
        failing_since: float | None = None
        while not self._seen.ready.is_set():
            now = self._watch.get(pod.uid)
            self._seen.trouble = pod_trouble(now)
            if self._seen.trouble is not None or now is None or now.finished:
                return
            if reader.done():
                reader.result()  # raises what stopped it; a reader does not end before its container
            if self._seen.failing.is_set():
                failing_since = failing_since or clock()
                if clock() - failing_since > DEATH_GRACE_SECONDS:
                    return
            waited, silent = clock() - begin, clock() - self._seen.last_progress
            if waited > limits.startup_seconds or silent > limits.stall_seconds:
                words = (
                    f"no line for {silent:.0f} s"
                    if silent > limits.stall_seconds
                    else f"not ready after {waited:.0f} s"
                )
                self._seen.trouble = PodTrouble("hang", f"{words}; the last one was: {self._seen.last_line}")
                return
            await self._wait_any(pod, now)

    async def _wait_any(self, pod: PodSnapshot, seen: PodSnapshot | None) -> None:
        waiters = {
            asyncio.create_task(self._seen.ready.wait()),
            asyncio.create_task(self._watch.wait_for(pod.uid, lambda now: now != seen)),
        }
        done, pending = await asyncio.wait(waiters, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    async def _read_log(self, pod: PodSnapshot, progress: Progress) -> None:
        clock = asyncio.get_running_loop().time
        async for chunk in self._cluster.logs(pod, lambda: self._ended(pod)):
            self._seen.gaps += chunk.gap
            self._seen.evidence.add(chunk.data)
            self._seen.last_progress = clock()
            lines = chunk.data.rstrip().rsplit(b"\n", 1)
            if lines[-1].strip():
                self._seen.last_line = lines[-1][:300].decode("utf-8", "replace")
            for event in self._seen.parser.feed(chunk.data):
                if event.name == "ready":
                    self._seen.ready.set()
                elif event.name == "failure":
                    self._seen.failing.set()
                elif event.name == "stage":
                    progress(event.value)

    async def _probe(self, pod: PodSnapshot) -> None:
        probe = Probe(self._cluster, pod)
        ended = asyncio.create_task(self._watch.wait_for(pod.uid, lambda now: now is None or now.finished))
        probing = asyncio.create_task(self._probe_server(probe))
        try:
            async with asyncio.timeout(self._point.timeouts.probe_seconds):
                await asyncio.wait({ended, probing}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()
        except (TimeoutError, PodUnreachableError) as error:
            words = str(error) or f"no answer within {self._point.timeouts.probe_seconds} s"
            self._seen.live = self._seen.live or LiveCheck(0, None, None, (), None, f"probe cut short: {words}")
        finally:
            for task in (ended, probing):
                task.cancel()
            await asyncio.gather(ended, probing, return_exceptions=True)
        if self._ended(pod):
            self._seen.trouble = pod_trouble(self._watch.get(pod.uid))

    async def _probe_server(self, probe: Probe) -> None:
        await probe.wait_healthy()
        facts = self._seen.parser.current.facts
        metrics = await probe.metrics()
        blocks = facts.get("kv_cache_blocks")
        if metrics is not None:
            compared = _compared(self._seen.parser.current, metrics)
            same = all(check.ok for check in compared) if compared else None
            self._seen.idle = IdleMetrics(
                metrics.usage_ratio, metrics.num_gpu_blocks, metrics.block_size, metrics.kv_cache_size_tokens, same
            )
        size = (metrics.block_size if metrics else None) or self._configured_block_size()
        count = (metrics.num_gpu_blocks if metrics else None) or blocks
        tokens = facts.get("kv_cache_tokens")
        plain = bool(size and count and tokens and abs(tokens - count * size) <= size)
        self._seen.live = await probe.live_check(plain, size, has_null_block(self._seen.parser.current.vllm_version))

    def _configured_block_size(self) -> int | None:
        value = self._point.argument("block-size")
        return value if isinstance(value, int) else None

    def _result(self, pod: PodSnapshot | None) -> PointResult:
        start_up = self._seen.parser.close()[-1]
        start_up.checks += _compared(start_up, self._seen.idle)
        failure = self._failure(start_up, pod)
        return PointResult(
            point_hash=self._point.hash,
            attempt=self._attempt,
            source=Source.SIMULATED if start_up.simulated else self._source,
            pod=self._manifest.name,
            node=None if pod is None else pod.node,
            failure=failure,
            start_up=start_up,
            idle=self._seen.idle,
            live=self._seen.live,
            seconds=self._seen.seconds,
            flags=tuple(self._flags(start_up)),
        )

    def _failure(self, start_up: StartUp, pod: PodSnapshot | None) -> PointFailure | None:
        trouble = self._seen.trouble
        found = start_up.failure
        # The log's own cause is nearer than the container's end, except that a kill from outside leaves no cause.
        if found is not None and (trouble is None or found.kind not in {"engine.died", "interrupted", "unknown"}):
            item = found.evidence
            return PointFailure(found.kind, found.stage, found.rank, item.line_number, item.line, found.remedy)
        if trouble is not None:
            remedy = REMEDIES.get(trouble.kind)
            return PointFailure(trouble.kind, "pod", None, None, redact(trouble.message), remedy)
        if pod is not None and pod.finished:
            code = pod.container.exit_code if pod.container else None
            words = f"the container ended with exit code {code}; last line: {self._seen.last_line}"
            kind = "engine.died" if self._seen.evidence.size else "unknown"
            return PointFailure(kind, "pod", None, None, redact(words), "read the log: kprof logs " + self._point.id)
        return None

    def _flags(self, start_up: StartUp) -> list[str]:
        flags = [_flag(check) for check in start_up.checks if not check.ok]
        if self._seen.live is not None and self._seen.live.agrees is False:
            flags.append("the live request did not hold the expected number of KV blocks")
        flags += self._identity_flags(start_up)
        if self._seen.gaps:
            flags.append("the log has gaps")
        if self._seen.evidence.truncated:
            flags.append("the log was longer than kprof keeps")
        if self._point.argument("kv-cache-memory-bytes") is not None:
            flags.append("kv-cache-memory-bytes skips profiling: activation and non-torch are unknown")
        return flags

    def _identity_flags(self, start_up: StartUp) -> list[str]:
        """Return where the log contradicts what the matrix says runs: another version, another device."""
        flags = []
        wanted, found = self._point.vllm_version, start_up.vllm_version
        if wanted is not None and found is not None and not found.startswith(wanted):
            flags.append(f"the log says vLLM {found}, the image's tag {wanted}")
        device = DEVICES.get(self._point.accelerator.product or "")
        total = start_up.facts.get("device_total_gib")
        if device is not None and total is not None and abs(total / device.total_gib - 1) > DEVICE_TOLERANCE:
            flags.append(f"the device has {total:.2f} GiB, a {device.name} has {device.total_gib:.2f}")
        return flags


def _compared(start_up: StartUp, metrics: KvMetrics | IdleMetrics | None) -> list[Check]:
    """Return the checks of the log against what the server says on /metrics."""
    if metrics is None:
        return []
    return against_metrics(
        start_up,
        num_gpu_blocks=metrics.num_gpu_blocks,
        block_size=metrics.block_size,
        kv_cache_size_tokens=metrics.kv_cache_size_tokens,
    )


def _flag(check: Check) -> str:
    if check.name.startswith("metrics_"):
        return f"the log and /metrics name different numbers of KV {check.unit}: off by {check.shown}"
    return f"{check.subject} is off by {check.shown}"
