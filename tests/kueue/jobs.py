"""Jobs of one GPU in a queue, as any user writes them, and what is seen of them."""

import json
from dataclasses import dataclass

from tests.bed.kueue import GROUP, apply
from tests.e2e.kube import GPU, IMAGE, Object
from tests.e2e.waiting import wait_until
from tests.kueue.queues import Queue

SECONDS = 60.0
END = "/tmp/end"
RUN = f"import os, time\nwhile not os.path.exists({END!r}): time.sleep(0.1)"


@dataclass(frozen=True)
class Job:
    """One Job, by its name."""

    queue: Queue
    name: str

    def get(self) -> Object:
        """Return the Job."""
        where = ["--namespace", self.queue.namespace]
        found: Object = json.loads(self.queue.kube.call("get", "job", self.name, *where, "-o", "json"))
        return found

    def suspended(self) -> bool:
        """Say whether the Job is to have no pod."""
        return bool(self.get()["spec"]["suspend"])

    def pods(self) -> list[Object]:
        """Return the Job's pods, those that are going included."""
        selector = f"batch.kubernetes.io/job-name={self.name}"
        return self.queue.kube.items("pods", "--namespace", self.queue.namespace, "--selector", selector)

    def runs(self) -> Object:
        """Return the Job's pod once it runs and no other is left."""
        return wait_until(f"the pod of {self.name} runs", self._running, seconds=SECONDS)

    def condition(self, kind: str) -> Object:
        """Return one condition of the Job's Workload, or an empty object where there is none."""
        workload = self.queue.workload(self.get()["metadata"]["uid"]) or {}
        conditions = workload.get("status", {}).get("conditions", [])
        return next((item for item in conditions if item["type"] == kind), {})

    def waits(self) -> Object:
        """Return the Workload's condition QuotaReserved once it says why the Job waits."""
        return wait_until(f"{self.name} waits in the queue", self._waiting, seconds=SECONDS)

    def end(self) -> None:
        """Let the Job's pod end well."""
        pod = self.runs()["metadata"]["name"]
        self.queue.kube.call(
            "exec", "--namespace", self.queue.namespace, pod, "--", "python3", "-c", f"open({END!r}, 'w')"
        )

    def _running(self) -> Object | None:
        pods = self.pods()
        return pods[0] if len(pods) == 1 and pods[0]["status"]["phase"] == "Running" else None

    def _waiting(self) -> Object | None:
        reserved = self.condition("QuotaReserved")
        return reserved if reserved.get("status") == "False" else None


def job(queue: Queue, name: str, *, priority: str | None = None) -> Job:
    """Create a suspended Job that runs until it is told to end; its pod goes at once when it is deleted."""
    labels = {f"{GROUP}/queue-name": queue.name}
    if priority is not None:
        labels[f"{GROUP}/priority-class"] = priority
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", RUN],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {GPU: "1"}},
    }
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    apply(
        queue.kube,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": queue.namespace, "labels": labels},
            "spec": {"suspend": True, "backoffLimit": 0, "template": {"spec": pod}},
        },
    )
    return Job(queue, name)
