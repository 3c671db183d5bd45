"""The Job of a point that has a queue, and what a Job and its pod look like as one."""

from typing import Any

import pytest
import yaml

from orchestrator.cluster.job import job_of, object_of
from orchestrator.cluster.kubernetes.kueue import GROUP
from orchestrator.cluster.kubernetes.workloads import read_job
from orchestrator.cluster.manifest import avoiding, render_pod
from orchestrator.cluster.port import Phase
from orchestrator.errors import UsageError
from orchestrator.matrix.point import Point
from tests.fakes.matrix import document, group, load_text, point

RUN = "ab12cd34"


def _manifest(**kueue: Any) -> Any:
    return render_pod(_point({"queueName": "team", **kueue}), RUN)


def _point(kueue: dict[str, Any] | None) -> Point:
    written = document(group("g")) | ({} if kueue is None else {"kueue": kueue})
    (only,) = load_text(yaml.safe_dump(written)).points
    return only


def test_the_job_is_suspended_around_the_same_pod() -> None:
    """Kueue starts it; nothing of the pod is lost, and the Job never makes a second one by itself."""
    manifest = _manifest()
    job = job_of(manifest)
    assert job["spec"]["suspend"] is True
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"] == manifest.body["spec"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["metadata"]["name"] == manifest.name
    assert job["metadata"]["labels"][f"{GROUP}/queue-name"] == "team"
    assert f"{GROUP}/priority-class" not in job["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"].items() <= job["metadata"]["labels"].items()


def test_the_priority_is_a_label_of_the_job() -> None:
    """Kueue reads the WorkloadPriorityClass from there."""
    assert job_of(_manifest(priorityClass="night"))["metadata"]["labels"][f"{GROUP}/priority-class"] == "night"


def test_without_a_queue_the_pod_is_created_itself() -> None:
    """And asking for its Job is a mistake of the caller."""
    manifest = render_pod(point(), RUN)
    assert object_of(manifest) == manifest.body
    with pytest.raises(ValueError, match="no queue"):
        job_of(manifest)


def test_a_queue_changes_no_configuration() -> None:
    """Results of a queued and of an unqueued sweep are of the same points."""
    assert _point({"queueName": "team"}).hash == _point(None).hash


def test_a_queue_that_stands_in_the_wrong_place_is_told() -> None:
    """It holds for the whole matrix, not for a group or for defaults."""
    with pytest.raises(UsageError, match=r"defaults\.kueue: this field does not belong here"):
        load_text(yaml.safe_dump(document(group("g"), kueue={"queueName": "team"})))


@pytest.mark.parametrize(
    ("spec", "status", "phase", "gated"),
    [
        ({"suspend": True}, {}, Phase.PENDING, True),
        ({"suspend": False}, {"active": 1}, Phase.PENDING, False),
        ({}, {"conditions": [{"type": "Complete", "status": "True"}]}, Phase.SUCCEEDED, False),
        ({}, {"conditions": [{"type": "Failed", "status": "True"}]}, Phase.FAILED, False),
        ({"suspend": True}, {"conditions": [{"type": "Suspended", "status": "True"}]}, Phase.PENDING, True),
        ({}, {"conditions": None}, Phase.PENDING, False),
    ],
)  # fmt: skip
def test_a_job_without_a_pod(spec: dict[str, Any], status: dict[str, Any], phase: Phase, gated: bool) -> None:
    """It waits in the queue, or for its pod, or it has ended."""
    labels = {f"{GROUP}/queue-name": "team"}
    read = read_job({"metadata": {"name": "j", "uid": "u", "labels": labels}, "spec": spec, "status": status})
    assert (read.name, read.uid, read.phase) == ("j", "u", phase)
    assert (read.gated is not None) is gated
    if gated:
        assert "team" in str(read.gated)


def test_a_faulty_node_is_avoided_besides_the_affinity_of_the_matrix() -> None:
    """The rule joins each term, since one term that fits is enough; labels, which find the pod again, stay."""
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    own = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    manifest = render_pod(point(pod={"affinity": own}), RUN)
    changed = avoiding(manifest, {"node-2", "node-1"})
    required = changed.body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (one,) = required["nodeSelectorTerms"]
    assert one["matchExpressions"] == term["matchExpressions"]
    assert [(rule["key"], rule["operator"], rule["values"]) for rule in one["matchFields"]] == [
        ("metadata.name", "NotIn", ["node-1"]),
        ("metadata.name", "NotIn", ["node-2"]),
    ]
    assert changed.labels == manifest.labels
    assert "matchFields" not in str(manifest.body)
    assert avoiding(manifest, ()) == manifest
