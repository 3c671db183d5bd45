"""What the API server does with a request for objects: the verbs, deletion with its grace, owners and Jobs."""

import asyncio
import base64
import copy
import json
import secrets
from collections.abc import Callable

from tests.faults.calls import Call, Target
from tests.faults.kubelet import Kubelet
from tests.faults.objects import Key, Objects, complete, now
from tests.faults.statuses import Object, Refusal, already_exists, conflict, expired, not_found

KINDS = {
    "configmaps": "ConfigMap",
    "events": "Event",
    "jobs": "Job",
    "leases": "Lease",
    "limitranges": "LimitRange",
    "namespaces": "Namespace",
    "nodes": "Node",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "secrets": "Secret",
}
CLUSTER_WIDE = frozenset({"nodes", "namespaces"})
Admission = Callable[[Call, Object], None]


class Api:
    """Creates, reads, changes and deletes; `admission` may refuse a create by raising Refusal."""

    def __init__(self, objects: Objects, kubelet: Kubelet) -> None:
        self.objects = objects
        self.kubelet = kubelet
        self.admission: Admission = lambda _call, _item: None
        self._leaving: set[asyncio.Task[None]] = set()

    async def answer(self, call: Call, target: Target) -> tuple[int, Object]:
        """Return status and object; raises Refusal."""
        key = (target.resource, "" if target.resource in CLUSTER_WIDE else target.namespace, target.name)
        if call.method == "POST":
            return 201, self._create(call, target, key)
        if call.method == "GET":
            return 200, self.objects.get(key) if target.name else self._list(call, target, key)
        if call.method in {"PUT", "PATCH"}:
            change = self.objects.replace if call.method == "PUT" else self.objects.patch
            changed = change(key, call.json(), call.agent)
            self._after_change(key)
            return 200, changed
        if call.method == "DELETE":
            return 200, self._delete(key, call.json())
        raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def change(self, key: Key, changes: Object, agent: str = "test") -> Object:
        """Merge changes into an object, and let the controllers see to it."""
        changed = self.objects.patch(key, changes, agent)
        self._after_change(key)
        return changed

    def _create(self, call: Call, target: Target, key: Key) -> Object:
        if key[1] and not self.objects.has(("namespaces", "", key[1])):
            raise not_found("namespaces", key[1])
        item = call.json()
        metadata = item.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', 'x-')}{secrets.token_hex(3)[:5]}"
        key = (key[0], key[1], name)
        if self.objects.has(key):
            raise already_exists(key[0], name, deleting="deletionTimestamp" in self.objects.get(key)["metadata"])
        self.admission(call, item)
        if target.resource == "pods":
            item.setdefault("status", {"phase": "Pending"})
        if call.is_dry:
            return complete(key, item, call.agent)
        made = self.objects.add(key, item, call.agent)
        self._after_change(key)
        return made

    def _after_change(self, key: Key) -> None:
        if key[0] == "pods":
            metadata = self.objects.get(key)["metadata"]
            if metadata["uid"] not in self.kubelet.plays:
                self.kubelet.take(key)
            elif "deletionTimestamp" in metadata and not metadata.get("finalizers") and not self.kubelet.stuck:
                self._gone(key)
        elif key[0] == "jobs":
            self._start_job(key)
        self._collect()

    def _start_job(self, key: Key) -> None:
        """Make the Job's pod unless it has one; a Job that is suspended loses its pod."""
        job = self.objects.get(key)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": key[2], "uid": job["metadata"]["uid"]}
        owned = [pod for pod in self.objects.select("pods", key[1]) if owner["uid"] in _owners(pod)]
        if job["spec"].get("suspend"):
            for pod in owned:
                self._delete_pod(("pods", key[1], pod["metadata"]["name"]), None)
            return
        if owned:
            return
        template = copy.deepcopy(job["spec"]["template"])
        name = f"{key[2]}-{secrets.token_hex(3)[:5]}"
        labels = {
            "job-name": key[2],
            "batch.kubernetes.io/job-name": key[2],
            "batch.kubernetes.io/controller-uid": owner["uid"],
        }
        metadata = {"labels": (template["metadata"].get("labels") or {}) | labels}
        if "annotations" in template["metadata"]:
            metadata["annotations"] = template["metadata"]["annotations"]
        metadata["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        made = ("pods", key[1], name)
        self.objects.add(made, pod | {"status": {"phase": "Pending"}}, "job-controller")
        self._after_change(made)

    def _list(self, call: Call, target: Target, key: Key) -> Object:
        query = call.query
        asked = query.get("resourceVersion", "")
        if asked.isdigit() and 0 < int(asked) < self.objects.oldest:
            raise expired(int(asked), self.objects.oldest)
        items = self.objects.select(key[0], key[1], query.get("labelSelector", ""), query.get("fieldSelector", ""))
        begin, metadata = 0, {"resourceVersion": str(self.objects.version)}
        if token := query.get("continue"):
            begin, version = json.loads(base64.urlsafe_b64decode(token))
            if version < self.objects.oldest:
                raise Refusal(410, "Expired", "The provided continue parameter is too old to display a consistent list")
        limit = int(query.get("limit") or 0)
        page = items[begin : begin + limit] if limit else items[begin:]
        if limit and begin + limit < len(items):
            following = json.dumps([begin + limit, self.objects.version]).encode()
            metadata["continue"] = base64.urlsafe_b64encode(following).decode()
            metadata["remainingItemCount"] = str(len(items) - begin - limit)
        kind = KINDS.get(key[0], key[0].capitalize())
        return {"kind": f"{kind}List", "apiVersion": _api_version(target), "metadata": metadata, "items": page}

    def _delete(self, key: Key, options: Object) -> Object:
        item = self.objects.get(key)
        metadata = item["metadata"]
        for name in ("uid", "resourceVersion"):
            wanted = (options.get("preconditions") or {}).get(name)
            if wanted not in {None, metadata[name]}:
                label = "UID" if name == "uid" else name
                words = f"the {label} in the precondition ({wanted}) does not match the {label} in record"
                raise conflict(key[0], key[2], f"Precondition failed: {label}: {words}")
        if key[0] == "pods":
            return self._delete_pod(key, options.get("gracePeriodSeconds"))
        removed = self.objects.remove(key)
        self._collect()
        return removed

    def _delete_pod(self, key: Key, grace_seconds: int | None) -> Object:
        """Mark a pod that a kubelet has; take away one that never was on a node, or ended."""
        pod = self.objects.get(key)
        metadata, ended = pod["metadata"], pod["status"].get("phase") in {"Succeeded", "Failed"}
        placed = bool(pod["spec"].get("nodeName")) and not ended
        if "deletionTimestamp" not in metadata:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
            metadata |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace if placed else 0}
            pod = self.objects.patch(key, {})
        if not metadata.get("finalizers") and not (self.kubelet.stuck and placed):
            self._gone(key)
        return pod

    def _gone(self, key: Key) -> None:
        uid = self.objects.get(key)["metadata"]["uid"]

        async def leave() -> None:
            await self.kubelet.end(uid)
            if self.objects.has(key) and self.objects.get(key)["metadata"]["uid"] == uid:
                self.objects.remove(key)

        task = asyncio.create_task(leave(), name=f"end of {key[2]}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _collect(self) -> None:
        """Delete what has lost every owner, as the garbage collector does."""
        alive = {self.objects.get(key)["metadata"]["uid"] for key in self.objects.names()}
        for key in self.objects.names():
            owners = _owners(self.objects.get(key)) if self.objects.has(key) else set()
            if owners and not owners & alive:
                if key[0] == "pods":
                    self._delete_pod(key, None)
                else:
                    self.objects.remove(key)


def _owners(item: Object) -> set[str]:
    return {owner["uid"] for owner in item["metadata"].get("ownerReferences") or []}


def _api_version(target: Target) -> str:
    return target.version
