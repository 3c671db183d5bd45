"""A pod that does not go, is restarted, is not kprof's, or reaches its deadline; and nobody there to look after it."""

import json
import signal
import time

import pytest

from tests.bed.layout import PAUSE_IMAGE
from tests.bedfaults.command import GONE_GRACE, ShortKprof, group, matrix, wait_for_words
from tests.bedfaults.nodes import PretendNode
from tests.e2e import stored
from tests.e2e.kube import Kube
from tests.e2e.sampler import gpus_of
from tests.e2e.waiting import wait_until

GONE_SECONDS = 5.0
FINALIZER = "kprof.test/hold"
LIMITS = {"startupSeconds": 15, "probeSeconds": 15}
MARGIN_SECONDS = 60  # to record and delete; more only where a start-up takes longer than a minute
LEAK_SECONDS = 60.0


def only_pod(kube: Kube, namespace: str) -> str:
    """Return the name of the one pod."""
    (pod,) = kube.items("pods", "-n", namespace, "--selector", "kprof.io/run")
    return str(pod["metadata"]["name"])


@pytest.mark.fault(28, "W")
def test_fault_28_a_finalizer_holds_the_pod(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Tries a point again under a new name when its old pod is held, and names the pod that stays."""
    kprof.limits = {GONE_GRACE: GONE_SECONDS}
    path = matrix(kprof.folder, group("point"), speed=2)
    running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
    wait_for_words(running, "loading weights")
    pod = only_pod(kube, namespace)
    hold = {"metadata": {"finalizers": [FINALIZER]}}
    kube.call("patch", "pod", pod, "-n", namespace, "--type=merge", "-p", json.dumps(hold))
    try:
        kube.call("delete", "pod", pod, "-n", namespace, "--wait=false")
        outcome = running.outcome(180)
        there = kube.items("pods", "-n", namespace)
    finally:
        free = {"metadata": {"finalizers": None}}
        kube.call("patch", "pod", pod, "-n", namespace, "--type=merge", "-p", json.dumps(free))
    assert outcome.code == 0, outcome.stderr
    (result,) = stored.results(kprof.store)
    assert (result.attempt, kprof.kinds()) == (1, {"point": None})
    assert [item["metadata"]["name"] for item in there] == [pod]
    assert pod in outcome.stderr, "nobody was told of the pod that stays"


@pytest.mark.fault(29, "P(interrupted)")
def test_fault_29_a_container_is_restarted(node: PretendNode, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Measures nothing on a container that is not the one it began with: the point fails as interrupted."""
    kprof.limits = {GONE_GRACE: GONE_SECONDS}
    pod = {"imagePullPolicy": "Never", "nodeSelector": node.selector}
    path = matrix(kprof.folder, group("point", pod=pod))
    running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
    name = node.bound(namespace)
    node.run(namespace, name)
    wait_for_words(running, "starting")
    node.run(namespace, name, restarts=1)
    outcome = running.outcome(120)
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"point": "interrupted"}


@pytest.mark.fault(30, "R")
def test_fault_30_the_name_is_taken(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Leaves a pod alone that has the name it wants and is not its own, and takes the next attempt's name."""
    path = matrix(kprof.folder, group("point"), speed=2)
    arguments = ("sweep", path, "--format", "json", "-n", namespace)
    first = kprof.start(*arguments)
    wait_for_words(first, "starting")
    first.signal(signal.SIGKILL)
    first.process.wait()
    name = only_pod(kube, namespace)
    kube.call("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")
    container = {"name": "pause", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    foreign = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    kube.call("create", "-n", namespace, "-f", "-", stdin=json.dumps(foreign))
    uid = kube.call("get", "pod", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    outcome = kprof.run(*arguments)
    assert outcome.code == 0, outcome.stderr
    assert kprof.kinds() == {"point": None}
    assert kube.call("get", "pod", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}") == uid
    assert kube.left(namespace) == []


@pytest.mark.fault(45, "P(pod.deadline)")
def test_fault_45_the_deadline_of_the_pod(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Fails the point with the kubelet's word when the pod's own deadline ends it."""
    path = matrix(kprof.folder, group("point"), speed=2)
    running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
    wait_for_words(running, "loading weights")
    sooner = {"spec": {"activeDeadlineSeconds": 1}}
    kube.call("patch", "pod", only_pod(kube, namespace), "-n", namespace, "--type=merge", "-p", json.dumps(sooner))
    outcome = running.outcome(100)
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"point": "pod.deadline"}
    failure = kprof.run("show", "point", "--format", "json").json()["failure"]
    assert "DeadlineExceeded" in failure["line"]
    assert kube.left(namespace) == []


@pytest.mark.fault(33, "R")
def test_fault_33_nobody_looks_after_the_pods(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Leaves no GPU held for ever: without any kprof, each pod ends a minute after its deadline at the latest."""
    groups = [group(f"point-{n}", arguments={"max-model-len": 1000 + n}) for n in range(4)]
    path = matrix(kprof.folder, *groups, speed=2, timeouts=LIMITS)
    running = kprof.start("sweep", path, "-n", namespace)

    def all_run() -> bool:
        pods = kube.items("pods", "-n", namespace)
        return len(pods) == len(groups) and all(pod["status"].get("phase") == "Running" for pod in pods)

    wait_until("every point runs", all_run, seconds=60)
    running.signal(signal.SIGKILL)
    running.process.wait()
    begin = time.monotonic()
    pods = kube.items("pods", "-n", namespace)
    held = sum(gpus_of(pod) for pod in pods)
    deadline = max(int(pod["spec"]["activeDeadlineSeconds"]) for pod in pods)
    assert held == len(groups)
    assert deadline <= 2 * LIMITS["startupSeconds"] + LIMITS["probeSeconds"] + MARGIN_SECONDS

    def free() -> bool:
        phases = {pod["status"].get("phase") for pod in kube.items("pods", "-n", namespace)}
        return phases <= {"Failed", "Succeeded"}

    wait_until("no pod holds a GPU", free, seconds=deadline + LEAK_SECONDS, every=0.5)
    print(f"\n{held} GPUs free again {time.monotonic() - begin:.1f} s after the kill; the deadline was {deadline} s")
