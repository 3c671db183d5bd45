"""Pods of somebody else that hold GPUs."""

import contextlib
import json
from collections.abc import Iterator

from tests.bed.layout import PAUSE_IMAGE
from tests.e2e.kube import GPU, Kube
from tests.e2e.waiting import wait_until

RUNS_SECONDS = 90.0


def start_filler(kube: Kube, namespace: str, gpus: int, *, name: str = "filler", **spec: object) -> None:
    """Start a pod that holds GPUs and does nothing."""
    resources = {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus)}}
    container = {"name": "pause", "image": PAUSE_IMAGE, "imagePullPolicy": "Never", "resources": resources}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never", **spec},
    }
    kube.call("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))


def wait_until_it_runs(kube: Kube, namespace: str, name: str = "filler") -> None:
    """Wait until the pod holds its GPUs."""

    def runs() -> bool:
        return kube.call("get", "pod", name, "-n", namespace, "-o", "jsonpath={.status.phase}") == "Running"

    wait_until(f"{name} runs", runs, seconds=RUNS_SECONDS)


@contextlib.contextmanager
def filler(kube: Kube, namespace: str, gpus: int) -> Iterator[None]:
    """Hold GPUs for the block."""
    start_filler(kube, namespace, gpus)
    try:
        wait_until_it_runs(kube, namespace)
        yield
    finally:
        kube.call("delete", "pod", "filler", "-n", namespace, "--grace-period=0", "--force")
