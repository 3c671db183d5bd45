"""An API server on loopback with which kprof can run a whole sweep, and which fails in the ways a test asks for."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from aiohttp import web

from tests.faults.api import Api
from tests.faults.calls import Call, CutError, Exchange, Target, break_connection
from tests.faults.faults import Faults
from tests.faults.kubelet import Kubelet, PodPlay, Script, node
from tests.faults.objects import Objects
from tests.faults.reading import log, version_of, watch
from tests.faults.simulated import simulator
from tests.faults.statuses import Object, Refusal, status

NAMESPACE = "default"
USER = "oidc:ann o'hara"
TOKEN = "token-of-the-fault-server"
BOOKMARK_SECONDS = 60.0


class FaultServer:
    """One cluster: its objects, its one node, its pods, and everything it was asked."""

    def __init__(self, script: Script = simulator) -> None:
        self.calls: list[Call] = []
        self.faults = Faults()
        self.objects = Objects()
        self.kubelet = Kubelet(self.objects, script)
        self.api = Api(self.objects, self.kubelet)
        self.denied: set[tuple[str, str]] = set()  # verb and resource, `pods/log` with its subresource
        self.groups: list[Object] = [{"name": name} for name in ("apps", "batch", "coordination.k8s.io")]
        self.skew_seconds = 0.0
        self.bookmark_seconds = BOOKMARK_SECONDS
        self.silent_future = False
        self.errors: list[Exception] = []  # of this server's own making
        self.user: Object = {"token": TOKEN}  # as a kubeconfig has it
        self.port = 0
        self._streams: set[Exchange] = set()
        self.objects.add(("namespaces", "", NAMESPACE), {"apiVersion": "v1", "kind": "Namespace"})
        self.objects.add(("nodes", "", "node-1"), node())

    @property
    def url(self) -> str:
        """Return the server's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pods(self) -> list[Object]:
        """Return the pods that there are."""
        return self.objects.select("pods")

    def left(self) -> list[str]:
        """Return what there is of kprof's."""
        ours = "app.kubernetes.io/managed-by=kprof"
        kinds = ("pods", "configmaps", "leases", "jobs")
        return [f"{kind}/{item['metadata']['name']}" for kind in kinds for item in self.objects.select(kind, "", ours)]

    def asked(self, method: str, part: str = "", *, dry: bool = False) -> list[Call]:
        """Return the calls of one method whose path ends with `part`."""
        return [c for c in self.calls if c.method == method and c.path.endswith(part) and c.is_dry == dry]

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig that leads here."""
        path = folder / "fault-server-kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": self.user}],
            "contexts": [{"name": "faults", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
            "current-context": "faults",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._handle), handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()
        await self._runner.cleanup()
        await self._client.close()
        await self.kubelet.close()
        if kind is None:
            assert not self.errors, "the fault server itself failed; the first error is above"

    async def up(self, *, forget: bool = False) -> None:
        """Listen, on the same port as before; `forget` knows no old version any more."""
        if forget:
            self.objects.forget_history()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        assert self._runner.server is not None
        self.port = int(self._runner.addresses[0][1])

    async def down(self) -> None:
        """Refuse connections, and break those that there are."""
        await self._site.stop()
        self.break_connections()

    def break_connections(self, *, reset: bool = True) -> None:
        """Break every connection."""
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            break_connection(connection.transport, reset=reset)

    @property
    def streams(self) -> int:
        """Return how many watches and logs are being read."""
        return len(self._streams)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        agent, body = request.headers.get("User-Agent", ""), await request.read()
        call = Call(clock(), request.method, request.path, dict(request.query), agent, body)
        self.calls.append(call)
        exchange = Exchange(request, call, self.skew_seconds)
        try:
            fault = self.faults.take(call)
            if fault is not None and await fault.meet(exchange, self._answer):
                return exchange.response()
            await self._answer(exchange)
        except CutError:
            pass
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except ConnectionError:
            pass  # the client went away
        except Exception as error:
            self.errors.append(error)
            raise
        return exchange.response()

    async def _answer(self, exchange: Exchange) -> None:
        call, target = exchange.call, exchange.call.target
        if call.path == "/version":
            await exchange.send(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        elif call.path == "/apis":
            await exchange.send(200, {"kind": "APIGroupList", "groups": self.groups})
        elif target is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        elif target.resource == "selfsubjectaccessreviews":
            await exchange.send(201, self._review(call.json()))
        elif target.resource == "selfsubjectreviews":
            await exchange.send(201, call.json() | {"status": {"userInfo": {"username": USER}}})
        elif call.is_watch:
            version = version_of(exchange, self.objects, silent_future=self.silent_future)
            await self._stream(exchange, watch(exchange, target, self.objects, version, self.bookmark_seconds))
        elif target.rest == "log":
            await self._stream(
                exchange, log(exchange, self.kubelet.play_of(target.namespace, target.name), target.name)
            )
        elif target.rest.startswith("proxy"):
            await self._proxy(exchange, target)
        else:
            code, item = await self.api.answer(call, target)
            await exchange.send(code, item)

    def _review(self, review: Object) -> Object:
        asked = review["spec"]["resourceAttributes"]
        name = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        return review | {"status": {"allowed": (asked["verb"], name) not in self.denied}}

    async def _stream(self, exchange: Exchange, sending: Awaitable[None]) -> None:
        self._streams.add(exchange)
        try:
            await sending
        finally:
            self._streams.discard(exchange)

    async def _proxy(self, exchange: Exchange, target: Target) -> None:
        """Hand a request to the pod's own server; what it answers comes back as it is."""
        call, play = exchange.call, self.kubelet.play_of(target.namespace, target.name.partition(":")[0])
        path = target.rest.removeprefix("proxy")
        if play is None:
            raise Refusal(404, "NotFound", f'pods "{target.name}" not found')
        if play.http is not None:
            code, chunks = play.http(call.method, path, call.body)
            await exchange.begin(code, "text/plain")
            async for chunk in chunks:
                await exchange.write(chunk)
            return
        await self._forward(exchange, play, path)

    async def _forward(self, exchange: Exchange, play: PodPlay, path: str) -> None:
        call = exchange.call
        url, headers = f"http://127.0.0.1:{play.port}{path}", {"Content-Type": "application/json"}
        try:
            async with self._client.request(
                call.method, url, data=call.body or None, headers=headers, allow_redirects=False
            ) as reply:
                await exchange.begin(reply.status, reply.headers.get("Content-Type", "text/plain"))
                async for chunk in reply.content.iter_any():
                    await exchange.write(chunk)
        except aiohttp.ClientError as error:
            if exchange.begun:
                break_connection(exchange.request.transport, reset=False)
                return
            words = f"error trying to reach the server of the pod: {error}"
            await exchange.send(503, status(503, "ServiceUnavailable", words))
