"""The ways to a pod: which is asked when one fails, and that a port-forward is kept no longer than its pod."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.port import PodSnapshot, PodUnreachableError
from tests.contract.subject import printing
from tests.faults.calls import Call
from tests.faults.conftest import RUN
from tests.faults.faults import Fault, refusal
from tests.faults.server import FaultServer

PORT = b"\x40\x1f"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
NO_WAY = "error dialing backend: 502 Bad Gateway"


class _Stream:
    """A websocket that speaks port-forward, with a server in the pod that says `ok`."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        for channel in (0, 1):
            self._frames.put_nowait(bytes([channel]) + PORT)

    async def send_bytes(self, _data: bytes) -> None:
        """Take the request and answer it."""
        self._frames.put_nowait(b"\x00" + ANSWER)

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> aiohttp.WSMessage:
        return aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, await self._frames.get(), None)


class _Forwards:
    """Port-forward, in place of the fault server's, which has none; it leads to all pods but some."""

    def __init__(self) -> None:
        self.closed_to: set[str] = set()

    @asynccontextmanager
    async def websocket(self, path: str, _params: Mapping[str, str], _protocol: str) -> AsyncIterator[_Stream]:
        """Open a connection to a pod."""
        if any(name in path for name in self.closed_to):
            raise aiohttp.ClientError(NO_WAY)
        yield _Stream()


@pytest.fixture
def forwards(cluster: KubernetesCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Forwards:
    """Return the port-forward of the cluster; its sockets lie in a folder of this test's."""
    made = _Forwards()
    monkeypatch.setattr(cluster.transport, "websocket", made.websocket)
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    return made


def _is_proxy(call: Call) -> bool:
    return "/proxy/" in call.path


def _no_proxy(name: str) -> Fault:
    return refusal(503, "ServiceUnavailable", "no route to host", where=lambda c: _is_proxy(c) and name in c.path)


async def _status(cluster: KubernetesCluster, pod: PodSnapshot) -> int:
    async with cluster.request(pod, "GET", "/health", timeout_seconds=5) as reply:
        return reply.status


async def _pod(cluster: KubernetesCluster, attempt: int) -> PodSnapshot:
    return await cluster.create(printing(RUN, "", attempt=attempt))


def _sockets(folder: Path) -> int:
    return len(list((folder / "t").iterdir()))


async def test_the_proxy_is_asked_where_port_forward_fails(
    server: FaultServer, cluster: KubernetesCluster, forwards: _Forwards
) -> None:
    """A pod that only port-forward reached puts it first; a pod that it does not reach is asked over the proxy."""
    await cluster.open_run(RUN)
    first, second = [await _pod(cluster, attempt) for attempt in range(2)]
    server.faults.add(_no_proxy(first.name))
    forwards.closed_to.add(second.name)
    assert await _status(cluster, first) == 200
    assert await _status(cluster, second) == 200
    forwards.closed_to.add(first.name)
    await cluster.delete(first)
    await cluster.delete(second)


async def test_no_way_leads_to_the_pod(
    server: FaultServer, cluster: KubernetesCluster, forwards: _Forwards, tmp_path: Path
) -> None:
    """Says it in the words of the way that comes first, and leaves no socket of a forward that was never open."""
    await cluster.open_run(RUN)
    pod = await _pod(cluster, 0)
    server.faults.add(_no_proxy(pod.name))
    forwards.closed_to.add(pod.name)
    with pytest.raises(PodUnreachableError, match="no route to host"):
        await _status(cluster, pod)
    assert _sockets(tmp_path) == 0
    await cluster.delete(pod)


async def test_a_port_forward_ends_with_its_pod(
    server: FaultServer, cluster: KubernetesCluster, forwards: _Forwards, tmp_path: Path
) -> None:
    """One socket for each pod that is there, however often it is asked; none when the pods are deleted."""
    await cluster.open_run(RUN)
    server.faults.add(_no_proxy("kp-"))
    pods = [await _pod(cluster, attempt) for attempt in range(3)]
    for pod in pods:
        assert await asyncio.gather(*(_status(cluster, pod) for _ in range(3))) == [200] * 3
    assert _sockets(tmp_path) == 3
    for left, pod in enumerate(reversed(pods)):
        await cluster.delete(pod)
        assert _sockets(tmp_path) == 2 - left
