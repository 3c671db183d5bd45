"""What is asked of a server that says it is ready, within the limits of its point."""

import asyncio

from orchestrator.cluster.port import Cluster, PodSnapshot, PodUnreachableError
from orchestrator.cluster.watch import PodWatch
from orchestrator.matrix.point import Point
from orchestrator.profile.clock import PointClock
from orchestrator.profile.observation import Observation
from orchestrator.profile.pod_failures import PodTrouble, pod_trouble
from orchestrator.profile.probe import Probe
from orchestrator.profile.queueing import TICK_SECONDS
from orchestrator.profile.result import IdleMetrics, LiveCheck
from orchestrator.profile.verdict import compared
from orchestrator.vllm.metrics import has_null_block
from orchestrator.vllm_log import redact

UNHEALTHY_SECONDS = 180.0  # how long a server that says it is ready may say on /health that it is not


class Probing:
    """Probes one server, and notes in what is seen of its point what it answered, or why it did not."""

    def __init__(self, cluster: Cluster, watch: PodWatch, point: Point, clock: PointClock, seen: Observation) -> None:
        self._cluster = cluster
        self._watch = watch
        self._point = point
        self._clock = clock
        self._seen = seen

    async def run(self, pod: PodSnapshot) -> None:
        """Probe until all is read, the pod is over, or the limit passed; the rest stays as it is in what was seen."""

        def over(now: PodSnapshot | None) -> bool:
            """Say whether nothing that the pod's server answers from now on can be used."""
            return now is None or now.finished or pod_trouble(now, pod.runs_as) is not None

        probe = Probe(self._cluster, pod)
        ended = asyncio.create_task(self._watch.wait_for(pod.uid, over))
        probing = asyncio.create_task(self._until_it_succeeds(probe))
        begin = self._clock()
        try:
            while not (ended.done() or probing.done()):
                await asyncio.wait({ended, probing}, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if self._clock() - begin > self._limit(probe):
                    self._cut_short(probe)
                    break
            for task in (probing, ended):
                if task.done():
                    task.result()  # raises what stopped it
        finally:
            for task in (ended, probing):
                task.cancel()
            await asyncio.gather(ended, probing, return_exceptions=True)
        if over(now := self._watch.get(pod.uid)):
            self._seen.trouble = pod_trouble(now, pod.runs_as)

    def _limit(self, probe: Probe) -> float:
        """Return the limit of the probe: a server that says it is not healthy gets the time to become so."""
        asked = float(self._point.timeouts.probe_seconds)
        return asked if probe.unhealthy_status is None else max(asked, UNHEALTHY_SECONDS)

    def _cut_short(self, probe: Probe) -> None:
        if probe.unhealthy_status is not None:
            words = f"/health answered {probe.unhealthy_status} for {self._limit(probe):.0f} s after `ready`"
            self._seen.trouble = PodTrouble("hang", words)
        elif self._seen.live is None:
            words = probe.last_trouble or f"no answer within {self._point.timeouts.probe_seconds} s"
            self._seen.live = LiveCheck(0, None, None, (), None, f"probe cut short: {redact(words)}")

    async def _until_it_succeeds(self, probe: Probe) -> None:
        """Probe until it succeeds: a connection that breaks says nothing about the server behind it."""
        while True:
            try:
                await self._once(probe)
            except PodUnreachableError as error:
                probe.last_trouble = str(error)
                await asyncio.sleep(TICK_SECONDS)
            else:
                return

    async def _once(self, probe: Probe) -> None:
        await probe.wait_healthy()
        facts = self._seen.parser.current.facts
        metrics = await probe.metrics()
        blocks = facts.get("kv_cache_blocks")
        if metrics is not None:
            checks = compared(self._seen.parser.current, metrics)
            same = all(check.ok for check in checks) if checks else None
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
