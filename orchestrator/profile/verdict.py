"""From what was seen of a pod to the result of its point."""

from collections.abc import Iterator

from orchestrator.cluster.port import PodManifest, PodSnapshot
from orchestrator.matrix.point import Point
from orchestrator.profile.observation import Observation
from orchestrator.profile.pod_failures import REMEDIES, PodTrouble, pod_trouble
from orchestrator.profile.result import IdleMetrics, PointFailure, PointResult, Source
from orchestrator.vllm.devices import DEVICES
from orchestrator.vllm.metrics import KvMetrics
from orchestrator.vllm_log import Check, StartUp, against_metrics, redact

DEVICE_TOLERANCE = 0.05  # of the total memory by which a device of the named product may differ
SIGNS_OF_A_KILL = frozenset({"engine.died", "interrupted", "unknown"})  # kinds that a kill from outside leaves in a log
TAKEN_AWAY = frozenset({"pod.evicted", "pod.preempted", "pod.node_lost"})


def verdict(
    point: Point,
    manifest: PodManifest,
    attempt: int,
    source: Source,
    seen: Observation,
    pod: PodSnapshot | None,
    notes: list[str],
) -> PointResult:
    """Return the result; `pod` is the pod as last seen, None when it was never accepted, `notes` become flags."""
    start_up = seen.parser.close()[-1]
    start_up.checks += compared(start_up, seen.idle)
    return PointResult(
        point_hash=point.hash,
        attempt=attempt,
        source=Source.SIMULATED if start_up.simulated else source,
        pod=manifest.name,
        node=None if pod is None else pod.node,
        failure=_failure(point, seen, start_up, pod),
        start_up=start_up,
        idle=seen.idle,
        live=seen.live,
        seconds=seen.seconds,
        flags=(*_flags(point, seen, start_up), *notes),
    )


def compared(start_up: StartUp, metrics: KvMetrics | IdleMetrics | None) -> list[Check]:
    """Return the checks of the log against what the server says on /metrics."""
    if metrics is None:
        return []
    return against_metrics(
        start_up,
        num_gpu_blocks=metrics.num_gpu_blocks,
        block_size=metrics.block_size,
        kv_cache_size_tokens=metrics.kv_cache_size_tokens,
    )


def _failure(point: Point, seen: Observation, start_up: StartUp, pod: PodSnapshot | None) -> PointFailure | None:
    # A kubelet may tell why it ended a container only after the container is seen to have ended.
    trouble = seen.trouble or (pod_trouble(pod) if pod is not None and pod.finished else None)
    found = start_up.failure
    if found is not None and not _explained(found.kind, trouble):
        item = found.evidence
        return PointFailure(found.kind, found.stage, found.rank, item.line_number, item.line, found.remedy)
    if trouble is not None:
        return PointFailure(trouble.kind, "pod", None, None, redact(trouble.message), REMEDIES.get(trouble.kind))
    if pod is not None and pod.finished:
        code = pod.container.exit_code if pod.container else None
        words = f"the container ended with exit code {code}; last line: {seen.last_line}"
        kind = "engine.died" if seen.evidence.size else "unknown"
        return PointFailure(kind, "pod", None, None, redact(words), "read the log: kprof logs " + point.id)
    return None


def _explained(kind: str, trouble: PodTrouble | None) -> bool:
    """Say whether the pod's end explains what the log says; mostly the log's own cause is the nearer one."""
    if trouble is None:
        return False
    # Of ranks that are killed one after the other, the last ones miss the first; nothing else is known of a kill.
    return kind in SIGNS_OF_A_KILL or (kind == "comm.failure" and trouble.kind in TAKEN_AWAY)


def _flags(point: Point, seen: Observation, start_up: StartUp) -> Iterator[str]:
    for check in start_up.checks:
        if not check.ok:
            yield _flag(check)
    if seen.live is not None and seen.live.agrees is False:
        yield "the live request did not hold the expected number of KV blocks"
    yield from _identity_flags(point, start_up)
    if seen.gaps:
        yield "the log has gaps"
    if seen.evidence.truncated:
        yield "the log was longer than kprof keeps"
    if point.argument("kv-cache-memory-bytes") is not None:
        yield "kv-cache-memory-bytes skips profiling: activation and non-torch are unknown"


def _identity_flags(point: Point, start_up: StartUp) -> Iterator[str]:
    """Yield where the log contradicts what the matrix says runs: another version, another device."""
    wanted, found = point.vllm_version, start_up.vllm_version
    if wanted is not None and found is not None and not found.startswith(wanted):
        yield f"the log says vLLM {found}, the image's tag {wanted}"
    device = DEVICES.get(point.accelerator.product or "")
    total = start_up.facts.get("device_total_gib")
    if device is not None and total is not None and abs(total / device.total_gib - 1) > DEVICE_TOLERANCE:
        yield f"the device has {total:.2f} GiB, a {device.name} has {device.total_gib:.2f}"


def _flag(check: Check) -> str:
    if check.name.startswith("metrics_"):
        return f"the log and /metrics name different numbers of KV {check.unit}: off by {check.shown}"
    return f"{check.subject} is off by {check.shown}"
