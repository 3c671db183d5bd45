"""Nodes that fall silent, vanish, or lose their GPUs while a point is on them."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.bed.control import Control
from tests.bed.node import GPU
from tests.bedfaults.command import GONE_GRACE, NODE_LOST, ShortKprof, group, matrix, stages, wait_for_words
from tests.bedfaults.nodes import PretendNode, real_node, status
from tests.e2e import stored
from tests.e2e.command import Running
from tests.e2e.kube import Kube, Object
from tests.e2e.waiting import wait_until

AWAY_SECONDS = 60.0
LOST_SECONDS = 10.0
GONE_SECONDS = 5.0
NO_GPU_SECONDS = 20.0
PODGC_SECONDS = 150.0


def one(kprof: ShortKprof, *, speed: float = 200, **fields: object) -> str:
    """Write a matrix of one point."""
    return matrix(kprof.folder, group("point", **fields), speed=speed)


def on(node: PretendNode) -> Object:
    """Return the pod overlay that leads to a pretend node."""
    return {"nodeSelector": node.selector, "imagePullPolicy": "Never"}


def wait_for_attempts(kprof: ShortKprof, running: Running, number: int, seconds: float) -> None:
    """Wait until so many pods were asked for."""

    def asked() -> bool:
        assert running.process.poll() is None, f"the sweep ended with {kprof.kinds()}"
        return kprof.attempts() >= number

    wait_until(f"{number} pods were asked for", asked, seconds=seconds)


def check_second_attempt_ready(kprof: ShortKprof, running: Running, seconds: float = 120) -> None:
    """Check that the point was run twice by the same command, and was ready at last."""
    outcome = running.outcome(seconds)
    assert outcome.code == 0, outcome.stderr
    (result,) = stored.results(kprof.store)
    assert (result.attempt, kprof.kinds()) == (1, {"point": None})


@pytest.mark.fault(9, "W")
def test_fault_09_a_kubelet_is_away_for_a_minute(
    control: Control, kube: Kube, namespace: str, kprof: ShortKprof
) -> None:
    """Waits for the kubelet: the point that ran meanwhile is read to its end, and no second pod is made."""
    running = kprof.start("sweep", one(kprof, speed=0.9), "--format", "json", "-n", namespace)
    wait_for_words(running, "loading weights")
    with control.stopped("kubelet"):
        time.sleep(AWAY_SECONDS)
        assert stages(running)["point"] != "deleting pod"
    outcome = running.outcome(150)
    assert outcome.code == 0, outcome.stderr
    assert (kprof.kinds(), kprof.attempts()) == ({"point": None}, 1)
    assert kube.left(namespace) == []


@pytest.mark.fault(9, "P(pod.node_lost)")
def test_fault_09_a_kubelet_stays_away(control: Control, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Gives the pod up when its node's log was refused for too long, and tries the point once more."""
    kprof.limits = {NODE_LOST: LOST_SECONDS}
    running = kprof.start("sweep", one(kprof, speed=0.9), "--format", "json", "-n", namespace)
    wait_for_words(running, "loading weights")
    with control.stopped("kubelet"):
        wait_for_words(running, "deleting pod", seconds=90)
    check_second_attempt_ready(kprof, running)
    assert kube.left(namespace) == []


@pytest.mark.fault(10, "P(pod.node_lost)")
def test_fault_10_a_node_without_heartbeat(node: PretendNode, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Does not believe a pod that says Running on a node of which nothing is heard, and runs the point elsewhere."""
    kprof.limits = {NODE_LOST: LOST_SECONDS, GONE_GRACE: GONE_SECONDS}
    running = kprof.start("sweep", one(kprof, pod=on(node)), "--format", "json", "-n", namespace)
    pod = node.bound(namespace)
    node.run(namespace, pod)
    node.wait_until_silent()
    node.send_elsewhere()
    check_second_attempt_ready(kprof, running)
    left = json.loads(kube.call("get", "pod", pod, "-n", namespace, "-o", "json"))
    assert left["status"]["phase"] == "Running", "the cluster itself had noticed: this proves nothing"


@pytest.mark.fault(11, "P(pod.node_lost)")
def test_fault_11_a_node_is_deleted(node: PretendNode, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Takes a pod that the cluster removed with its node for lost, and runs the point once more."""
    running = kprof.start("sweep", one(kprof, pod=on(node)), "--format", "json", "-n", namespace)
    node.run(namespace, node.bound(namespace))
    wait_for_words(running, "starting")
    node.send_elsewhere()
    kube.call("delete", "node", node.name)
    wait_for_attempts(kprof, running, 2, PODGC_SECONDS)
    check_second_attempt_ready(kprof, running)
    assert kube.left(namespace) == []


@pytest.mark.fault(27, "W")
def test_fault_27_a_pod_that_stays_terminating(
    node: PretendNode, kube: Kube, namespace: str, kprof: ShortKprof
) -> None:
    """Never forces a pod away whose GPU may still be held: it names the pod, leaves it, and uses a new name."""
    kprof.limits = {GONE_GRACE: GONE_SECONDS}
    running = kprof.start("sweep", one(kprof, pod=on(node)), "--format", "json", "-n", namespace)
    pod = node.bound(namespace)
    node.run(namespace, pod)
    wait_for_words(running, "starting")
    node.send_elsewhere()
    kube.call("delete", "pod", pod, "-n", namespace, "--wait=false")
    check_second_attempt_ready(kprof, running)
    left = json.loads(kube.call("get", "pod", pod, "-n", namespace, "-o", "json"))["metadata"]
    assert left["deletionTimestamp"]
    assert left["deletionGracePeriodSeconds"] > 0, "kprof forced it"
    assert pod in running.outcome().stderr, "nobody was told of the pod that stays"


@pytest.fixture
def gpus(kube: Kube) -> Iterator[str]:
    """Return the real node's name; its GPUs are as before when the test has ended."""
    name, before = real_node(kube), str(kube.gpus())
    yield name
    status(kube, "node", name, {"capacity": {GPU: before}, "allocatable": {GPU: before}})


@pytest.mark.fault(42, "W")
def test_fault_42_gpus_vanish_from_a_node(gpus: str, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Makes no pods for GPUs that are not there: one pod at most queues, and all go on when the GPUs return."""
    count = kube.gpus()
    groups = [group(f"point-{n}", arguments={"max-model-len": 1000 + n}) for n in range(count + 4)]
    running = kprof.start("sweep", matrix(kprof.folder, *groups, speed=20), "--format", "json", "-n", namespace)
    wait_for_words(running, "starting")
    status(kube, "node", gpus, {"allocatable": {GPU: "0"}})

    def idle() -> bool:
        words = list(stages(running).values())
        return len(stored.results(kprof.store)) >= 1 and not any(text.startswith("probing") for text in words)

    wait_until("the points at work have ended", idle, seconds=90)
    time.sleep(NO_GPU_SECONDS)
    queued = [pod for pod in kube.items("pods", "-n", namespace) if not pod["spec"].get("nodeName")]
    assert len(queued) <= 1, "pods pile up on a node without GPUs"
    status(kube, "node", gpus, {"allocatable": {GPU: str(count)}})
    outcome = running.outcome(150)
    assert outcome.code == 0, outcome.stderr
    assert set(kprof.kinds().values()) == {None}
    assert len(kprof.kinds()) == len(groups)
    assert kube.left(namespace) == []
