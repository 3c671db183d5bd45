"""The ways to a pod's HTTP server: its own address, the API server's proxy, the API server's port-forward."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from orchestrator.cluster.excerpt import excerpt
from orchestrator.cluster.kubernetes.port_forward import PortForward
from orchestrator.cluster.kubernetes.transport import CONNECT_SECONDS, TRANSPORT_ERRORS, Transport
from orchestrator.cluster.port import HTTP_PORT, HttpReply, PodSnapshot, PodUnreachableError


class RouteClosedError(PodUnreachableError):
    """This way leads to no pod here; another one may."""


class Routes:
    """Requests to pods. From inside the cluster the pod's address comes first; port-forward is the last resort.

    A way that does not lead there is left for the next one, and what worked is asked first from then on.
    """

    def __init__(self, transport: Transport, pods: str, *, in_cluster: bool) -> None:
        self._transport = transport
        self._pods = pods
        self._order = [self._direct, self._proxy, self._forward] if in_cluster else [self._proxy, self._forward]
        self._forwards: dict[str, PortForward] = {}

    async def close(self) -> None:
        """End every port-forward."""
        for uid in list(self._forwards):
            await self.forget(uid)

    async def forget(self, uid: str) -> None:
        """End the port-forward to a pod, if there is one."""
        if (forward := self._forwards.pop(uid, None)) is not None:
            await forward.close()

    @asynccontextmanager
    async def request(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None, timeout_seconds: float
    ) -> AsyncIterator[HttpReply]:
        """Send one request; raises PodUnreachableError in the words of the first way."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS)
        closed: list[RouteClosedError] = []
        async with AsyncExitStack() as stack:
            for way in list(self._order):
                try:
                    reply = await stack.enter_async_context(way(pod, method, path, body, timeout))
                except RouteClosedError as error:
                    closed.append(error)
                    continue
                if way is not self._order[0]:
                    self._order.remove(way)
                    self._order.insert(0, way)
                yield reply
                return
        raise closed[0]

    @asynccontextmanager
    async def _direct(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[HttpReply]:
        if pod.ip is None:
            raise RouteClosedError(f"{method} {path}: the pod has no address")
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        # Without credentials: this is not the API server.
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            _answered(session, method, f"http://{host}:{HTTP_PORT}{path}", body) as reply,
        ):
            yield HttpReply(reply.status, reply.content.iter_any(), dict(reply.headers))

    @asynccontextmanager
    async def _proxy(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[HttpReply]:
        proxy = f"{self._pods}/{pod.pod_name}:{HTTP_PORT}/proxy{path}"
        try:
            async with self._transport.open(
                method, proxy, body=body, stream=True, total_seconds=timeout.total
            ) as reply:
                if reply.status >= 400 and "json" in reply.headers.get("Content-Type", ""):
                    # A Status is the API server's own word that the pod cannot be reached; anything else is the pod's.
                    data = await reply.read()
                    if _is_status(data):
                        raise RouteClosedError(f"{method} {path}: {excerpt(data, 300)}")
                    yield HttpReply(reply.status, _once(data), dict(reply.headers))
                    return
                yield HttpReply(reply.status, reply.content.iter_any(), dict(reply.headers))
        except (*TRANSPORT_ERRORS, aiohttp.InvalidURL) as error:
            # The API server itself is away: no other way over it is better.
            raise PodUnreachableError(f"{method} {path}: {error or type(error).__name__}") from error

    @asynccontextmanager
    async def _forward(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[HttpReply]:
        forward = self._forwards.get(pod.uid) or await self._forwarded(pod)
        connector = aiohttp.UnixConnector(forward.socket)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            _answered(session, method, f"http://{pod.pod_name}{path}", body) as reply,
        ):
            yield HttpReply(reply.status, reply.content.iter_any(), dict(reply.headers))

    async def _forwarded(self, pod: PodSnapshot) -> PortForward:
        """Open a port-forward; of two requests that do so at once the first one's is kept."""
        made = PortForward(self._transport, f"{self._pods}/{pod.pod_name}/portforward", HTTP_PORT)
        try:
            await made.open()
        except BaseException as error:
            await made.close()
            if isinstance(error, PodUnreachableError):
                raise RouteClosedError(error.message) from error
            raise
        kept = self._forwards.setdefault(pod.uid, made)
        if kept is not made:
            await made.close()
        return kept


@asynccontextmanager
async def _answered(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes | None
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {} if body is None else {"Content-Type": "application/json"}
    answered = False
    try:
        async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as reply:
            answered = True
            yield reply
    except TRANSPORT_ERRORS as error:
        kind = PodUnreachableError if answered else RouteClosedError
        raise kind(f"{method} {url}: {error or type(error).__name__}") from error


def _is_status(data: bytes) -> bool:
    try:
        parsed: Any = json.loads(data)
    except ValueError:
        return False
    return isinstance(parsed, dict) and parsed.get("kind") == "Status"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
