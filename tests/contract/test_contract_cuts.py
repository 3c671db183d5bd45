"""Kubernetes over a network that breaks: logs lose nothing and repeat nothing, the watch ends up with the truth."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.cluster.kubernetes import list_watch as watching
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.kubernetes.transport import ApiError, Transport
from orchestrator.cluster.watch import PodWatch
from tests.contract.cutting_proxy import CuttingProxy
from tests.contract.subject import following, printing, read_all, until_finished, until_started
from tests.e2e.kube import Kube
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(func_only=True)]

RUN = "0cuts000"
LINES = 20_000
CUTS = 30
# About 1,250 lines a second: a resumed stream repeats at most 54 kB, and a connection lives for 2 to 80 kB.
# After a stall the script catches up, and a second may hold more than any connection carries: cuts must end then.
PACED = f"""
import time
begin = time.monotonic()
for number in range({LINES}):
    print(f"line {{number:06d}}")
    if number % 25 == 24:
        time.sleep(max(0, begin + number / 1250 - time.monotonic()))
"""


def proxied(kube: Kube, proxy: CuttingProxy, folder: Path) -> str:
    """Write a kubeconfig that leads through the proxy; the certificate is not made for its address everywhere."""
    config = kube.config()
    server: dict[str, Any] = config["clusters"][0]["cluster"]
    server["server"] = f"https://127.0.0.1:{proxy.port}"
    server.pop("certificate-authority-data", None)
    server["insecure-skip-tls-verify"] = True
    path = folder / "proxied-kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


def server_of(kube: Kube) -> tuple[str, int]:
    """Return host and port of the API server."""
    address = urlsplit(kube.config()["clusters"][0]["cluster"]["server"])
    assert address.hostname is not None
    return address.hostname, address.port or 443


async def test_a_log_survives_cuts_at_random_bytes(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """20,000 numbered lines over a connection that breaks at least 30 times: each line once, in order."""
    host, port = server_of(kube)
    async with (
        KubernetesCluster.connect(str(kube.kubeconfig), None, namespace) as direct,
        CuttingProxy(host, port, seed=20_000, smallest=2_000, largest=80_000, most=2 * CUTS) as proxy,
        KubernetesCluster.connect(proxied(kube, proxy, tmp_path), None, namespace) as broken,
    ):
        await direct.open_run(RUN)
        pod = await direct.create(printing(RUN, PACED))
        await until_started(direct, pod)
        begin = time.monotonic()
        reader = await read_all(broken, pod, seconds=80)
        took = time.monotonic() - begin
        await direct.delete(pod)
        await direct.close_run(RUN)
    lines = [int(line.removeprefix(b"line ")) for line in reader.data.splitlines()]
    assert len(lines) == LINES, f"{len(lines)} lines after {proxy.cuts} cuts in {took:.0f} s"
    assert lines == list(range(LINES))
    assert reader.gaps == 0
    assert proxy.cuts >= CUTS, f"only {proxy.cuts} cuts: the test proved too little"


async def test_the_watch_survives_cuts(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """Pods come and go while every connection is cut at random: the watch ends up with what there is."""
    host, port = server_of(kube)
    async with (
        KubernetesCluster.connect(str(kube.kubeconfig), None, namespace) as direct,
        CuttingProxy(host, port, seed=7, smallest=8_000, largest=40_000) as proxy,
        KubernetesCluster.connect(proxied(kube, proxy, tmp_path), None, namespace) as broken,
    ):
        await direct.open_run(RUN)
        async with PodWatch(broken, RUN) as watch:
            pods = []
            for attempt in range(6):
                pods.append(await direct.create(printing(RUN, "print('bye')", gpus=1, attempt=attempt)))
                proxy.cut_all()
            for pod in pods:
                await until_finished(direct, pod)
            for pod in pods[::2]:
                await direct.delete(pod)
                proxy.cut_all()

            async def agrees() -> bool:
                seen = {pod.uid: pod.finished for pod in watch.pods()}
                return seen == {pod.uid: True for pod in pods[1::2]}

            await eventually("the watch knows what there is", agrees, seconds=60)
            assert proxy.cuts >= 6
            gone = await watch.wait_for(pods[0].uid, lambda pod: pod is None)
            assert gone is None
        await direct.close_run(RUN)


async def test_a_version_that_the_server_forgot_leads_to_a_new_listing(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 Gone: what happened in between comes with a second listing, and the watch goes on from there.

    A young API server still knows every version, so its answer to an old one is put in its mouth, once.
    """
    watches = 0
    real = watching._watch

    def forgotten_once(
        transport: Transport, path: str, selector: str, version: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        nonlocal watches
        watches += 1
        if watches == 1:
            raise ApiError(410, "Expired", "too old resource version")
        return real(transport, path, selector, version)

    monkeypatch.setattr(watching, "_watch", forgotten_once)
    async with KubernetesCluster.connect(str(kube.kubeconfig), None, namespace) as cluster:
        await cluster.open_run(RUN)
        async with following(cluster, RUN) as follower:
            await follower.until("there is a first listing", lambda change: change.listing is not None)

            async def listed_again() -> bool:
                return sum(change.listing is not None for change in follower.changes) >= 2

            await eventually("there is a second listing", listed_again, seconds=30)
            pod = await cluster.create(printing(RUN, "print('bye')"))
            await follower.until(
                "the watch goes on", lambda change: change.pod is not None and change.pod.uid == pod.uid
            )
            await cluster.delete(pod)
        await cluster.close_run(RUN)
