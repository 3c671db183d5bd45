"""A node that is only an object: no kubelet, no heartbeat; tests speak for its kubelet where it must say something."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from tests.bed.layout import BED_IP
from tests.e2e.kube import GPU, Kube, Object
from tests.e2e.waiting import wait_until

NOBODY_LISTENS = 1
PLACE = "kprof.test/place"
SILENT_SECONDS = 90.0


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def status(kube: Kube, kind: str, name: str, change: Object, *where: str) -> None:
    """Write a part of an object's status."""
    kube.call("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", json.dumps({"status": change}))


def real_node(kube: Kube) -> str:
    """Return the name of the node that has a kubelet."""
    (name,) = [item["metadata"]["name"] for item in kube.items("nodes") if PLACE not in item["metadata"]["labels"]]
    return str(name)


@dataclass(frozen=True)
class PretendNode:
    """A node with one GPU; pods whose matrix has the selector go there."""

    kube: Kube
    name: str

    @classmethod
    @contextlib.contextmanager
    def made(cls, kube: Kube) -> Iterator[Self]:
        """Make the node and take it away again, with what is bound to it and its label on the real one."""
        name = f"pretend-{secrets.token_hex(3)}"
        real = real_node(kube)
        amounts = {"cpu": "8", "memory": "16Gi", "pods": "10", "ephemeral-storage": "10Gi", GPU: "1"}
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "said by a test"}
        stamps = {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {PLACE: name}},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [condition | stamps],
                "addresses": [{"type": "InternalIP", "address": BED_IP}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": NOBODY_LISTENS}},
            },
        }
        kube.call("create", "-f", "-", stdin=json.dumps(body))
        try:
            wait_until("the node may be used", lambda: not cls(kube, name).object()["spec"].get("taints"), seconds=30)
            yield cls(kube, name)
        finally:
            kube.call("delete", "node", name, "--ignore-not-found", "--wait=false")
            kube.call("label", "node", real, f"{PLACE}-")

    @property
    def selector(self) -> dict[str, str]:
        """Return the nodeSelector that leads here."""
        return {PLACE: self.name}

    def object(self) -> Object:
        """Return the node."""
        found: Object = json.loads(self.kube.call("get", "node", self.name, "-o", "json"))
        return found

    def send_elsewhere(self) -> None:
        """Send the next pod with the selector to the real node, which gets the label; this one takes no more."""
        self.kube.call("cordon", self.name)
        self.kube.call("label", "node", real_node(self.kube), f"{PLACE}={self.name}")

    def wait_until_silent(self) -> None:
        """Wait until the cluster has noticed that nothing is heard of the node."""

        def unknown() -> bool:
            conditions = self.object()["status"]["conditions"]
            return any((item["type"], item["status"]) == ("Ready", "Unknown") for item in conditions)

        wait_until("the node counts as unreachable", unknown, seconds=SILENT_SECONDS, every=0.5)

    def bound(self, namespace: str) -> str:
        """Wait for kprof's pod to be placed here and return its name."""

        def placed() -> str | None:
            pods = self.kube.items("pods", "-n", namespace)
            names = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == self.name]
            return names[0] if names else None

        return wait_until("a pod is placed on the pretend node", placed, seconds=30)

    def run(self, namespace: str, pod: str, *, restarts: int = 0) -> None:
        """Say what a kubelet says of a pod whose container runs."""
        container = {
            "name": "vllm",
            "image": "said-by-a-test",
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": restarts,
            "state": {"running": {"startedAt": now()}},
        }
        change = {"phase": "Running", "containerStatuses": [container], "startTime": now()}
        status(self.kube, "pod", pod, change, "-n", namespace)
