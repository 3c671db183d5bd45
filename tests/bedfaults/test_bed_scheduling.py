"""Pods that cannot be placed, are pushed aside, or cannot start on the node they were given."""

import json
from pathlib import Path

import pytest

from tests.bed.layout import PAUSE_IMAGE
from tests.bedfaults.command import FITS_NOWHERE, ShortKprof, group, matrix, said, wait_for_words
from tests.bedfaults.filler import filler, start_filler, wait_until_it_runs
from tests.bedfaults.nodes import real_node
from tests.e2e import stored
from tests.e2e.kube import Kube, Object
from tests.e2e.waiting import wait_until

NOWHERE_SECONDS = 3.0
WAITED_SECONDS = 10.0
BAD_NAME = "docker.io/kprof/Never:Was:One"
TAINT = "kprof.test/reserved"


def failure(kprof: ShortKprof, point: str) -> Object:
    """Return what `kprof show` says of a failed point."""
    found: Object = kprof.run("show", point, "--format", "json").json()["failure"]
    return found


@pytest.mark.fault(13, "R")
def test_fault_13_a_point_is_preempted(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Runs a point again whose pod had to give way to a more important one, and counts no failure."""
    important = f"{namespace}-important"
    kube.call("create", "priorityclass", important, "--value=1000000")
    try:
        path = matrix(kprof.folder, group("point"), speed=2)
        running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
        wait_for_words(running, "loading weights")
        start_filler(kube, namespace, kube.gpus(), priorityClassName=important)
        wait_until_it_runs(kube, namespace)
        kube.call("delete", "pod", "filler", "-n", namespace, "--grace-period=0", "--force")
        outcome = running.outcome(150)
    finally:
        kube.call("delete", "priorityclass", important)
    assert outcome.code == 0, outcome.stderr
    assert (kprof.kinds(), kprof.attempts()) == ({"point": None}, 2)
    assert kube.left(namespace) == []


@pytest.mark.fault(16, "P(pod.image)")
def test_fault_16_an_image_that_can_never_be_pulled(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Fails the point at once, with the kubelet's words, where no waiting can help: the name is none."""
    path = matrix(kprof.folder, group("bad-name", image=BAD_NAME), group("fine"))
    outcome = kprof.run("sweep", path, "--format", "json", "-n", namespace)
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"bad-name": "pod.image", "fine": None}
    assert "InvalidImageName" in failure(kprof, "bad-name")["line"]
    assert outcome.seconds < 60, "it waited for an image that can never come"
    assert kube.left(namespace) == []


@pytest.mark.fault(16, "A")
def test_fault_16_no_point_has_its_image(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Ends the sweep after the third point that fails for the same image, and does not try the others."""
    groups = [group(f"point-{n}", arguments={"max-model-len": 1000 + n}) for n in range(8)]
    path = matrix(kprof.folder, *groups, image="docker.io/kprof/never-existed:1")
    outcome = kprof.run("sweep", path, "--max-parallel", "1", "--format", "json", "-n", namespace)
    assert outcome.code == 4, outcome.stderr
    assert "failed alike: pod.image" in outcome.error
    assert len(kprof.kinds()) == 3
    assert kube.left(namespace) == []


def _with_secret_volume(folder: Path, secret: str) -> str:
    claim = {"name": "late", "projected": {"sources": [{"secret": {"name": secret, "optional": True}}]}}
    pod = {"imagePullPolicy": "Never", "volumes": [claim]}
    return matrix(folder, group("point", pod=pod, huggingFaceToken={"secretName": secret, "key": "HF_TOKEN"}))


@pytest.mark.fault(17, "W")
def test_fault_17_a_secret_without_its_key(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Gives a missing key of a Secret a minute to appear, says what it waits for, and starts when it is there."""
    kube.call("create", "secret", "generic", "late-token", "-n", namespace, "--from-literal=OTHER=none")
    running = kprof.start("sweep", _with_secret_volume(kprof.folder, "late-token"), "-n", namespace)
    wait_for_words(running, "HF_TOKEN")
    kube.call("patch", "secret", "late-token", "-n", namespace, "-p", json.dumps({"stringData": {"HF_TOKEN": "none"}}))
    outcome = running.outcome(100)
    assert outcome.code == 0, outcome.stderr
    assert kprof.kinds() == {"point": None}
    assert kube.left(namespace) == []


@pytest.mark.fault(17, "P(pod.config)")
def test_fault_17_a_key_that_never_comes(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Fails the point after a minute, and names the key."""
    kube.call("create", "secret", "generic", "poor-token", "-n", namespace, "--from-literal=OTHER=none")
    outcome = kprof.run("sweep", _with_secret_volume(kprof.folder, "poor-token"), "-n", namespace, seconds=150)
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"point": "pod.config"}
    assert "HF_TOKEN" in failure(kprof, "point")["line"]
    assert outcome.seconds > 55, "a Secret may be a moment late"
    assert kube.left(namespace) == []


@pytest.mark.fault(18, "P(pod.config)")
def test_fault_18_a_container_that_cannot_start(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Fails the point at once when the image has no `vllm`, and says so."""
    path = matrix(kprof.folder, group("no-vllm", image=PAUSE_IMAGE), group("fine"))
    outcome = kprof.run("sweep", path, "--format", "json", "-n", namespace)
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"no-vllm": "pod.config", "fine": None}
    assert "vllm" in failure(kprof, "no-vllm")["line"]
    assert kube.left(namespace) == []


@pytest.mark.fault(19, "P(pod.unschedulable)")
@pytest.mark.parametrize("cause", ["too many GPUs", "taint"])
def test_fault_19_a_point_that_fits_nowhere(cause: str, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Fails a point that no node would take even if it were empty, long before its time to queue is over."""
    kprof.limits = {FITS_NOWHERE: NOWHERE_SECONDS}
    name, many = real_node(kube), 2 * kube.gpus()
    arguments = {"tensor-parallel-size": many} if cause == "too many GPUs" else {}
    path = matrix(kprof.folder, group("point", arguments=arguments))
    if cause == "taint":
        kube.call("taint", "node", name, f"{TAINT}=x:NoSchedule")
    try:
        outcome = kprof.run("sweep", path, "--format", "json", "-n", namespace)
    finally:
        if cause == "taint":
            kube.call("taint", "node", name, f"{TAINT}-")
    assert outcome.code == 1, outcome.stderr
    assert kprof.kinds() == {"point": "pod.unschedulable"}
    assert ("taint" if cause == "taint" else "Insufficient nvidia.com/gpu") in failure(kprof, "point")["line"]
    assert kube.left(namespace) == []


@pytest.mark.fault(19, "W")
def test_fault_19_others_hold_the_gpus(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Waits for GPUs that somebody else holds, says so, and runs when they are free: that is no failure."""
    kprof.limits = {FITS_NOWHERE: NOWHERE_SECONDS}
    path = matrix(kprof.folder, group("point"))
    with filler(kube, namespace, kube.gpus()):
        running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
        wait_for_words(running, "Insufficient nvidia.com/gpu")
        assert not running.ends_within(WAITED_SECONDS), "it gave up"
    outcome = running.outcome(100)
    assert outcome.code == 0, outcome.stderr
    assert (kprof.kinds(), kprof.attempts()) == ({"point": None}, 1)
    assert any(words.startswith("queued") for _, words in said(running))


@pytest.mark.fault(44, "R")
@pytest.mark.parametrize("reason", ["OutOfnvidia.com/gpu", "NodeAffinity"])
def test_fault_44_the_kubelet_refuses_a_pod(reason: str, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Runs a point again that the kubelet did not take, because the scheduler knew less than the node."""
    label, name = "kprof.test/wanted", real_node(kube)
    pod: Object = {"imagePullPolicy": "Never", "schedulerName": "nobody"}
    if reason == "NodeAffinity":
        pod["nodeSelector"] = {label: "yes"}
    running = kprof.start("sweep", matrix(kprof.folder, group("point", pod=pod)), "-n", namespace)
    try:
        with filler(kube, namespace, kube.gpus() if reason != "NodeAffinity" else 0):
            first = place(kube, namespace, name)
            assert refused(kube, namespace, first) == reason
        kube.call("label", "node", name, f"{label}=yes", "--overwrite")
        place(kube, namespace, name, other_than=first)
        outcome = running.outcome(100)
    finally:
        kube.call("label", "node", name, f"{label}-")
    assert outcome.code == 0, outcome.stderr
    (result,) = stored.results(kprof.store)
    assert (result.attempt, kprof.kinds()) == (1, {"point": None})
    assert kube.left(namespace) == []


def place(kube: Kube, namespace: str, node: str, *, other_than: str = "") -> str:
    """Do the scheduler's work for kprof's pod, once it is there, and return its name."""

    def waiting() -> str | None:
        pods = kube.items("pods", "-n", namespace, "--selector", "kprof.io/run")
        return next((pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"] != other_than), None)

    name = wait_until("a pod waits to be placed", waiting, seconds=60)
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
    kube.call("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))
    return name


def refused(kube: Kube, namespace: str, pod: str) -> str:
    """Wait until the kubelet has refused the pod, and return its reason; the pod may be gone before we look."""
    events = ("events", "-n", namespace, "--field-selector", f"involvedObject.name={pod}")

    def told() -> str | None:
        reasons = [event["reason"] for event in kube.items(*events)]
        return next((reason for reason in reasons if reason.startswith(("OutOf", "NodeAffinity"))), None)

    return wait_until("the kubelet refuses the pod", told, seconds=60)
