"""`kprof render`: what a real API server takes, and exactly what a sweep creates."""

import json
from typing import Any

import yaml

from tests.e2e.command import H100, SPEED, Kprof
from tests.e2e.conftest import ClusterSweep
from tests.e2e.kube import Kube, Object

POINTS = 11
# What the API server and the scheduler add to every pod; the name and the run's label carry the run's id.
ADDED = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "ownerReferences", "generation", "name")


def test_the_rendered_pods_pass_a_server_side_dry_run(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """`kprof render | kubectl apply --dry-run=server -f -`."""
    rendered = cluster_kprof.run("render", H100)
    assert rendered.code == 0, rendered.stderr
    assert len(list(yaml.safe_load_all(rendered.stdout))) == POINTS
    said = kube.call("apply", "--namespace", namespace, "--dry-run=server", "-f", "-", stdin=rendered.stdout)
    assert said.count("created (server dry run)") == POINTS
    assert kube.left(namespace) == []


def test_a_namespace_is_rendered_when_it_is_named(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """With -n the stream needs no --namespace any more."""
    rendered = cluster_kprof.run("render", H100, "--only", "qwen3-0.6b", "-n", namespace)
    said = kube.call("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=rendered.stdout)
    assert json.loads(said)["metadata"]["namespace"] == namespace


def test_a_sweep_creates_what_render_prints(kube: Kube, cluster_sweep: ClusterSweep) -> None:
    """Live pods of a sweep equal the rendered ones, defaults of the API server applied to both."""
    rendered = cluster_sweep.kprof.run("render", H100, *SPEED)
    said = kube.call(
        "create", "--namespace", cluster_sweep.namespace, "--dry-run=server", "-o", "json", "-f", "-",
        stdin=rendered.stdout,
    )  # fmt: skip
    expected = {_point(pod): _plain(pod) for pod in _documents(said)}
    live = {_point(pod): _plain(pod) for pod in cluster_sweep.sampler.pods.values()}
    assert len(expected) == POINTS
    assert live.keys() == expected.keys()
    for point, pod in live.items():
        assert pod == expected[point]


def test_every_pod_is_owned_by_the_run_s_anchor(cluster_sweep: ClusterSweep) -> None:
    """The owner takes the pods along when it is deleted; all have the same one."""
    owners: set[tuple[str, str, str]] = set()
    for pod in cluster_sweep.sampler.pods.values():
        (owner,) = pod["metadata"]["ownerReferences"]
        owners.add((owner["kind"], owner["name"], owner["uid"]))
    ((kind, name, _),) = owners
    run = cluster_sweep.outcome.json()["run"]["id"]
    assert (kind, name) == ("ConfigMap", f"kp-{run}")


def _documents(text: str) -> list[Object]:
    parsed: Any = json.loads(text) if text.startswith("{") and text.count("\n}\n{") == 0 else None
    if parsed is not None:
        return list(parsed["items"]) if parsed["kind"] == "List" else [parsed]
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        while place < len(text) and text[place].isspace():
            place += 1
    return found


def _point(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["kprof.io/point-id"])


def _plain(pod: Object) -> Object:
    metadata = {name: value for name, value in pod["metadata"].items() if name not in ADDED}
    metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name != "kprof.io/run"}
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(name, None)
    spec = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    return {"metadata": metadata, "spec": spec}
