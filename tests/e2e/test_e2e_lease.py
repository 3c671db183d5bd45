"""One kprof drives a run: a second one, with a store of its own, is refused, and takes over when the first is dead."""

import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e import stored
from tests.e2e.command import H100, SPEED, Kprof
from tests.e2e.kube import Kube
from tests.e2e.waiting import wait_until

EXPIRES_SECONDS = 15
FOREIGN = "node-7/0a1b2c3d-4026531836/71/1234/0a1b2c3d"


def copy_store(source: Path, target: Path) -> None:
    """Copy a store that is being written."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def lease(kube: Kube, namespace: str, run: str, holder: str) -> None:
    """Write a run's Lease as a kprof elsewhere would."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"kp-{run[:8]}", "namespace": namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": EXPIRES_SECONDS, "renewTime": now},
    }
    kube.call("apply", "-f", "-", stdin=json.dumps(body))


@pytest.mark.fault(34, "A")
def test_a_second_kprof_on_the_same_run_is_refused(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """Two machines share a copy of the store: the second one says who drives the run, and touches nothing."""
    arguments = ("sweep", H100, *SPEED[:2], "5", "-n", namespace)
    first = cluster_kprof.start(*arguments)
    wait_until("a pod is there", lambda: bool(kube.items("pods", "-n", namespace)), seconds=30)
    folder = cluster_kprof.folder / "elsewhere"
    folder.mkdir()
    second = Kprof(folder, kube.kubeconfig)
    copy_store(cluster_kprof.store, second.store)
    before = {pod["metadata"]["uid"] for pod in kube.items("pods", "-n", namespace)}
    outcome = second.run(*arguments)
    assert outcome.code == 1
    assert "is being driven by another kprof" in outcome.error
    assert f"process {first.process.pid}" in outcome.error
    assert outcome.seconds < EXPIRES_SECONDS, "it waited for the other one's Lease to run out"
    print(f"\nrefused {outcome.seconds:.2f} s after the command was given")
    assert stored.results(second.store) == []
    assert before <= {pod["metadata"]["uid"] for pod in kube.items("pods", "-n", namespace)} or first.process.poll()
    first.signal(signal.SIGTERM)
    assert first.outcome().code == 130
    assert kube.left(namespace) == []


@pytest.mark.fault(34, "A")
def test_a_dead_kprof_elsewhere_is_waited_for_and_then_replaced(
    kube: Kube, namespace: str, cluster_kprof: Kprof
) -> None:
    """Nobody can tell whether a process on another machine lives: its Lease must be silent for 15 seconds first."""
    arguments = ("sweep", H100, *SPEED, "-n", namespace)
    first = cluster_kprof.start(*arguments)
    wait_until("a pod is noted", lambda: bool(stored.attempts(cluster_kprof.store)), seconds=30)
    first.signal(signal.SIGKILL)
    first.process.wait()
    (run,) = stored.runs(cluster_kprof.store)
    lease(kube, namespace, run, FOREIGN)
    refused = cluster_kprof.run(*arguments)
    assert refused.code == 1
    assert "node-7, process 71" in refused.error
    time.sleep(EXPIRES_SECONDS + 1)
    assert cluster_kprof.run(*arguments).code == 0
    assert kube.left(namespace) == []


@pytest.mark.fault(34, "A")
def test_a_kprof_that_loses_its_lease_stops(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """Somebody took the run over while this kprof could not reach the cluster: it stops and says so."""
    running = cluster_kprof.start("sweep", H100, *SPEED[:2], "2", "-n", namespace)
    wait_until("a pod is there", lambda: bool(kube.items("pods", "-n", namespace)), seconds=30)
    (run,) = stored.runs(cluster_kprof.store)
    lease(kube, namespace, run, FOREIGN)
    outcome = running.outcome(seconds=60)
    assert outcome.code == 1
    assert "took over run" in outcome.error
    assert [item["spec"]["holderIdentity"] for item in kube.items("leases", "-n", namespace)] == [FOREIGN]
