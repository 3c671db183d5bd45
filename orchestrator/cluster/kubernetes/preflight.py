"""What would stop every point, found before anything is created; and what a refused pod means."""

import asyncio
import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.cluster.job import job_of
from orchestrator.cluster.kubernetes.kueue import GROUP, local_queue
from orchestrator.cluster.kubernetes.transport import ApiError, Transport
from orchestrator.cluster.port import POINT_ID_LABEL, PodManifest, PodRejectedError
from orchestrator.errors import ClusterError, KprofError, UsageError

# Of a refusal that concerns every pod; what else is forbidden is forbidden to this one: by a LimitRange, an image
# policy, a service account or a priority class that is not there, the level of pod security.
_NO_ACCESS = ("cannot create resource", "being terminated")
# exceeded quota: q, requested: requests.nvidia.com/gpu=2, used: ...=4, limited: requests.nvidia.com/gpu=5
_QUOTA = re.compile(r"requested: [\w./-]+=(\d{1,9})\b.{0,400}limited: [\w./-]+=(\d{1,9})\b")
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that an account may do, in the namespace unless `cluster_wide`."""

    group: str
    resource: str
    subresource: str
    verb: str
    cluster_wide: bool = False

    @property
    def name(self) -> str:
        """Return the resource with its subresource, as RBAC rules write it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


_ALL = ("create", "get", "list", "watch", "delete")
# What a sweep cannot do without; docs/rbac.md says what for.
NEEDED_RIGHTS = (
    *(Right("", "pods", "", verb) for verb in _ALL),
    Right("", "pods", "log", "get"),
    Right("", "pods", "proxy", "get"),
    Right("", "pods", "proxy", "create"),
    *(Right("", "configmaps", "", verb) for verb in ("create", "get", "delete")),
    *(Right("coordination.k8s.io", "leases", "", verb) for verb in ("create", "get", "update", "delete")),
)
# What the Role gives beyond that, with what a sweep lacks without it.
HELPFUL_RIGHTS: tuple[tuple[Right, str], ...] = (
    (Right("", "events", "", "list"), "a node that an autoscaler is adding is not told from one that never comes"),
    (Right("", "configmaps", "", "list"), "`kprof clean` cannot find old anchors"),
    (Right("coordination.k8s.io", "leases", "", "list"), "what killed kprofs left is not cleared at the start"),
)
# What it needs more where Kueue starts its points, and what helps there.
QUEUE_RIGHTS = tuple(Right("batch", "jobs", "", verb) for verb in _ALL)
HELPFUL_QUEUE_RIGHTS: tuple[tuple[Right, str], ...] = (
    (Right(GROUP, "localqueues", "", "get"), "a missing queue is found only by waiting for it"),
    (Right(GROUP, "workloads", "", "list"), "Kueue's reason for waiting is not shown"),
)
PREFLIGHT_OUTAGE_SECONDS = 8.0


async def preflight(transport: Transport, namespace: str, manifests: Sequence[PodManifest]) -> None:
    """Check access, namespace, secrets, claims and every pod by a server-side dry run.

    Raises ClusterError (access, namespace, secret, claim) or UsageError (a pod the server calls invalid).
    """
    quick = transport.with_outage(PREFLIGHT_OUTAGE_SECONDS)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    try:
        await quick.call("GET", pods, {"limit": "1"})
    except ApiError as error:
        raise _denied(error, f"listing pods in {namespace}") from error
    for right in needed_rights(manifests):
        if not await is_allowed(quick, namespace, right):
            raise ClusterError(
                f"no right to {right.verb} {right.name} in namespace {namespace}",
                remedy="`kprof doctor` prints the command that grants it; docs/rbac.md lists what kprof needs",
            )
    # The pool of connections bounds how many are under way; of several refused pods the first one is told.
    tried = (_try_out(quick, namespace, manifest) for manifest in manifests)
    for failure in await asyncio.gather(*tried, return_exceptions=True):
        if failure is not None:
            raise failure
    for kind, name in sorted(set(references(manifests))):
        await _must_exist(quick, namespace, kind, name, manifests)
    for queue in sorted({manifest.queue.name for manifest in manifests if manifest.queue is not None}):
        found = await local_queue(quick, namespace, queue)
        if found is not None and not found:
            raise ClusterError(
                f"Kueue has no LocalQueue {queue} in namespace {namespace}",
                remedy=f"name one under `kueue.queueName` of: kubectl -n {namespace} get localqueues",
            )


async def _try_out(quick: Transport, namespace: str, manifest: PodManifest) -> None:
    try:
        await dry_run(quick, namespace, manifest)
    except ApiError as error:
        if error.reason == "AlreadyExists":
            return  # adopted later
        if "exceeded quota" in error.message:
            if not _beyond_quota(error.message):
                return  # waits for its turn
            point = manifest.labels.get(POINT_ID_LABEL, manifest.name)
            remedy = "raise the namespace's quota, or leave the point out with --only"
            raise ClusterError(f"{point}: {error.message}", remedy=remedy) from error
        if error.code == 404:
            raise ClusterError(
                f"namespace {namespace} does not exist", remedy=f"kubectl create namespace {namespace}"
            ) from error
        refused = rejection(error, manifest)
        if isinstance(refused, PodRejectedError):
            point = manifest.labels.get(POINT_ID_LABEL, manifest.name)
            raise UsageError(f"{point}: {refused.message}", remedy="mend `pod:` of the matrix") from error
        raise refused from error


def needed_rights(manifests: Sequence[PodManifest]) -> tuple[Right, ...]:
    """Return what a sweep of these pods cannot do without."""
    queued = any(manifest.queue is not None for manifest in manifests)
    return (*NEEDED_RIGHTS, *QUEUE_RIGHTS) if queued else NEEDED_RIGHTS


async def dry_run(transport: Transport, namespace: str, manifest: PodManifest) -> None:
    """Let the API server judge a pod, and its Job where it has a queue, without keeping it; raises ApiError."""
    only = {"dryRun": "All"}
    await transport.call("POST", f"/api/v1/namespaces/{namespace}/pods", only, copy.deepcopy(dict(manifest.body)))
    if manifest.queue is not None:
        await transport.call("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", only, job_of(manifest))


async def is_allowed(transport: Transport, namespace: str, right: Right) -> bool:
    """Ask the API server whether this account has a right; True where it does not answer such questions."""
    attributes = {"group": right.group, "resource": right.resource, "verb": right.verb}
    if not right.cluster_wide:
        attributes["namespace"] = namespace
    if right.subresource:
        attributes["subresource"] = right.subresource
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await transport.call("POST", REVIEWS, body=review)
    except ApiError:
        return True  # a server that does not answer reviews will refuse the call itself
    return bool((answer.get("status") or {}).get("allowed"))


def references(manifests: Sequence[PodManifest]) -> Iterator[tuple[str, str]]:
    """Yield kind and name of every object of the namespace that the pods need."""
    for manifest in manifests:
        for name, _ in _secret_keys(manifest):
            yield "secrets", name
        for volume in manifest.body["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                yield "persistentvolumeclaims", str(claim["claimName"])


def secret_command(namespace: str, secret: str, manifests: Sequence[PodManifest]) -> str:
    """Return the command that makes a Secret with every key that the pods read of it."""
    keys = sorted({key for manifest in manifests for name, key in _secret_keys(manifest) if name == secret})
    files = " ".join(f"--from-file={key}=FILE" for key in keys)
    return f"kubectl -n {namespace} create secret generic {secret} {files}"


def _secret_keys(manifest: PodManifest) -> Iterator[tuple[str, str]]:
    for entry in manifest.body["spec"]["containers"][0]["env"]:
        if secret := (entry.get("valueFrom") or {}).get("secretKeyRef"):
            yield str(secret["name"]), str(secret["key"])


async def _must_exist(
    transport: Transport, namespace: str, kind: str, name: str, manifests: Sequence[PodManifest]
) -> None:
    """Ask for the object's metadata alone, never for its content; without the right to ask, the pod will tell."""
    try:
        await transport.call("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}", accept=METADATA_ONLY)
    except ApiError as error:
        if error.code == 403:
            return
        if error.code == 404 and kind == "secrets":
            raise ClusterError(
                f"secret {name} not found in namespace {namespace}",
                remedy=secret_command(namespace, name, manifests),
            ) from error
        if error.code == 404:
            raise ClusterError(
                f"claim {name} not found in namespace {namespace}", remedy="create the PersistentVolumeClaim first"
            ) from error
        raise _denied(error, f"reading {kind} {name}") from error


def _denied(error: ApiError, what: str) -> ClusterError:
    remedy = "check the context's rights; docs/rbac.md lists what kprof needs"
    return ClusterError(f"{what}: {error.message or error.reason}", remedy=remedy)


def _beyond_quota(text: str) -> bool:
    """Say whether the request alone is over the quota: then waiting cannot help."""
    found = _QUOTA.search(text)
    return found is not None and int(found.group(1)) > int(found.group(2))


def rejection(error: ApiError, manifest: PodManifest) -> KprofError:
    """Say what a refused create means: a verdict on this pod, or no access at all."""
    text = error.message
    if "exceeded quota" in text or "failed quota" in text:
        # A failed quota wants something of the pod that it does not say, which no waiting brings.
        return PodRejectedError("pod.quota", text, waits="exceeded quota" in text and not _beyond_quota(text))
    if (error.reason == "Forbidden" and not any(words in text for words in _NO_ACCESS)) or "admission webhook" in text:
        return PodRejectedError("pod.admission", text)
    if error.code in {400, 422}:
        return PodRejectedError("pod.config", text)
    if error.code in {401, 403}:
        return _denied(error, f"creating pod {manifest.name}")
    return ClusterError(f"creating pod {manifest.name}: {text or error.reason}", remedy="run the same command again")
