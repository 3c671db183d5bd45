"""From a pod to the suspended Job around it, which Kueue admits when its queue has room."""

import copy
from typing import Any

from orchestrator.cluster.port import PodManifest

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"


def job_of(manifest: PodManifest) -> dict[str, Any]:
    """Return the Job of a pod that has a queue: one attempt, never retried by the Job itself."""
    if manifest.queue is None:
        raise ValueError(f"{manifest.name} has no queue")
    pod = copy.deepcopy(dict(manifest.body))
    labels = {**pod["metadata"]["labels"], QUEUE_LABEL: manifest.queue.name}
    if manifest.queue.priority_class is not None:
        labels[PRIORITY_LABEL] = manifest.queue.priority_class
    template = {"labels": pod["metadata"]["labels"]}
    if annotations := pod["metadata"].get("annotations"):
        template["annotations"] = annotations
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": manifest.name, "labels": labels},
        "spec": {
            "suspend": True,
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            # A pod that is still leaving holds its devices: no other one may be made beside it.
            "podReplacementPolicy": "Failed",
            "template": {"metadata": template, "spec": pod["spec"]},
        },
    }


def object_of(manifest: PodManifest) -> dict[str, Any]:
    """Return what is created for a pod: the pod itself, or the Job around it where it has a queue."""
    return copy.deepcopy(dict(manifest.body)) if manifest.queue is None else job_of(manifest)
