"""Kueue itself on the bed, with Jobs of plain YAML: what kprof's own mode is built on."""

from tests.e2e.waiting import wait_until
from tests.kueue.jobs import SECONDS, Job, job
from tests.kueue.queues import Queue, priority


def evicted(victim: Job, reason: str) -> None:
    """Wait until a Job is suspended without a pod, and check that its Workload says why."""
    wait_until(f"{victim.name} is suspended", victim.suspended, seconds=SECONDS)
    wait_until(f"the pod of {victim.name} is gone", lambda: not victim.pods(), seconds=SECONDS)
    condition = victim.condition("Evicted")
    assert (condition["status"], condition["reason"]) == ("True", reason)


def test_a_job_is_admitted_and_runs(two_gpus: Queue) -> None:
    """Kueue starts a suspended Job for which there is room."""
    only = job(two_gpus, "only")
    pod = only.runs()
    assert not only.suspended()
    assert only.condition("Admitted")["status"] == "True"
    workload = two_gpus.workload(only.get()["metadata"]["uid"])
    assert workload is not None
    assert pod["metadata"]["annotations"]["kueue.x-k8s.io/workload"] == workload["metadata"]["name"]


def test_a_job_beyond_the_quota_waits_for_another(two_gpus: Queue) -> None:
    """The third Job of one GPU each waits in a queue of two, says why, and runs once one has ended."""
    first, second = job(two_gpus, "first"), job(two_gpus, "second")
    first.runs()
    second.runs()
    third = job(two_gpus, "third")
    reserved = third.waits()
    assert reserved["reason"] == "Pending"
    assert "insufficient unused quota for nvidia.com/gpu" in reserved["message"]
    assert "1 more needed" in reserved["message"]
    assert third.suspended()
    assert third.pods() == []
    first.end()
    third.runs()
    assert not second.suspended()


def test_a_higher_priority_evicts_a_lower_one(two_gpus: Queue) -> None:
    """One of two Jobs loses its pod to a more important one, and gets a new pod when that one is gone."""
    low = [job(two_gpus, "low-1"), job(two_gpus, "low-2")]
    before = {each.name: each.runs()["metadata"]["uid"] for each in low}
    with priority(two_gpus.kube, 1000) as high:
        urgent = job(two_gpus, "urgent", priority=high)
        urgent.runs()
        victims = [each for each in low if each.suspended()]
        assert len(victims) == 1
        evicted(victims[0], "Preempted")
        assert victims[0].waits()["reason"] == "Pending"
        urgent.end()
        assert victims[0].runs()["metadata"]["uid"] != before[victims[0].name]


def test_a_stopped_queue_evicts_all(two_gpus: Queue) -> None:
    """A queue that is drained takes the pods of its Jobs, and gives them new ones when it goes on."""
    jobs = [job(two_gpus, "one"), job(two_gpus, "two")]
    before = {each.runs()["metadata"]["uid"] for each in jobs}
    two_gpus.patch({"stopPolicy": "HoldAndDrain"})
    for each in jobs:
        evicted(each, "ClusterQueueStopped")
    two_gpus.patch({"stopPolicy": "None"})
    assert before.isdisjoint(each.runs()["metadata"]["uid"] for each in jobs)
