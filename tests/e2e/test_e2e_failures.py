"""What Kubernetes says about a pod becomes a failure with its kind, its proof and its remedy."""

from pathlib import Path

import pytest
import yaml

from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.kube import IMAGE, Kube, Object

NO_IMAGE = "docker.io/kprof/never-existed:1"


def matrix(folder: Path, *groups: Object) -> str:
    """Write a matrix of these groups, on the simulator's image as if it were vLLM's."""
    pod = {"imagePullPolicy": "Never"}
    defaults = {"image": IMAGE, "pod": pod, "env": {"KPROF_SIMULATE_SPEED": "200"}}
    document = {"version": 1, "name": "failures", "defaults": defaults, "groups": list(groups)}
    path = folder / "failures.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def group(name: str, **fields: object) -> Object:
    """Return a group of one point of a small model."""
    return {"name": name, "model": "Qwen/Qwen3-0.6B", **fields}


@pytest.mark.fault(14, "P(host.oom)")
@pytest.mark.fault(16, "P(pod.image)")
@pytest.mark.fault(19, "P(pod.unschedulable)")
def test_three_pods_that_cannot_run(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """No image, more GPUs than any node has, more memory than the limit: three kinds, each with its words."""
    many = 2 * kube.gpus()
    path = matrix(
        cluster_kprof.folder,
        group("no-image", image=NO_IMAGE),
        group("too-many", arguments={"tensor-parallel-size": many}, timeouts={"queueSeconds": 3}),
        group("too-big", pod={"resources": {"limits": {"memory": "16Mi"}, "requests": {"memory": "16Mi"}}}),
        group("fine"),
    )
    outcome = cluster_kprof.run("sweep", path, "-n", namespace, "--format", "json", seconds=60)
    left = kube.left(namespace)
    assert outcome.code == 1, outcome.stderr
    assert left == []
    summary = outcome.json()
    assert [row["point"] for row in summary["rows"]] == ["fine"]
    kinds = {row["point"]: row["failure"] for row in summary["failed"]}
    assert kinds == {"no-image": "pod.image", "too-many": "pod.unschedulable", "too-big": "host.oom"}
    failures = {name: cluster_kprof.run("show", name, "--format", "json").json()["failure"] for name in kinds}
    assert "ErrImageNeverPull" in failures["no-image"]["line"]
    assert NO_IMAGE in failures["no-image"]["line"]
    assert "Insufficient nvidia.com/gpu" in failures["too-many"]["line"]
    assert "OOMKilled" in failures["too-big"]["line"]
    assert all(failure["remedy"] for failure in failures.values())


def test_trouble_of_the_cluster_is_tried_again_and_a_verdict_is_not(
    kube: Kube, namespace: str, cluster_kprof: Kprof
) -> None:
    """The same command runs a point again that had no image, and leaves one alone that has no room for a KV cache."""
    path = matrix(
        cluster_kprof.folder,
        group("no-image", image=NO_IMAGE),
        group("no-room", arguments={"gpu-memory-utilization": 0.01}),
    )
    arguments = ("sweep", path, "-n", namespace, "--format", "json")
    first = cluster_kprof.run(*arguments)
    before = {result.point: result for result in stored.results(cluster_kprof.store)}
    second = cluster_kprof.run(*arguments)
    after = {result.point: result for result in stored.results(cluster_kprof.store)}
    assert (first.code, second.code) == (1, 1)
    assert first.json()["failed"] == second.json()["failed"]
    assert after["no-room"] == before["no-room"]
    assert (before["no-image"].attempt, after["no-image"].attempt) == (0, 1)
    assert kube.left(namespace) == []
