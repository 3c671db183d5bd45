"""Credentials of the API server go to the API server only, and nothing of one pod comes to another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.kubernetes.transport import ApiError
from orchestrator.cluster.port import PodSnapshot, PodUnreachableError
from orchestrator.errors import ClusterError
from tests.contract.subject import printing
from tests.e2e.waiting import eventually
from tests.faults.faults import Answer, refusal
from tests.faults.server import TOKEN, FaultServer
from tests.security.headers import Headers
from tests.security.trap import Trap

RUN = "0secure0"
CODES = (301, 302, 303, 307, 308)
SECONDS = 10.0
WATCH_SECONDS = 0.3  # a watch is never over


@pytest.fixture
async def trap() -> AsyncIterator[Trap]:
    """Return a server that must hear nothing."""
    async with Trap() as started:
        yield started


async def _reads(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    await cluster.get(pod.name)


async def _creates(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    await cluster.create(printing(RUN, "", attempt=1))


async def _deletes(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    await cluster.delete(pod)


async def _closes(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    await cluster.close_run(RUN)


async def _examines(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    async for _ in cluster.examine([]):
        pass


async def _watches(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    async with asyncio.timeout(WATCH_SECONDS):
        async for _ in cluster.changes(RUN):
            pass


async def _reads_the_log(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    async for chunk in cluster.logs(pod, lambda: False):
        assert not chunk.data
        raise TimeoutError  # it says that it cannot read, and would try for ever


async def _asks_the_pod(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    async with cluster.request(pod, "POST", "/v1/completions", b"{}", timeout_seconds=SECONDS) as reply:
        assert reply.status in CODES


async def _takes_the_lease(cluster: KubernetesCluster, pod: PodSnapshot) -> None:
    async with cluster.hold(RUN):
        pass


ASKING: dict[str, Callable[[KubernetesCluster, PodSnapshot], Awaitable[None]]] = {
    "get": _reads,
    "create": _creates,
    "delete": _deletes,
    "close": _closes,
    "examine": _examines,
    "watch": _watches,
    "log": _reads_the_log,
    "proxy": _asks_the_pod,
    "lease": _takes_the_lease,
}


def _redirect(to: Trap, code: int, where: Callable[..., bool] = lambda _call: True) -> Answer:
    return Answer(where, None, code, b"", "text/html", {"Location": f"{to.url}/trap"})


async def _pod(cluster: KubernetesCluster) -> PodSnapshot:
    await cluster.open_run(RUN)
    made = await cluster.create(printing(RUN, ""))

    async def started() -> PodSnapshot | None:
        found = await cluster.get(made.name)
        return found if found is not None and found.started else None

    return await eventually("the pod has started", started)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("asking", ASKING)
async def test_no_redirect_is_followed(
    server: FaultServer, cluster: KubernetesCluster, trap: Trap, asking: str, code: int
) -> None:
    """Whatever is asked for, and however the answer points elsewhere: it is an error, or the pod's own answer."""
    pod = await _pod(cluster)
    redirect = server.faults.add(_redirect(trap, code))
    try:
        async with asyncio.timeout(SECONDS):
            await ASKING[asking](cluster, pod)
    except (ClusterError, ApiError, PodUnreachableError, TimeoutError):
        pass
    assert redirect.met
    assert trap.heard == []


async def test_no_redirect_of_a_port_forward_is_followed(
    server: FaultServer, cluster: KubernetesCluster, trap: Trap
) -> None:
    """A way to a pod that leads elsewhere leads nowhere."""
    pod = await _pod(cluster)
    closed = refusal(503, "ServiceUnavailable", "no way", where=lambda call: "/proxy" in call.path)
    server.faults.add(closed)
    redirect = server.faults.add(_redirect(trap, 302, lambda call: call.path.endswith("/portforward")))
    with pytest.raises(PodUnreachableError):
        await _asks_the_pod(cluster, pod)
    assert redirect.met
    assert trap.heard == []


async def test_a_pod_of_its_own_address_gets_no_credentials(
    cluster: KubernetesCluster, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside the cluster kprof speaks to the pod itself, which is nobody to trust."""
    pod = await _pod(cluster)
    monkeypatch.setattr("orchestrator.cluster.kubernetes.routes.HTTP_PORT", int(trap.url.rpartition(":")[2]))
    direct = cluster._routes._direct
    monkeypatch.setattr(cluster._routes, "_order", [direct])
    here = PodSnapshot(pod.name, pod.uid, pod.labels, pod.phase, ip="127.0.0.1")
    async with cluster.request(here, "GET", "/metrics", timeout_seconds=SECONDS) as reply:
        assert await reply.body() == b"{}"
    (heard,) = trap.heard
    assert heard.startswith(b"GET /metrics")
    assert TOKEN.encode() not in heard
    assert b"uthorization" not in heard


async def test_a_cookie_of_a_pod_is_kept_by_nobody(server: FaultServer, tmp_path: Path) -> None:
    """Behind the API server's proxy every pod has the API server's name: one could set what all requests then send."""
    path = server.kubeconfig(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("127.0.0.1", "localhost"), encoding="utf-8")
    cookie = {"Set-Cookie": "session=evil; Path=/"}
    async with KubernetesCluster.connect(str(path), None, None) as cluster:
        pod = await _pod(cluster)
        with server.faults.during(Answer(lambda call: "/proxy" in call.path, 1, 307, b"", "text/html", cookie)):
            await _asks_the_pod(cluster, pod)
        headers = Headers(name="Cookie")
        server.faults.add(headers)
        async with cluster.request(pod, "GET", "/health", timeout_seconds=SECONDS) as reply:
            await reply.body()
        await cluster.get(pod.name)
    assert headers.values == [None, None]


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["with a token", "without one"])
async def test_a_netrc_of_the_user_is_not_read(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """Its passwords are for other programs; kubectl does not send them either."""
    (tmp_path / "netrc").write_text("default login user password Zqnetrc\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    path = server.kubeconfig(tmp_path)
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": token} if token else {}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    headers = Headers()
    server.faults.add(headers)
    async with KubernetesCluster.connect(str(path), None, None) as cluster:
        await cluster.get("x")
    assert headers.values == [f"Bearer {token}" if token else None]


@pytest.mark.parametrize("bypassed", [True, False])
async def test_a_proxy_of_the_environment_is_used_unless_it_is_bypassed(
    server: FaultServer, tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch, bypassed: bool
) -> None:
    """Only there may others hear what is for the API server."""
    for name, value in {"http_proxy": trap.url, "no_proxy": "127.0.0.1" if bypassed else "elsewhere"}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(name.upper(), raising=False)
    async with KubernetesCluster.connect(str(server.kubeconfig(tmp_path)), None, None) as cluster:
        await cluster.get("x")
    assert [words.split(b"/api", 1)[0] for words in trap.heard] == ([] if bypassed else [f"GET {server.url}".encode()])
    assert bool(server.calls) == bypassed
