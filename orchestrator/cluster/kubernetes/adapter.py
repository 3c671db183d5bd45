"""The Kubernetes adapter: bare pods in one namespace, owned by the run's anchor."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

from orchestrator.cluster.job import object_of
from orchestrator.cluster.kubernetes.credentials import Credentials
from orchestrator.cluster.kubernetes.devices import read_devices
from orchestrator.cluster.kubernetes.doctor import Doctor
from orchestrator.cluster.kubernetes.kueue import why_waiting
from orchestrator.cluster.kubernetes.lease import RunLease, abandoned_runs, lease_path
from orchestrator.cluster.kubernetes.logs import LOG_IDLE_SECONDS, follow_log
from orchestrator.cluster.kubernetes.preflight import PREFLIGHT_OUTAGE_SECONDS, preflight, rejection
from orchestrator.cluster.kubernetes.routes import Routes
from orchestrator.cluster.kubernetes.transport import ApiError, Object, Transport
from orchestrator.cluster.kubernetes.workloads import BarePods, QueuedJobs, Workloads
from orchestrator.cluster.port import (
    MANAGED,
    POINT_LABEL,
    RUN_LABEL,
    SPEC_LABEL,
    Change,
    Finding,
    HttpReply,
    Leftover,
    LogChunk,
    PodManifest,
    PodRejectedError,
    PodSnapshot,
    PodStuckError,
)
from orchestrator.errors import ClusterError

GONE_GRACE_SECONDS = 60.0
MOST_DEVICES_SECONDS = 60.0  # for all pages
DEVICES_SECONDS = 10.0  # for each page of nodes or pods; a sweep goes on without knowing what is free


class KubernetesCluster:
    """One namespace of one cluster, through any kubeconfig context or from inside the cluster."""

    def __init__(self, credentials: Credentials, *, queued: bool = False, outage_seconds: float | None = None) -> None:
        endpoint = credentials.endpoint
        self.namespace = endpoint.namespace
        self._context = endpoint.context
        self._server = urlsplit(endpoint.host).netloc.rpartition("@")[2]
        options = {} if outage_seconds is None else {"outage_seconds": outage_seconds}
        self.transport = Transport(credentials, **options)
        self._pods = f"/api/v1/namespaces/{self.namespace}/pods"
        kind = QueuedJobs if queued else BarePods
        self._workloads: Workloads = kind(self.transport, self.namespace)
        self._routes = Routes(self.transport, self._pods, in_cluster=credentials.in_cluster)
        self._anchors: dict[str, str] = {}
        self._leases: dict[str, RunLease] = {}

    @classmethod
    def connect(
        cls, kubeconfig: str | None, context: str | None, namespace: str | None, *, queued: bool = False
    ) -> "KubernetesCluster":
        """Read the credentials; raises ClusterError when there are none. `queued` is for points that have a queue."""
        return cls(Credentials(kubeconfig, context, namespace), queued=queued)

    @property
    def name(self) -> str:
        """Return context, namespace and server, so that runs of different clusters are kept apart."""
        return f"kubernetes/{self._context}/{self.namespace}@{self._server}"

    @property
    def answering(self) -> bool:
        """Say whether the API server answered the last call."""
        return self.transport.health.answering

    @property
    def clock_skew_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of the API server's, to the second."""
        return self.transport.health.clock_skew_seconds

    async def why_gated(self, pod: PodSnapshot) -> str | None:
        """Ask the Workload that Kueue made of the Job."""
        return await why_waiting(self.transport.strict(), self.namespace, pod.uid)

    async def scaling_up(self, pod: PodSnapshot) -> bool | None:
        """Ask the events of the pod for the word of a cluster autoscaler; None without the right to read them."""
        query = {"fieldSelector": f"involvedObject.name={pod.pod_name},reason=TriggeredScaleUp"}
        try:
            events = await self.transport.strict().call("GET", f"/api/v1/namespaces/{self.namespace}/events", query)
        except ApiError:
            return None
        return bool(events.get("items"))

    def look_command(self, *pods: str) -> str:
        """Return the words for kubectl."""
        return f"kubectl -n {self.namespace} describe pod {' '.join(pods)}"

    async def __aenter__(self) -> Self:
        await self.transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._routes.close()
        await self.transport.__aexit__(*exc)

    async def check(self, manifests: Sequence[PodManifest]) -> None:
        """Find what would stop every point: access, namespace, secret, cache claim, and pods the server refuses."""
        await preflight(self.transport, self.namespace, manifests)

    def examine(self, manifests: Sequence[PodManifest]) -> AsyncIterator[Finding]:
        """Look at access, nodes, quota, objects, images and the pods themselves."""
        return Doctor(self.transport, self.namespace, manifests).findings()

    async def free_devices(self, resource: str | None) -> int | None:
        """Return allocatable minus requested devices over all nodes; None where that is not told in time."""
        if resource is None:
            return None
        try:
            async with asyncio.timeout(MOST_DEVICES_SECONDS):
                devices = await read_devices(self.transport.optional(DEVICES_SECONDS))
        except (ApiError, ClusterError, TimeoutError):
            return None
        return devices.free(resource)

    def hurry(self) -> None:
        """Give up on an outage after a few seconds from now on."""
        self.transport.hurry()

    @asynccontextmanager
    async def hold(self, run: str) -> AsyncIterator[None]:
        """Hold the run's Lease; as soon as it is lost, nothing of the run is created or deleted any more."""
        lease = self._leases[run] = RunLease(self.transport, self.namespace, run)
        try:
            async with lease.held():
                yield
        finally:
            self._leases.pop(run, None)

    async def _confirm(self, run: str) -> None:
        if (lease := self._leases.get(run)) is not None:
            await lease.confirm()

    async def abandoned(self) -> list[str]:
        """Return the runs whose Lease ran out ten minutes ago or earlier."""
        return await abandoned_runs(self.transport.strict(), self.namespace)

    def _anchor_name(self, run: str) -> str:
        return f"kp-{run[:8]}"

    async def open_run(self, run: str) -> None:
        """Create the run's anchor ConfigMap, or find the one a killed kprof left."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        name = self._anchor_name(run)
        metadata = {"name": name, "labels": {RUN_LABEL: run, "app.kubernetes.io/managed-by": "kprof"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"run": run}}
        try:
            anchor = await self.transport.call("POST", path, body=body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise ClusterError(f"creating the run's anchor: {error.message}", remedy="see docs/rbac.md") from error
            anchor = await self._anchor(f"{path}/{name}")
        uid = str((anchor.get("metadata") or {}).get("uid") or "")
        if not uid:
            raise ClusterError(f"the anchor {name} vanished", remedy="run the same command again")
        self._anchors[run] = uid

    async def _anchor(self, path: str) -> Object:
        try:
            return await self.transport.call("GET", path)
        except ApiError as error:
            if error.code == 404:
                return {}
            raise ClusterError(f"reading the run's anchor: {error.message}", remedy="see docs/rbac.md") from error

    async def close_run(self, run: str) -> list[str]:
        """Delete what is left of the run's pods, wait until they are gone, and delete the anchor that owns them."""
        await self._confirm(run)
        try:
            pods = await self._workloads.of_run(run)
        except ApiError as error:
            raise ClusterError(f"listing the run's pods: {error.message}", remedy="see docs/rbac.md") from error
        went = await asyncio.gather(*(self._goes(pod) for pod in pods))
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{self._anchor_name(run)}"
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if (uid := self._anchors.get(run)) is not None:
            body["preconditions"] = {"uid": uid}  # another kprof may drive the run by now, with an anchor of its own
        try:
            await self.transport.call("DELETE", path, body=body)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise ClusterError(f"deleting the run's anchor: {error.message}") from error
        return [pod.pod_name for pod, gone in zip(pods, went, strict=True) if not gone]

    async def leftovers(self) -> list[Leftover]:
        """Return the pods, anchors and Leases of every run in the namespace."""
        pods: dict[str, list[str]] = {}
        others: dict[str, list[str]] = {}
        quick = self.transport.with_outage(PREFLIGHT_OUTAGE_SECONDS)
        base = f"/api/v1/namespaces/{self.namespace}"
        for kind, path, found in (
            ("pod", self._pods, pods),
            ("configmap", f"{base}/configmaps", others),
            ("lease", lease_path(self.namespace), others),
            ("job", QueuedJobs(self.transport, self.namespace).path, others),
        ):
            try:
                items = await quick.call("GET", path, {"labelSelector": f"{RUN_LABEL},{MANAGED}"})
            except ApiError as error:
                if kind == "job" and error.code == 403:
                    continue  # without the rights for Kueue there are none
                raise ClusterError(f"listing {kind}s: {error.message}", remedy="see docs/rbac.md") from error
            for item in items.get("items") or []:
                metadata = item["metadata"]
                found.setdefault(str(metadata["labels"][RUN_LABEL]), []).append(f"{kind}/{metadata['name']}")
        return [
            Leftover(run, tuple(sorted(pods.get(run, []))), tuple(sorted(others.get(run, []))))
            for run in sorted(pods.keys() | others.keys())
        ]

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a pod by name."""
        try:
            return await self._workloads.get(name)
        except ApiError as error:
            raise ClusterError(f"reading {name}: {error.message}", remedy="see docs/rbac.md") from error

    async def create(self, manifest: PodManifest) -> PodSnapshot:
        """Create the pod under the run's anchor, or adopt the equal one that is there already."""
        body = object_of(manifest)
        run = manifest.labels[RUN_LABEL]

        async def confirm() -> None:
            await self._confirm(run)

        body["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": self._anchor_name(run),
                "uid": self._anchors[run],
                "blockOwnerDeletion": False,
            }
        ]
        try:
            return self._workloads.read(
                await self.transport.call("POST", self._workloads.path, body=body, before=confirm)
            )
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise rejection(error, manifest) from error
        known = await self.get(manifest.name)
        if known is None:
            return await self.create(manifest)
        if any(known.labels.get(label) != manifest.labels[label] for label in (RUN_LABEL, POINT_LABEL)):
            # Somebody else's, which stays; the next attempt has another name.
            raise PodRejectedError("pod.evicted", f"the name {manifest.name} is taken by what is not this point's")
        if not known.deleting and known.labels.get(SPEC_LABEL) == manifest.labels[SPEC_LABEL]:
            return known
        try:
            if known.deleting:
                await self._wait_gone(known, GONE_GRACE_SECONDS)
            else:
                # Limits or the simulator changed since a killed kprof made it: nothing of it was measured yet.
                await self.delete(known)
        except PodStuckError as error:
            # A finalizer or a lost node may keep it for ever, and its name with it; the next attempt has another.
            raise PodRejectedError("pod.evicted", error.message) from error
        return await self.create(manifest)

    def changes(self, run: str) -> AsyncIterator[Change]:
        """List and watch the run's pods, or its Jobs and their pods."""
        return self._workloads.changes(run)

    async def logs(
        self, pod: PodSnapshot, finished: Callable[[], bool], idle_seconds: float = LOG_IDLE_SECONDS
    ) -> AsyncIterator[LogChunk]:
        """Follow the container's log."""
        async for chunk in follow_log(self.transport, f"{self._pods}/{pod.pod_name}/log", finished, idle_seconds):
            yield chunk

    @asynccontextmanager
    async def request(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None = None, *, timeout_seconds: float
    ) -> AsyncIterator[HttpReply]:
        """Call the pod's server by the first way that leads there."""
        async with self._routes.request(pod, method, path, body, timeout_seconds) as reply:
            yield reply

    async def delete(self, pod: PodSnapshot) -> None:
        """Delete the pod of this uid and wait until it is gone; a pod of that name with another uid stays."""

        async def confirm() -> None:
            await self._confirm(pod.labels.get(RUN_LABEL, ""))

        await self._routes.forget(pod.uid)
        try:
            grace = await self._workloads.delete(pod, confirm)
        except ApiError as error:
            # 404: an earlier request may have done it, and a Job's pod may still be there.
            if error.code != 404 and not (error.code == 409 and "UID" in error.message):
                raise ClusterError(f"deleting {pod.name}: {error.message}", remedy="see docs/rbac.md") from error
            grace = 0.0
        await self._wait_gone(pod, grace + GONE_GRACE_SECONDS)

    async def _goes(self, pod: PodSnapshot) -> bool:
        try:
            await self.delete(pod)
        except PodStuckError:
            return False
        return True

    async def _wait_gone(self, pod: PodSnapshot, limit_seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        end, pause = clock() + limit_seconds, 0.2
        while True:
            now = await self.get(pod.name)
            if now is None or now.uid != pod.uid:
                return
            if clock() > end or self.transport.health.late:
                # Forcing it would free the name while the device may still be held.
                raise PodStuckError(
                    f"pod {now.pod_name} does not go away",
                    remedy=f"look at its node: {self.look_command(now.pod_name)}",
                )
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 1.5)
