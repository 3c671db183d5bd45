"""What a point is in the cluster: a bare pod, or under Kueue a Job with the pod that it makes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.cluster.job import QUEUE_LABEL
from orchestrator.cluster.kubernetes.list_watch import list_watch
from orchestrator.cluster.kubernetes.snapshot import read_pod
from orchestrator.cluster.kubernetes.transport import ApiError, Object, Transport
from orchestrator.cluster.port import ATTEMPT_LABEL, POINT_LABEL, RUN_LABEL, Change, Phase, PodSnapshot

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
HURRIED_GRACE_SECONDS = 5
JOB_GRACE_SECONDS = 30.0  # of the pod that goes with it
EVICTED_BY_QUEUE = "EvictedByQueue"
DEADLINE = "DeadlineExceeded"

Before = Callable[[], Awaitable[None]]  # what is awaited ahead of each try of a request


class Workloads(Protocol):
    """The objects of points in one namespace; ApiError passes through, 404 and 409 included."""

    path: str

    def read(self, raw: Mapping[str, Any]) -> PodSnapshot:
        """Read one that was just created."""
        ...

    async def get(self, name: str) -> PodSnapshot | None:
        """Return one by name, None when neither it nor anything it made is there."""
        ...

    async def of_run(self, run: str) -> list[PodSnapshot]:
        """Return those of a run."""
        ...

    def changes(self, run: str) -> AsyncIterator[Change]:
        """List and watch those of a run."""
        ...

    async def delete(self, pod: PodSnapshot, before: Before) -> float:
        """Ask for the deletion of this uid; returns how many seconds it may take by itself."""
        ...


async def _found(transport: Transport, path: str) -> Object | None:
    try:
        return await transport.call("GET", path)
    except ApiError as error:
        if error.code == 404:
            return None
        raise


class BarePods:
    """One pod for each attempt at a point."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.path = f"/api/v1/namespaces/{namespace}/pods"

    def read(self, raw: Mapping[str, Any]) -> PodSnapshot:
        """Read a pod."""
        return read_pod(raw)

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a pod by name."""
        raw = await _found(self._transport, f"{self.path}/{name}")
        return None if raw is None else read_pod(raw)

    async def of_run(self, run: str) -> list[PodSnapshot]:
        """Return the pods of a run."""
        left = await self._transport.call("GET", self.path, {"labelSelector": f"{RUN_LABEL}={run}"})
        return [read_pod(item) for item in left.get("items") or []]

    def changes(self, run: str) -> AsyncIterator[Change]:
        """List and watch the run's pods."""
        return list_watch(self._transport, self.path, f"{RUN_LABEL}={run}", read_pod)

    async def delete(self, pod: PodSnapshot, before: Before) -> float:
        """Delete a pod with its own grace period, or a short one when kprof itself has little time left."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        if self._transport.health.give_up_at is not None:
            # Not 0, which would free the name before the node has let go of the devices.
            options["gracePeriodSeconds"] = HURRIED_GRACE_SECONDS
        left = await self._transport.call("DELETE", f"{self.path}/{pod.name}", body=options, before=before)
        return float((left.get("metadata") or {}).get("deletionGracePeriodSeconds") or 0)


class QueuedJobs:
    """One suspended Job for each attempt at a point.

    A snapshot has name, uid and labels of the Job, and the state of its pod once there is one.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = BarePods(transport, namespace)
        self._ran: set[str] = set()

    def read(self, raw: Mapping[str, Any]) -> PodSnapshot:
        """Read a Job."""
        return read_job(raw)

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a Job with its pod; a pod that outlives its Job counts as the Job being deleted."""
        raw = await _found(self._transport, f"{self.path}/{name}")
        found = await self._transport.call("GET", self._pods.path, {"labelSelector": f"{JOB_NAME_LABEL}={name}"})
        pods = [read_pod(item) for item in found.get("items") or []]
        if raw is not None:
            return self._merged(read_job(raw), pods[-1] if pods else None)
        return _orphan(pods[-1]) if pods else None

    async def of_run(self, run: str) -> list[PodSnapshot]:
        """Return the Jobs of a run, and the pods that outlive theirs."""
        left = await self._transport.call("GET", self.path, {"labelSelector": f"{RUN_LABEL}={run}"})
        jobs = [read_job(item) for item in left.get("items") or []]
        return self._whole(jobs, await self._pods.of_run(run))

    async def delete(self, pod: PodSnapshot, before: Before) -> float:
        """Delete a Job; its pod goes with it."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": pod.uid},
            "propagationPolicy": "Background",
        }
        await self._transport.call("DELETE", f"{self.path}/{pod.name}", body=options, before=before)
        return JOB_GRACE_SECONDS

    async def changes(self, run: str) -> AsyncIterator[Change]:
        """List and watch the run's Jobs and pods, and yield the two as one."""
        selector = f"{RUN_LABEL}={run}"
        queue: asyncio.Queue[tuple[bool, Change | BaseException]] = asyncio.Queue()

        async def feed(of_jobs: bool, changes: AsyncIterator[Change]) -> None:
            try:
                async for change in changes:
                    queue.put_nowait((of_jobs, change))
            except Exception as error:  # noqa: BLE001 - carried to whoever reads the changes
                queue.put_nowait((of_jobs, error))

        feeds = [
            asyncio.create_task(feed(True, list_watch(self._transport, self.path, selector, read_job))),
            asyncio.create_task(feed(False, self._pods.changes(run))),
        ]
        jobs: dict[str, PodSnapshot] | None = None
        pods: dict[str, PodSnapshot] | None = None
        told: dict[str, PodSnapshot] = {}
        try:
            while True:
                of_jobs, change = await queue.get()
                if isinstance(change, BaseException):
                    raise change
                if of_jobs:
                    jobs = await self._updated(jobs, change, self._job)
                else:
                    pods = await self._updated(pods, change, self._pods.get)
                if jobs is None or pods is None:
                    continue
                before, told = told, {one.uid: one for one in self._whole(jobs.values(), pods.values())}
                if change.listing is not None:
                    yield Change(listing=list(told.values()))
                    continue
                for uid, one in told.items():
                    if before.get(uid) != one:
                        yield Change(one)
                for uid in before.keys() - told.keys():
                    yield Change(before[uid], deleted=True)
        finally:
            for task in feeds:
                task.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)

    async def _job(self, name: str) -> PodSnapshot | None:
        raw = await _found(self._transport, f"{self.path}/{name}")
        return None if raw is None else read_job(raw)

    async def _updated(
        self,
        known: dict[str, PodSnapshot] | None,
        change: Change,
        get: Callable[[str], Awaitable[PodSnapshot | None]],
    ) -> dict[str, PodSnapshot]:
        """Take in a change; what a listing lacks is asked for by name, since a list may be falsely empty."""
        now = dict(known or {})
        if change.listing is not None:
            listed = {pod.uid: pod for pod in change.listing}
            for uid, pod in now.items():
                if uid not in listed and (found := await get(pod.name)) is not None and found.uid == uid:
                    listed[uid] = found
            return listed
        if change.pod is not None and change.deleted:
            now.pop(change.pod.uid, None)
        elif change.pod is not None:
            now[change.pod.uid] = change.pod
        return now

    def _whole(self, jobs: Iterable[PodSnapshot], pods: Iterable[PodSnapshot]) -> list[PodSnapshot]:
        """Return each Job with its newest pod, and each pod that outlives its Job: that one still holds devices."""
        newest = {_attempt(pod): pod for pod in pods}
        merged = [self._merged(job, newest.pop(_attempt(job), None)) for job in jobs]
        return merged + [_orphan(pod) for pod in newest.values()]

    def _merged(self, job: PodSnapshot, pod: PodSnapshot | None) -> PodSnapshot:
        """Return the Job as the pod that it stands for."""
        if pod is not None:
            self._ran.add(job.uid)
        if job.gated is not None:
            if job.uid not in self._ran:
                return job
            # Kueue takes an admitted Job back by suspending it, and the Job its pod.
            words = "Kueue suspended the Job again"
            made = pod.name if pod else None
            return replace(job, gated=None, deleting=True, disruption=EVICTED_BY_QUEUE, message=words, runs_as=made)
        if pod is None:
            return _deleted(job) if job.uid in self._ran and not _told_its_end(job) else job
        deleting = pod.deleting or job.deleting
        return replace(pod, name=job.name, uid=job.uid, labels=job.labels, deleting=deleting, runs_as=pod.name)


def _attempt(pod: PodSnapshot) -> tuple[str | None, str | None]:
    return pod.labels.get(POINT_LABEL), pod.labels.get(ATTEMPT_LABEL)


def _told_its_end(job: PodSnapshot) -> bool:
    """Say whether a Job without a pod tells how it ended; that it failed tells only that its pod is gone."""
    return job.phase is Phase.SUCCEEDED or job.reason == DEADLINE


def _deleted(job: PodSnapshot) -> PodSnapshot:
    """Return a Job whose pod somebody deleted, or its node took along."""
    return replace(job, phase=Phase.PENDING, reason="", message="", deleting=True)


def _orphan(pod: PodSnapshot) -> PodSnapshot:
    """Return a pod as the Job that is gone already: its name and uid, being deleted."""
    name, uid = pod.labels.get(JOB_NAME_LABEL, pod.name), pod.labels.get(JOB_UID_LABEL, pod.uid)
    return replace(pod, name=name, uid=uid, deleting=True, runs_as=pod.name)


def read_job(raw: Mapping[str, Any]) -> PodSnapshot:
    """Read a Job object as the pod that it will make; odd or missing fields never fail it."""
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    conditions = {item.get("type"): item for item in status.get("conditions") or [] if item.get("status") == "True"}
    labels = dict(metadata.get("labels") or {})
    phase, ending = Phase.PENDING, conditions.get("Failed") or conditions.get("FailureTarget") or {}
    if ending:
        phase = Phase.FAILED
    elif "Complete" in conditions:
        phase = Phase.SUCCEEDED
    queue = labels.get(QUEUE_LABEL, "")
    return PodSnapshot(
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        labels=labels,
        phase=phase,
        reason=str(ending.get("reason") or ""),
        message=str(ending.get("message") or ""),
        gated=f"waiting in Kueue's queue {queue}" if spec.get("suspend") and not ending else None,
        deleting=bool(metadata.get("deletionTimestamp")),
    )
