"""A queue of Kueue for one test, and the priorities that its Jobs may have."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bed.kueue import GONE_S, GROUP, READY_S, apply
from tests.e2e.kube import GPU, Kube, Object
from tests.e2e.waiting import wait_until

API_VERSION = f"{GROUP}/v1beta2"


@dataclass(frozen=True)
class Queue:
    """A LocalQueue, and the ClusterQueue and the flavor behind it; all have the same name."""

    kube: Kube
    name: str
    namespace: str

    def patch(self, spec: Mapping[str, object]) -> None:
        """Change the ClusterQueue's spec, as an administrator does: {"stopPolicy": "HoldAndDrain"}."""
        change = json.dumps({"spec": spec})
        self.kube.call("patch", f"clusterqueues.{GROUP}", self.name, "--type=merge", "--patch", change)

    def workload(self, job_uid: str) -> Object | None:
        """Return the Workload of one Job, or None while Kueue has made none."""
        where = ["--namespace", self.namespace, "--selector", f"{GROUP}/job-uid={job_uid}"]
        found = self.kube.items(f"workloads.{GROUP}", *where)
        return found[0] if found else None


@contextlib.contextmanager
def queue(kube: Kube, namespace: str, *, gpus: int) -> Iterator[Queue]:
    """Make a queue with so many GPUs and much of all else, in which a higher priority evicts a lower one."""
    made = Queue(kube, f"kprof-test-{secrets.token_hex(4)}", namespace)
    try:
        apply(kube, *_objects(made, gpus))
        wait_until("the queue is active", lambda: _active(made), seconds=READY_S)
        yield made
    finally:
        gone = f"--timeout={GONE_S:.0f}s"
        # Kueue holds a Workload while its Job is there, and a queue while a Workload uses it.
        for kind in ("jobs", f"workloads.{GROUP}", f"localqueues.{GROUP}"):
            kube.call("delete", kind, "--namespace", namespace, "--all", gone)
        for kind in (f"clusterqueues.{GROUP}", f"resourceflavors.{GROUP}"):
            kube.call("delete", kind, made.name, "--ignore-not-found", gone)


@contextlib.contextmanager
def priority(kube: Kube, value: int) -> Iterator[str]:
    """Make a WorkloadPriorityClass and return its name."""
    name = f"kprof-test-{secrets.token_hex(4)}"
    apply(
        kube, {"apiVersion": API_VERSION, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
    )
    try:
        yield name
    finally:
        kube.call("delete", f"workloadpriorityclasses.{GROUP}", name)


def _objects(made: Queue, gpus: int) -> list[Object]:
    quotas = {"cpu": "100", "memory": "1000Gi", GPU: str(gpus)}
    resources = [{"name": name, "nominalQuota": value} for name, value in quotas.items()]
    spec = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [
            {"coveredResources": list(quotas), "flavors": [{"name": made.name, "resources": resources}]}
        ],
    }
    here = {"name": made.name, "namespace": made.namespace}
    return [
        {"apiVersion": API_VERSION, "kind": "ResourceFlavor", "metadata": {"name": made.name}},
        {"apiVersion": API_VERSION, "kind": "ClusterQueue", "metadata": {"name": made.name}, "spec": spec},
        {"apiVersion": API_VERSION, "kind": "LocalQueue", "metadata": here, "spec": {"clusterQueue": made.name}},
    ]


def _active(made: Queue) -> bool:
    where = ["--namespace", made.namespace, "--field-selector", f"metadata.name={made.name}"]
    found = made.kube.items(f"localqueues.{GROUP}", *where)
    conditions = [item for each in found for item in each.get("status", {}).get("conditions", [])]
    return any(item["type"] == "Active" and item["status"] == "True" for item in conditions)
