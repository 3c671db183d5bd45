"""kprof with a matrix that names a queue: Kueue decides when a point starts, and may take it back."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.conftest import cluster_kprof  # noqa: F401 - a fixture
from tests.e2e.kube import IMAGE, Kube, Object
from tests.e2e.waiting import wait_until
from tests.kueue.queues import Queue, priority

SEEN_SECONDS = 60.0


def _matrix(folder: Path, queue: str, points: int, **kueue: Any) -> str:
    content = {
        "version": 1,
        "name": "queued",
        "kueue": {"queueName": queue, **kueue},
        "defaults": {"image": "vllm/vllm-openai:v0.19.0", "pod": {"imagePullPolicy": "IfNotPresent"}},
        "groups": [
            {
                "name": "small",
                "model": "Qwen/Qwen3-0.6B",
                "arguments": {"max-model-len": [1024 * (n + 1) for n in range(points)]},
            }
        ],
    }
    file = folder / "queued.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


def _sweep(file: str, queue: Queue, speed: int = 30) -> tuple[str, ...]:
    simulated = ("--simulate", "--simulator-image", IMAGE, "--simulate-speed", str(speed))
    return ("sweep", file, *simulated, "--format", "json", "-n", queue.namespace)


def _jobs(queue: Queue) -> list[Object]:
    return queue.kube.items("jobs", "--namespace", queue.namespace)


@pytest.mark.fault(26, "W")
def test_fault_26_points_wait_in_the_queue_for_their_devices(two_gpus: Queue, cluster_kprof: Kprof) -> None:  # noqa: F811
    """Runs each point as a suspended Job in the queue, waits without a clock, and says what Kueue says."""
    file = _matrix(cluster_kprof.folder, two_gpus.name, 5)
    outcome = cluster_kprof.run(*_sweep(file, two_gpus, speed=8))  # slow enough for kprof to ask what they wait for
    left = [*two_gpus.kube.left(two_gpus.namespace), *(job["metadata"]["name"] for job in _jobs(two_gpus))]
    assert outcome.code == 0, outcome.stderr
    assert len(stored.results(cluster_kprof.store)) == 5
    assert left == []
    assert f"waiting in Kueue's queue {two_gpus.name}" in outcome.stderr
    assert "insufficient unused quota for nvidia.com/gpu" in outcome.stderr


@pytest.mark.fault(26, "R")
def test_fault_26_a_point_that_kueue_evicts_is_tried_again(two_gpus: Queue, cluster_kprof: Kprof) -> None:  # noqa: F811
    """Takes an eviction by Kueue for no failure: the point waits in the queue again, as a new attempt."""
    file = _matrix(cluster_kprof.folder, two_gpus.name, 1)
    running = cluster_kprof.start(*_sweep(file, two_gpus, speed=4))
    wait_until(
        "the point runs",
        lambda: (
            [job for job in _jobs(two_gpus) if job["status"].get("ready")]
            or [job for job in _jobs(two_gpus) if job["status"].get("active")]
        ),
        seconds=SEEN_SECONDS,
    )
    first = _jobs(two_gpus)[0]["metadata"]["name"]
    two_gpus.patch({"stopPolicy": "HoldAndDrain"})
    wait_until(
        "there is another attempt",
        lambda: [job for job in _jobs(two_gpus) if job["metadata"]["name"] != first],
        seconds=SEEN_SECONDS,
    )
    two_gpus.patch({"stopPolicy": "None"})
    outcome = running.outcome(100)
    assert outcome.code == 0, outcome.stderr
    (result,) = stored.results(cluster_kprof.store)
    assert result.attempt == 1
    assert "the attempt before this one ended in pod.preempted" in result.document["flags"]
    assert two_gpus.kube.left(two_gpus.namespace) == []


@pytest.mark.fault(26, "R")
def test_fault_26_jobs_of_a_killed_kprof_are_adopted(two_gpus: Queue, cluster_kprof: Kprof) -> None:  # noqa: F811
    """Finds queued and running Jobs of a kprof that was killed, and goes on with them."""
    file = _matrix(cluster_kprof.folder, two_gpus.name, 4)
    running = cluster_kprof.start(*_sweep(file, two_gpus, speed=4))  # none may end before all are there
    wait_until("four Jobs are there", lambda: len(_jobs(two_gpus)) == 4, seconds=SEEN_SECONDS)
    uids = {job["metadata"]["uid"] for job in _jobs(two_gpus)}
    running.signal(signal.SIGKILL)
    running.process.wait()
    outcome = cluster_kprof.run(*_sweep(file, two_gpus, speed=4))
    assert outcome.code == 0, outcome.stderr
    attempts = stored.attempts(cluster_kprof.store)
    assert {attempt.uid for attempt in attempts} == uids
    assert len(stored.results(cluster_kprof.store)) == 4
    assert two_gpus.kube.left(two_gpus.namespace) == []


def test_the_priority_of_the_matrix_is_the_workloads(two_gpus: Queue, cluster_kprof: Kprof) -> None:  # noqa: F811
    """A sweep of higher priority than what runs in the queue gets its devices."""
    with priority(two_gpus.kube, 1000) as high:
        file = _matrix(cluster_kprof.folder, two_gpus.name, 1, priorityClass=high)
        running = cluster_kprof.start(*_sweep(file, two_gpus, speed=4))
        job = wait_until("the Job is there", lambda: next(iter(_jobs(two_gpus)), None), seconds=SEEN_SECONDS)
        workload = wait_until(
            "it has a Workload", lambda: two_gpus.workload(job["metadata"]["uid"]), seconds=SEEN_SECONDS
        )
        assert workload["spec"]["priority"] == 1000
        outcome = running.outcome(100)
    assert outcome.code == 0, outcome.stderr


def test_a_queue_that_is_not_there_is_found_before_anything_starts(
    kueue: Kube,
    namespace: str,
    cluster_kprof: Kprof,  # noqa: F811
) -> None:
    """The LocalQueue is looked for in the namespace of the sweep; the doctor says so, too."""
    file = _matrix(cluster_kprof.folder, "no-such-queue", 1)
    outcome = cluster_kprof.run("sweep", file, "--simulate", "-n", namespace)
    assert outcome.code == 4
    assert f"Kueue has no LocalQueue no-such-queue in namespace {namespace}" in outcome.stderr
    assert "kubectl" in outcome.stderr
    found = cluster_kprof.run("doctor", file, "--format", "json", "-n", namespace)
    findings = [json.loads(line) for line in found.stdout.splitlines()]
    assert any(finding["subject"] == "Kueue" and finding["level"] == "fail" for finding in findings)
    assert kueue.left(namespace) == []


def test_rendered_jobs_are_what_the_api_server_takes(two_gpus: Queue, cluster_kprof: Kprof) -> None:  # noqa: F811
    """`kprof render` of such a matrix prints suspended Jobs with the queue's label."""
    file = _matrix(cluster_kprof.folder, two_gpus.name, 2)
    rendered = cluster_kprof.run("render", file, "--simulate", "-n", two_gpus.namespace)
    assert rendered.code == 0, rendered.stderr
    jobs = list(yaml.safe_load_all(rendered.stdout))
    assert [job["kind"] for job in jobs] == ["Job", "Job"]
    assert all(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == two_gpus.name for job in jobs)
    applied = two_gpus.kube.call("apply", "--dry-run=server", "-f", "-", stdin=rendered.stdout)
    assert applied.count("created (server dry run)") == 2
