"""The three ways to a pod's HTTP server, each alone, and what happens when the first one is closed."""

import json
from collections.abc import AsyncIterator

import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.kubernetes.credentials import Credentials
from orchestrator.cluster.kubernetes.routes import Routes
from orchestrator.cluster.port import PodSnapshot, PodUnreachableError
from tests.contract.subject import reading, serving, until_gone, until_started
from tests.e2e.kube import Kube

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(func_only=True)]
RUN = "ab12cd34"


@pytest.fixture
async def cluster(kube: Kube, namespace: str) -> AsyncIterator[KubernetesCluster]:
    """Return the adapter with an open run."""
    async with KubernetesCluster(Credentials(str(kube.kubeconfig), None, namespace)) as opened:
        await opened.open_run(RUN)
        yield opened
        await opened.close_run(RUN)


async def _served(cluster: KubernetesCluster) -> PodSnapshot:
    made = await cluster.create(serving(RUN))
    await until_started(cluster, made)
    async with reading(cluster, made) as reader:
        await reader.until_line(b"Application startup complete.")
    now = await cluster.get(made.name)
    assert now is not None
    return now


def _only(routes: Routes, *names: str) -> Routes:
    ways = {way.__name__.removeprefix("_"): way for way in (routes._direct, routes._proxy, routes._forward)}
    routes._order = [ways[name] for name in names]
    return routes


@pytest.mark.parametrize("way", ["direct", "proxy", "forward"])
async def test_every_way_leads_to_the_server(cluster: KubernetesCluster, way: str) -> None:
    """GET, an answer that says no, a POST with a stream, and two requests after one another."""
    pod = await _served(cluster)
    routes = _only(cluster._routes, way)
    for _ in range(2):
        async with routes.request(pod, "GET", "/health", None, 10) as reply:
            assert reply.status == 200
    async with routes.request(pod, "GET", "/no/such/page", None, 10) as reply:
        assert reply.status == 404
    body = {"model": "Qwen/Qwen3-0.6B", "prompt": "a b c", "max_tokens": 50, "stream": True, "ignore_eos": True}
    async with routes.request(pod, "POST", "/v1/completions", json.dumps(body).encode(), 30) as reply:
        text = b"".join([chunk async for chunk in reply.chunks])
    assert text.rstrip().endswith(b"data: [DONE]")
    await cluster.delete(pod)
    await until_gone(cluster, pod)
    with pytest.raises(PodUnreachableError):
        async with routes.request(pod, "GET", "/health", None, 5):
            pass


async def test_a_closed_way_is_left_for_the_next_one(cluster: KubernetesCluster) -> None:
    """A pod network that this place cannot reach: the proxy answers, and is asked first from then on."""
    pod = await _served(cluster)
    routes = _only(cluster._routes, "direct", "forward", "proxy")
    unreachable = PodSnapshot(pod.name, pod.uid, pod.labels, pod.phase, ip=None, container=pod.container)
    async with routes.request(unreachable, "GET", "/health", None, 10) as reply:
        assert reply.status == 200
    assert routes._order[0] == routes._forward
