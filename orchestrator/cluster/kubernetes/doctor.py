"""Whether this cluster can run a sweep: each finding with the command that mends it. Nothing is created."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from orchestrator.cluster.kubernetes.devices import read_devices
from orchestrator.cluster.kubernetes.grant import grant_command
from orchestrator.cluster.kubernetes.kueue import installed_version, local_queue
from orchestrator.cluster.kubernetes.pages import items
from orchestrator.cluster.kubernetes.preflight import (
    HELPFUL_QUEUE_RIGHTS,
    HELPFUL_RIGHTS,
    METADATA_ONLY,
    PREFLIGHT_OUTAGE_SECONDS,
    Right,
    dry_run,
    is_allowed,
    needed_rights,
    references,
    secret_command,
)
from orchestrator.cluster.kubernetes.transport import ApiError, Transport
from orchestrator.cluster.port import POINT_ID_LABEL, Finding, Level, PodManifest
from orchestrator.errors import ClusterError

# What a sweep goes on without, and what it then lacks.
WISHED_RIGHTS: tuple[tuple[Right, str], ...] = (
    (Right("", "nodes", "", "list", cluster_wide=True), "free devices are unknown: use --max-gpus"),
    (Right("", "pods", "", "list", cluster_wide=True), "free devices are unknown: use --max-gpus"),
    (Right("", "secrets", "", "get"), "a missing Secret is found only when the first pod waits for it"),
    (Right("", "pods", "portforward", "create"), "a pod that the API server's proxy does not reach is not probed"),
    *HELPFUL_RIGHTS,
)
CLOCK_SKEW_SECONDS = 30.0
ENFORCE = "pod-security.kubernetes.io/enforce"
# Extended resources that device plug-ins of accelerators advertise.
_ACCELERATORS = ("/gpu", "/gaudi", "/tpu", "/Ascend", "gpu.intel.com/", "/neuron")


class Doctor:
    """Examines one namespace; `manifests` are the pods of the points that shall run, empty without a matrix."""

    def __init__(self, transport: Transport, namespace: str, manifests: Sequence[PodManifest]) -> None:
        self._transport = transport.with_outage(PREFLIGHT_OUTAGE_SECONDS)
        self._namespace = namespace
        self._manifests = manifests
        self._base = f"/api/v1/namespaces/{namespace}"
        self._kubectl = f"kubectl -n {namespace}"

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield what was found, in the order in which it should be mended; raises ClusterError when nobody answers."""
        try:
            version = await self._transport.call("GET", "/version")
        except ApiError as error:
            words = f"asking the API server for its version: {error.message or error.reason}"
            raise ClusterError(words, remedy="check the context and its credentials") from error
        yield Finding(Level.OK, "API server", f"Kubernetes {version.get('gitVersion', 'of unknown version')}")
        skew = self._transport.health.clock_skew_seconds or 0.0
        if abs(skew) > CLOCK_SKEW_SECONDS:
            order = "ahead of" if skew > 0 else "behind"
            text = f"this machine is {abs(skew):.0f} s {order} the API server"
            yield Finding(Level.WARN, "clock", text, "set one of the two clocks: timedatectl status")
        for examine in (
            self._access,
            self._pod_security,
            self._devices,
            self._quota,
            self._needed_objects,
            self._images,
            self._kueue,
            self._dry_run,
        ):
            async for finding in examine():
                yield finding

    async def _access(self) -> AsyncIterator[Finding]:
        needed = needed_rights(self._manifests)
        queued = any(manifest.queue is not None for manifest in self._manifests)
        missing = [right for right in needed if not await is_allowed(self._transport, self._namespace, right)]
        if missing:
            words = ", ".join(f"{right.verb} {right.name}" for right in missing)
            remedy = await grant_command(self._transport, self._namespace, queued=queued)
            yield Finding(Level.FAIL, "access", f"no right in {self._namespace} to {words}", remedy)
        else:
            yield Finding(Level.OK, "access", f"all {len(needed)} rights in {self._namespace}")
        for right, lack in (*WISHED_RIGHTS, *(HELPFUL_QUEUE_RIGHTS if queued else ())):
            if not await is_allowed(self._transport, self._namespace, right):
                where = "in all namespaces" if right.cluster_wide else f"in {self._namespace}"
                yield Finding(Level.WARN, "access", f"no right to {right.verb} {right.name} {where}: {lack}")

    async def _pod_security(self) -> AsyncIterator[Finding]:
        try:
            namespace = await self._transport.call("GET", f"/api/v1/namespaces/{self._namespace}")
        except ApiError as error:
            if error.code == 404:
                text = f"{self._namespace} does not exist"
                yield Finding(Level.FAIL, "namespace", text, f"kubectl create namespace {self._namespace}")
            return
        level = (namespace["metadata"].get("labels") or {}).get(ENFORCE)
        if level == "restricted":
            yield Finding(
                Level.WARN,
                "pod security",
                f"{self._namespace} enforces `restricted`, which most vLLM images violate",
                f"kubectl label --overwrite namespace {self._namespace} {ENFORCE}=baseline",
            )
        else:
            yield Finding(Level.OK, "pod security", f"{self._namespace} enforces {level or 'nothing'}")

    async def _devices(self) -> AsyncIterator[Finding]:
        try:
            devices = await read_devices(self._transport)
        except ApiError:
            return  # told by the access check
        wanted = {manifest.resource for manifest in self._manifests if manifest.resource}
        resources = wanted | {name for node in devices.nodes for name in node.allocatable if _is_accelerator(name)}
        for resource in sorted(resources):
            free = [node.free(resource) for node in devices.nodes]
            total = sum(node.allocatable[resource] for node in devices.nodes)
            largest = max(free, default=0)
            text = f"{resource}: {sum(free)} of {total} free on {sum(map(bool, free))} nodes"
            most = max((m.devices for m in self._manifests if m.resource == resource), default=0)
            biggest = max((node.allocatable[resource] for node in devices.nodes), default=0)
            if most > biggest:
                yield Finding(
                    Level.FAIL,
                    "devices",
                    f"{text}; the largest point takes {most} on one node, the largest node has {biggest}",
                    "is the device plug-in installed? kubectl describe nodes | grep -A8 Allocatable",
                )
            elif most > largest:
                yield Finding(Level.WARN, "devices", f"{text}; the largest point ({most}) will wait for its turn")
            else:
                yield Finding(Level.OK, "devices", text)
        for selector in {tuple(sorted((m.body["spec"].get("nodeSelector") or {}).items())) for m in self._manifests}:
            labels = ", ".join(f"{name}={value}" for name, value in selector)
            if labels and not any(set(selector) <= node.labels.items() for node in devices.nodes):
                keys = ",".join(name for name, _ in selector)
                remedy = f"mend accelerator.product or pod.nodeSelector by: kubectl get nodes -L {keys}"
                yield Finding(Level.FAIL, "devices", f"no node has {labels}", remedy)
        if not resources:
            yield Finding(
                Level.FAIL,
                "devices",
                "no node advertises an accelerator",
                "install the vendor's device plug-in (for NVIDIA: the GPU operator), then: kubectl describe nodes",
            )

    async def _quota(self) -> AsyncIterator[Finding]:
        for quota in await self._items(f"{self._base}/resourcequotas") or []:
            status = quota.get("status") or {}
            for name, hard in (status.get("hard") or {}).items():
                if not _is_accelerator(name):
                    continue
                used = _count((status.get("used") or {}).get(name))
                resource = name.removeprefix("requests.")
                most = max((m.devices for m in self._manifests if m.resource == resource), default=0)
                text = f"{quota['metadata']['name']}: {used} of {hard} {name} used"
                if most > _count(hard):
                    remedy = f"{self._kubectl} edit resourcequota {quota['metadata']['name']}"
                    yield Finding(Level.FAIL, "quota", f"{text}; the largest point takes {most}", remedy)
                else:
                    yield Finding(Level.OK, "quota", text)

    async def _needed_objects(self) -> AsyncIterator[Finding]:
        for kind, name in sorted(set(references(self._manifests))):
            try:
                await self._transport.call("GET", f"{self._base}/{kind}/{name}", accept=METADATA_ONLY)
            except ApiError as error:
                if error.code != 404:
                    yield Finding(Level.WARN, kind, error.message)
                    continue
                remedy = (
                    secret_command(self._namespace, name, self._manifests)
                    if kind == "secrets"
                    else f"create a PersistentVolumeClaim {name} in {self._namespace}"
                )
                yield Finding(Level.FAIL, kind, f"{name} is not there", remedy)
            else:
                yield Finding(Level.OK, kind, f"{name} is there")

    async def _images(self) -> AsyncIterator[Finding]:
        images = {str(container["image"]) for m in self._manifests for container in m.body["spec"]["containers"]}
        nodes = await self._items("/api/v1/nodes") if images else None
        for image in sorted(images):
            where = [node for node in nodes or [] if _has_image(node, image)]
            if where:
                yield Finding(Level.OK, "image", f"{image}: on {len(where)} of {len(nodes or [])} nodes")
            else:
                text = "on no node" if nodes is not None else "not known whether a node has it"
                rest = "whether it can be pulled is not checked, and the first start takes longer"
                yield Finding(Level.WARN, "image", f"{image}: {text}; {rest}")

    async def _kueue(self) -> AsyncIterator[Finding]:
        queues = sorted({manifest.queue.name for manifest in self._manifests if manifest.queue is not None})
        for queue in queues:
            found = await local_queue(self._transport, self._namespace, queue)
            if found is None:
                yield Finding(Level.WARN, "Kueue", f"no right to look whether LocalQueue {queue} is there")
            elif found:
                yield Finding(Level.OK, "Kueue", f"LocalQueue {queue} is there")
            else:
                text = f"there is no LocalQueue {queue} in {self._namespace}"
                yield Finding(Level.FAIL, "Kueue", text, f"{self._kubectl} get localqueues")
        if not queues and await installed_version(self._transport) is not None:
            text = "installed, but the matrix names no queue: its pods pass Kueue by"
            yield Finding(Level.WARN, "Kueue", text, "set `kueue: {queueName: ...}` in the matrix")

    async def _dry_run(self) -> AsyncIterator[Finding]:
        waiting = 0
        refusals: dict[str, list[str]] = {}
        for manifest in self._manifests:
            try:
                await dry_run(self._transport, self._namespace, manifest)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    continue
                if "exceeded quota" in error.message:
                    waiting += 1
                    continue
                if error.code == 404:
                    return  # there is no such namespace, which was told
                words = error.message.replace(manifest.name, "POD")
                refusals.setdefault(words, []).append(manifest.labels.get(POINT_ID_LABEL, manifest.name))
        for words, points in refusals.items():
            which = points[0] if len(points) == 1 else f"{len(points)} of {len(self._manifests)} points"
            remedy = "see the access finding" if "cannot create resource" in words else "mend `pod:` of the matrix"
            yield Finding(Level.FAIL, "pods", f"{which}: {words}", remedy)
        if waiting:
            text = f"{waiting} of {len(self._manifests)} must wait for the quota"
            yield Finding(Level.WARN, "pods", text, f"{self._kubectl} get resourcequota")
        elif self._manifests and not refusals:
            yield Finding(Level.OK, "pods", f"the API server accepts all {len(self._manifests)} pods")

    async def _items(self, path: str) -> list[dict[str, Any]] | None:
        try:
            return [item async for item in items(self._transport, path)]
        except ApiError:
            return None


def _is_accelerator(name: str) -> bool:
    return any(part in name for part in _ACCELERATORS)


def _count(text: object) -> int:
    return int(str(text)) if str(text).isdigit() else 0


def _has_image(node: dict[str, Any], image: str) -> bool:
    names = [name for held in (node.get("status") or {}).get("images") or [] for name in held.get("names") or []]
    return any(name == image or name.endswith("/" + image) for name in names)
