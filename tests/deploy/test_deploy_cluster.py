"""The deployment on a real API server: applied, triggered, and looked at when it has ended."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.deployment import (
    FAST,
    POINTS,
    SELF,
    TRIAL,
    Deployment,
    Job,
    namespaces,
    renamed,
    volume,
)
from tests.deploy.objects import CHART, MANIFESTS, build, call, template
from tests.deploy.test_deploy_manifests import needed
from tests.e2e.kube import Kube
from tests.e2e.waiting import wait_until

NODES = {("", "nodes", "list"), ("", "pods", "list")}
STRICT = ("--server-side", "--field-manager=kprof-test", "--warnings-as-errors")


def overlay(folder: Path, image: str) -> Path:
    """Write an overlay as a user would: an image and a matrix of their own."""
    folder.mkdir()
    (folder / "nightly.yaml").write_text(TRIAL)
    words = [
        {"op": "add", "path": "/spec/jobTemplate/spec/template/spec/containers/0/args/-", "value": word}
        for word in FAST
    ]
    name, _, tag = image.rpartition(":")
    settings = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(MANIFESTS / "base", folder)],
        "components": [os.path.relpath(MANIFESTS / "components" / "node-reader", folder)],
        "images": [{"name": "registry.example.com/kprof/kprof", "newName": name, "newTag": tag}],
        "configMapGenerator": [
            {"name": "kprof-matrices", "namespace": "kprof", "behavior": "replace", "files": ["nightly.yaml"]}
        ],
        "patches": [{"target": {"kind": "CronJob"}, "patch": json.dumps(words)}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def by_kustomize(
    kube: Kube, kustomize: Path, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Apply the base through an overlay, first as a dry run; no warning is let pass."""
    folder = tmp_path_factory.mktemp("kustomize")
    objects = build(kustomize, overlay(folder / "overlay", image))
    with namespaces(kube) as (own, points):
        moved = renamed(objects, own, points)
        spaces = [item for item in moved if item["kind"] == "Namespace"]
        kube.call("apply", *STRICT, "-f", "-", stdin=yaml.safe_dump_all(spaces))
        for how in (["--dry-run=server"], []):
            kube.call("apply", *STRICT, *how, "-f", "-", stdin=yaml.safe_dump_all(moved))
        volume(kube, own, folder / "results")
        yield Deployment(kube, own, points)


@pytest.fixture(scope="module")
def by_helm(kube: Kube, helm: Path, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Install the chart into a `restricted` namespace, its rendering first applied as a dry run."""
    folder = tmp_path_factory.mktemp("helm")
    values = folder / "values.yaml"
    name, _, tag = image.rpartition(":")
    settings = {
        "image": {"repository": name, "tag": tag},
        "matrices": {"inline": {"nightly": yaml.safe_load(TRIAL)}},
        "rbac": {"readNodes": True},
    }
    values.write_text(yaml.safe_dump(settings))
    chosen: list[str | Path] = ["--values", CHART / "ci" / "simulate-values.yaml", "--values", values]
    with namespaces(kube) as (own, points):
        levels = {f"pod-security.kubernetes.io/{how}": "restricted" for how in ("enforce", "warn")}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own, "labels": levels}}
        kube.call("apply", "-f", "-", stdin=yaml.safe_dump(space))
        rendered = template(helm, "--skip-tests", *chosen, namespace=own)
        known = [item for item in rendered if item["metadata"].get("namespace") != points]
        kube.call("apply", *STRICT, "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(known))
        where: list[str | Path] = ["--kubeconfig", kube.kubeconfig, "--namespace", own]
        call(helm, "install", "kprof", CHART, *where, *chosen)
        volume(kube, own, folder / "results")
        call(helm, "test", "kprof", *where, "--logs", "--timeout", "90s")
        yield Deployment(kube, own, points)
        call(helm, "uninstall", "kprof", *where)
        kept = kube.call("get", "persistentvolumeclaims", "--namespace", own, "-o", "name").split()
        assert kept == ["persistentvolumeclaim/kprof-results"], "uninstalling took the results along"


@pytest.fixture(scope="module", params=["by_kustomize", "by_helm"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Return the deployment, made both ways."""
    made: Deployment = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="module")
def night(deployment: Deployment) -> tuple[Job, list[str]]:
    """Trigger the CronJob once and wait for its end; return it with what was left at that moment."""
    deployment.start("kprof-now")
    job = deployment.wait("kprof-now")
    return job, deployment.left()


def test_the_night_ends_with_the_summary(night: tuple[Job, list[str]]) -> None:
    """The pod exits with 0, the first time, and its log ends with the table of all points."""
    job, _ = night
    assert (job.succeeded, job.exit_codes) == (True, [0]), job.log
    for words in ("Qwen3-0.6B", "Qwen3-32B", "SIMULATED", "kv.context_too_long"):
        assert words in job.log


def test_the_night_leaves_nothing(night: tuple[Job, list[str]]) -> None:
    """No pod, ConfigMap or Lease of the run is there when the Job has ended."""
    _, left = night
    assert left == []


def test_the_results_are_on_the_volume(night: tuple[Job, list[str]], deployment: Deployment) -> None:
    """A second Job, made as docs/deploy.md says, prints the stored summary."""
    assert night[0].succeeded
    deployment.start("kprof-summary", arguments=["summary", "--format", "json"])
    job = deployment.wait("kprof-summary")
    assert job.succeeded, job.log
    summary = json.loads(job.log)
    assert {row["point"] for row in (*summary["rows"], *summary["failed"])} == POINTS
    assert summary["simulated"] is True
    assert summary["missing"] == []


@pytest.mark.timeout(240, func_only=True)
def test_the_clock_starts_a_night(by_kustomize: Deployment) -> None:
    """With nobody's hand in it, the schedule alone starts a sweep that ends well."""
    job = by_kustomize.wait(by_kustomize.started_by_the_clock())
    assert (job.succeeded, job.exit_codes) == (True, [0]), job.log
    assert "SIMULATED" in job.log


def test_the_account_has_these_rights_and_no_others(deployment: Deployment) -> None:
    """Where the points run: the Role, and free devices. In its own namespace and elsewhere: nothing but those."""
    assert deployment.rights(deployment.points) == needed() | NODES | SELF
    for namespace in (deployment.namespace, "default", "kube-system"):
        assert deployment.rights(namespace) == NODES | SELF


def test_a_drained_node_does_not_end_the_night(by_kustomize: Deployment) -> None:
    """kprof's pod is evicted in mid-sweep: the Job starts it again, and the new pod completes the run."""
    store = ["--store", "sqlite:////results/evicted.db"]
    slow = [word for word in FAST if "speed" not in word]
    words = ["sweep", "/matrices/nightly.yaml", f"--namespace={by_kustomize.points}", *store, *slow]
    by_kustomize.start("kprof-evicted", arguments=[*words, "--simulate-speed=8", "--max-gpus=1"])

    def running() -> list[str]:
        pods = by_kustomize.kube.items("pods", "--namespace", by_kustomize.points)
        return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]

    wait_until("a point runs", running, seconds=60)
    (pod,) = by_kustomize.pods("kprof-evicted")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["metadata"]["name"], "namespace": by_kustomize.namespace},
    }
    path = f"/api/v1/namespaces/{by_kustomize.namespace}/pods/{pod['metadata']['name']}/eviction"
    by_kustomize.kube.call("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    job = by_kustomize.wait("kprof-evicted")
    assert job.succeeded, job.log
    assert job.exit_codes[-1] == 0
    assert by_kustomize.left() == []
    assert "run 1 " in job.log, "the new pod began a run of its own"
