"""What the API server itself refuses."""

import contextlib
import json
import secrets
from collections.abc import Iterator

import pytest

from tests.bedfaults.command import ShortKprof, group, matrix, said
from tests.bedfaults.quota import limit_gpus
from tests.e2e.kube import Kube
from tests.e2e.test_e2e_errors import check_error, check_nothing
from tests.e2e.waiting import wait_until


@pytest.mark.fault(20, "W")
def test_fault_20_a_quota_is_used_up(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Refuses to begin with a point whose request alone is too large, and lets the others wait their turn."""
    limit_gpus(kube, namespace, 2)
    small = [group(f"small-{n}", arguments={"max-model-len": 1000 + n}) for n in range(4)]
    path = matrix(kprof.folder, group("large", arguments={"tensor-parallel-size": 4}), *small, speed=50)
    refused = kprof.run("sweep", path, "-n", namespace)
    check_error(refused, 4, "large", "exceeded quota", "--only")
    check_nothing(kprof, kube, namespace)
    running = kprof.start("sweep", path, "--only", "small-*", "--format", "json", "-n", namespace)
    outcome = running.outcome(100)
    assert outcome.code == 0, outcome.stderr
    assert kprof.kinds() == dict.fromkeys(f"small-{n}" for n in range(4))
    assert any(point.startswith("small") and words.startswith("queued") for point, words in said(running))
    assert kube.left(namespace) == []


@pytest.mark.fault(21, "A")
def test_fault_21_a_limit_range(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Finds a limit of the namespace before it creates anything, and names it."""
    limit = {"type": "Container", "max": {"memory": "1Gi"}}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [limit]}}
    kube.call("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    memory = {"memory": "64Gi"}
    pod = {"imagePullPolicy": "Never", "resources": {"limits": memory, "requests": memory}}
    outcome = kprof.run("sweep", matrix(kprof.folder, group("big", pod=pod)), "-n", namespace)
    check_error(outcome, 2, "big", "maximum memory usage per Container is 1Gi")
    check_nothing(kprof, kube, namespace)


@pytest.mark.fault(22, "A")
def test_fault_22_pod_security(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Finds out before it creates anything that the namespace lets no such pod run, and names the level."""
    kube.call("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    outcome = kprof.run("sweep", matrix(kprof.folder, group("rooted")), "-n", namespace)
    check_error(outcome, 2, "rooted", 'violates PodSecurity "restricted')
    check_nothing(kprof, kube, namespace)


@contextlib.contextmanager
def terminating(kube: Kube, namespace: str) -> Iterator[None]:
    """Delete a namespace that cannot go for the time of the block."""
    held = {"metadata": {"finalizers": ["kprof.test/hold"]}}
    kube.call("create", "configmap", "holds", "-n", namespace)
    kube.call("patch", "configmap", "holds", "-n", namespace, "--type=merge", "-p", json.dumps(held))
    kube.call("delete", "namespace", namespace, "--wait=false")
    try:
        phase = ("get", "namespace", namespace, "-o", "jsonpath={.status.phase}")
        wait_until("the namespace terminates", lambda: kube.call(*phase) == "Terminating", seconds=30)
        yield
    finally:
        freed = {"metadata": {"finalizers": None}}
        kube.call("patch", "configmap", "holds", "-n", namespace, "--type=merge", "-p", json.dumps(freed))


@pytest.mark.fault(25, "A")
def test_fault_25_the_namespace_is_being_deleted(kube: Kube, kprof: ShortKprof) -> None:
    """Ends before it creates anything where the namespace is on its way out."""
    name = f"kprof-leaving-{secrets.token_hex(4)}"
    kube.call("create", "namespace", name)
    with terminating(kube, name):
        outcome = kprof.run("sweep", matrix(kprof.folder, group("late")), "-n", name)
        check_error(outcome, 4, name, "terminat")
        check_nothing(kprof, kube, name)
