"""The Role at work: kprof runs with exactly its rights, and the API server's audit log says which ones it used."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from orchestrator.cluster.kubernetes.doctor import WISHED_RIGHTS
from tests.bed.audit import AuditLog, Request
from tests.bed.layout import layout
from tests.deploy.deployment import SELF
from tests.deploy.objects import MANIFESTS, Object, only, read
from tests.deploy.test_deploy_manifests import Right, rights
from tests.e2e import stored
from tests.e2e.command import Kprof, Running
from tests.e2e.kube import IMAGE, Kube
from tests.e2e.waiting import wait_until

ACCOUNT = "kprof"
SLOW, FAST = "3", "60"
SWEEP_SECONDS = 110.0
# What kprof looks at where it may, besides what `kprof doctor` warns of: the level of pod security, the quota,
# the way to a pod when the proxy does not lead there (yet), and Jobs that Kueue's rights let it make.
GOES_WITHOUT: set[Right] = {
    ("", "namespaces", "get"),
    ("", "resourcequotas", "list"),
    ("", "pods/portforward", "get"),
    ("", "pods/portforward", "create"),
    ("", "persistentvolumeclaims", "get"),
    ("batch", "jobs", "list"),
    *((right.group, right.name, right.verb) for right, _ in WISHED_RIGHTS),
}


@dataclass(frozen=True)
class Account:
    """kprof under a service account: what it may do in the namespace of the points, and in the whole cluster."""

    kprof: Kprof
    namespace: str
    here: set[Right]
    everywhere: set[Right]
    audit: AuditLog

    def requests(self) -> list[Request]:
        """Return what the account asked of the API server, questions about itself left out."""
        user = f"system:serviceaccount:{self.namespace}:{ACCOUNT}"
        asked = [request for request in self.audit.requests(text=user) if request.user == user]
        return [request for request in asked if request.resource and right(request) not in SELF]


def right(request: Request) -> Right:
    """Return the right that a request takes."""
    return request.group, request.resource, request.verb


def _moved(kube: Kube, objects: list[Object], namespace: str) -> None:
    """Create roles and bindings of the manifests for the account of this test."""
    for item in objects:
        metadata = item["metadata"]
        if "namespace" in metadata:
            metadata["namespace"] = namespace
        else:
            metadata["name"] = f"{namespace}-{metadata['name']}"
        for subject in item.get("subjects", []):
            subject |= {"namespace": namespace, "name": ACCOUNT}
        if item.get("roleRef", {}).get("kind") == "ClusterRole":
            item["roleRef"]["name"] = f"{namespace}-{item['roleRef']['name']}"
    kube.call("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


@pytest.fixture(params=["the Role", "the Role and the node reader"])
def account(request: pytest.FixtureRequest, kube: Kube, namespace: str, tmp_path: Path) -> Iterator[Account]:
    """Give an account the Role of the base, without and with the component."""
    if kube.kubeconfig != layout().kubeconfig:
        pytest.skip("THE ROLE IS MEASURED ON THE TEST BED ONLY: another cluster's audit log cannot be read")
    base = read((MANIFESTS / "base" / "role.yaml").read_text())
    reader = read((MANIFESTS / "components" / "node-reader" / "cluster-role.yaml").read_text())
    chosen = reader if "reader" in request.param else []
    here, everywhere = (
        rights(only(base, "Role")),
        {found for item in chosen if "rules" in item for found in rights(item)},
    )
    kube.call("create", "serviceaccount", ACCOUNT, "-n", namespace)
    _moved(kube, [*base, *chosen], namespace)
    config = kube.config()
    config["users"][0]["user"] = {"token": kube.call("create", "token", ACCOUNT, "-n", namespace).strip()}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    kprof = Kprof(tmp_path, path)
    yield Account(kprof, namespace, here, everywhere, AuditLog())
    kprof.close()
    for item in chosen:
        kube.call("delete", item["kind"], item["metadata"]["name"])


def _matrix(folder: Path, too_many: int, speed: str) -> str:
    """Write two points that run, and one that fits nowhere: kprof asks then whether the cluster grows."""
    groups: list[Object] = [
        {"name": "small", "model": "Qwen/Qwen3-0.6B", "arguments": {"max-model-len": [1000, 1001]}},
        {
            "name": "too-large",
            "model": "Qwen/Qwen3-0.6B",
            "arguments": {"tensor-parallel-size": too_many},
            "timeouts": {"queueSeconds": 3},
            "expect": "pod.unschedulable",
        },
    ]
    defaults = {
        "image": IMAGE,
        "pod": {"imagePullPolicy": "Never"},
        "env": {"KPROF_SIMULATE_SPEED": speed},
    }
    path = folder / f"role-{speed}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "name": "role", "defaults": defaults, "groups": groups}))
    return str(path)


def _killed_in_mid_sweep(running: Running) -> None:
    def starts() -> bool:
        assert running.process.poll() is None, running.outcome().stderr
        return b": starting" in running._files[1].read_bytes()

    wait_until("a point starts", starts, seconds=60)
    running.signal(signal.SIGKILL)
    running.process.wait()


def work(account: Account, kube: Kube) -> None:
    """Do what a user does: examine, sweep, resume after a kill, sweep anew, clean up after another kill."""
    kprof, where = account.kprof, ("-n", account.namespace)
    slow, fast = (_matrix(kprof.folder, 2 * kube.gpus(), speed) for speed in (SLOW, FAST))
    assert kprof.run("doctor", fast, *where, "--format", "json").stdout
    _killed_in_mid_sweep(kprof.start("sweep", slow, *where))
    resumed = kprof.run("sweep", slow, *where, "--format", "json", seconds=SWEEP_SECONDS)
    assert resumed.code == 0, resumed.stderr
    assert len(stored.results(kprof.store)) == 3
    assert kube.left(account.namespace) == []
    _killed_in_mid_sweep(kprof.start("sweep", slow, *where, "--fresh"))
    kprof.run("clean", *where)
    finished = kprof.run("sweep", slow, *where, "--format", "json", seconds=SWEEP_SECONDS)
    assert finished.code == 0, finished.stderr
    assert kube.left(account.namespace) == []


def test_the_role_is_enough_and_every_right_in_it_is_used(account: Account, kube: Kube) -> None:
    """Nothing is refused but what kprof goes on without, and no right of the Role could be left out."""
    work(account, kube)
    requests = account.requests()
    refused = {right(request) for request in requests if request.code == 403}
    assert refused <= GOES_WITHOUT, f"kprof needs more than the Role: {sorted(refused - GOES_WITHOUT)}"
    granted = [request for request in requests if request.code not in {0, 401, 403}]
    used_here = {right(request) for request in granted if request.namespace == account.namespace}
    used_everywhere = {right(request) for request in granted if not request.namespace}
    assert used_here == account.here, f"never used: {sorted(account.here - used_here)}"
    assert used_everywhere - {("", "namespaces", "get")} == account.everywhere
