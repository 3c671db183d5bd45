"""What `kprof doctor` says of clusters that a sweep would fail on, and how long a cluster may be silent."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.kubernetes import adapter
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.kubernetes.preflight import NEEDED_RIGHTS, QUEUE_RIGHTS
from orchestrator.cluster.manifest import render_pod
from orchestrator.cluster.port import Finding, Level
from orchestrator.errors import ClusterError
from tests.faults.faults import refusal
from tests.faults.kueue import QUEUE
from tests.faults.server import NAMESPACE, USER, FaultServer
from tests.faults.sweeping import matrix_of

# Writes its arguments down, one call a line, and keeps what it is given to apply.
KUBECTL = """#!/bin/sh
printf '%s\\n' "$(for word; do printf '%s|' "$word"; done)" >> calls
case "$*" in *apply*) cat > applied;; esac
"""
PRODUCT = "NVIDIA-A100-SXM4-80GB"


async def _worse_than_ok(cluster: KubernetesCluster, **defaults: Any) -> list[Finding]:
    manifests = [render_pod(point, "0123abcd") for point in matrix_of(3, **defaults).points]
    return [finding async for finding in cluster.examine(manifests) if finding.level is not Level.OK]


async def test_a_product_that_no_node_has(cluster: KubernetesCluster) -> None:
    """Its pods would wait for ever; the remedy shows what the nodes have."""
    found = await _worse_than_ok(cluster, accelerator={"vendor": "nvidia", "product": PRODUCT})
    (missing,) = [finding for finding in found if finding.subject == "devices"]
    assert missing.level is Level.FAIL
    assert f"no node has nvidia.com/gpu.product={PRODUCT}" in missing.text
    assert "kubectl get nodes -L nvidia.com/gpu.product" in (missing.remedy or "")


async def test_one_refusal_of_all_points_is_told_once(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Eleven lines that differ in the pod's name alone are one finding."""
    words = 'admission webhook "policy" denied the request: no'
    server.faults.add(
        refusal(403, "Forbidden", words, where=lambda call: call.method == "POST" and call.path.endswith("/pods"))
    )
    refused = [finding for finding in await _worse_than_ok(cluster) if finding.subject == "pods"]
    assert [finding.text for finding in refused] == [f"3 of 3 points: {words}"]


async def test_an_image_that_no_node_has(cluster: KubernetesCluster) -> None:
    """Nobody has tried to pull it, and the finding does not say so."""
    found = await _worse_than_ok(cluster)
    (image,) = [finding for finding in found if finding.subject == "image"]
    assert image.level is Level.WARN
    assert "whether it can be pulled is not checked" in image.text


@pytest.mark.parametrize("queue", [None, QUEUE])
async def test_the_remedy_for_missing_rights_grants_them(
    server: FaultServer, cluster: KubernetesCluster, tmp_path: Path, queue: str | None
) -> None:
    """It runs as it stands, needs no file of kprof's, and grants what a sweep needs to the account that asked."""
    server.denied.add(("create", "pods"))
    found = await _worse_than_ok(cluster, queue=queue)
    (missing,) = [one for one in found if (one.subject, one.level) == ("access", Level.FAIL)]
    calls, role = _carried_out(missing.remedy or "", tmp_path)
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = {(right.group, right.name, right.verb) for right in NEEDED_RIGHTS}
    of_queues = {(right.group, right.name, right.verb) for right in QUEUE_RIGHTS}
    assert needed < granted
    assert of_queues < granted if queue else not of_queues & granted
    assert role["kind"] == "Role"
    apply, bind = calls
    assert apply == ["-n", NAMESPACE, "apply", "-f", "-"]
    assert bind[:4] == ["-n", NAMESPACE, "create", "rolebinding"]
    assert f"--role={role['metadata']['name']}" in bind
    assert f"--user={USER}" in bind


async def test_an_api_server_that_does_not_tell_who_asks(server: FaultServer, cluster: KubernetesCluster) -> None:
    """Older ones do not: the remedy leaves the name open, and says how to learn it."""
    server.denied.add(("create", "pods"))
    server.faults.add(refusal(404, "NotFound", "no", where=lambda call: call.path.endswith("/selfsubjectreviews")))
    (missing,) = [one for one in await _worse_than_ok(cluster) if (one.subject, one.level) == ("access", Level.FAIL)]
    assert missing.remedy is not None
    assert missing.remedy.endswith("--user=WHO  # WHO: kubectl auth whoami")


def _carried_out(command: str, folder: Path) -> tuple[list[list[str]], dict[str, Any]]:
    """Return the calls of kubectl that a shell makes of a remedy, and the object that was applied."""
    kubectl = folder / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    path = f"{kubectl.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], cwd=folder, env={"PATH": path}, check=True, timeout=20)
    calls = [line.split("|")[:-1] for line in (folder / "calls").read_text().splitlines()]
    return calls, json.loads((folder / "applied").read_text())


async def test_the_remedy_for_a_missing_secret_has_the_key_of_the_matrix(cluster: KubernetesCluster) -> None:
    """A pod that reads `token` has no use for a Secret that holds `HF_TOKEN`."""
    found = await _worse_than_ok(cluster, huggingFaceToken={"secretName": "hf", "key": "token"})
    (missing,) = [finding for finding in found if finding.subject == "secrets"]
    assert missing.remedy == f"kubectl -n {NAMESPACE} create secret generic hf --from-file=token=FILE"


async def test_cleaning_up_does_not_wait_for_a_cluster_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cleans up by hand is told soon, where a sweep would sit an outage out."""
    monkeypatch.setattr(adapter, "PREFLIGHT_OUTAGE_SECONDS", 0.5)
    async with FaultServer() as server:
        path = str(server.kubeconfig(tmp_path))
    async with KubernetesCluster.connect(path, None, None) as cluster:
        with pytest.raises(ClusterError, match="does not answer"):
            await cluster.leftovers()
