"""What `kprof doctor` says of clusters that a sweep would fail on, and how long a cluster may be silent."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.kubernetes import adapter
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.manifest import render_pod
from orchestrator.cluster.port import Finding, Level
from orchestrator.errors import ClusterError
from tests.faults.faults import refusal
from tests.faults.server import FaultServer
from tests.faults.sweeping import matrix_of

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
