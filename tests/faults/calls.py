"""What the server heard, and the answer that is on its way."""

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from tests.faults.statuses import Object, Refusal

_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<rest>.*))?)?$"
)


@dataclass(frozen=True)
class Call:
    """One request: when it came by the loop's clock, and what it asked for."""

    seconds: float
    method: str
    path: str
    query: Mapping[str, str]
    agent: str
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        """Say whether this opens a watch."""
        return self.query.get("watch") in {"1", "true"}

    @property
    def is_list(self) -> bool:
        """Say whether this lists pods of a run, as a watch does before it begins; the preflight's list has no label."""
        return (
            self.method == "GET" and self.path.endswith("/pods") and not self.is_watch and "labelSelector" in self.query
        )

    @property
    def is_log(self) -> bool:
        """Say whether this reads a log."""
        return self.path.endswith("/log")

    @property
    def is_dry(self) -> bool:
        """Say whether this is a dry run."""
        return self.query.get("dryRun") == "All"

    @property
    def target(self) -> "Target | None":
        """Return what the path names; None where it is no resource."""
        found = _PATH.match(self.path)
        if found is None:
            return None
        parts = found.groupdict()
        version = parts["core"] or parts["group"]
        return Target(version, parts["resource"], parts["namespace"] or "", parts["name"] or "", parts["rest"] or "")

    def json(self) -> Object:
        """Return the body, which is JSON or nothing."""
        return dict(json.loads(self.body or b"{}"))


@dataclass(frozen=True)
class Target:
    """A resource, one object of it, or a subresource of that."""

    version: str
    resource: str
    namespace: str
    name: str
    rest: str


@dataclass
class Cut:
    """Break the answer off after some bytes of its body, `clean` as if that were all, or as a broken connection."""

    after: int
    how: str = "clean"  # or "abort", "reset"


class CutError(Exception):
    """The answer was broken off."""


@dataclass(eq=False)
class Exchange:
    """One request and its answer."""

    request: web.BaseRequest
    call: Call
    skew_seconds: float = 0.0
    cut: Cut | None = None
    _sent: int = field(default=0, init=False)
    _response: web.StreamResponse | None = field(default=None, init=False)
    _muted: bool = field(default=False, init=False)

    async def begin(self, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send status and headers; the body follows in any number of pieces."""
        if self._muted:
            return
        # The name of a status may be no known one; the length is not told, so that any byte may be the last.
        reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
        self._response = web.StreamResponse(status=status, reason=reason)
        self._response.headers["Content-Type"] = content_type
        self._response.headers["Date"] = formatdate(time.time() + self.skew_seconds, usegmt=True)
        self._response.headers.update(headers or {})
        self._response.enable_chunked_encoding()
        await self._response.prepare(self.request)

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._muted:
            return
        assert self._response is not None
        if self.cut is not None and self._sent + len(data) >= self.cut.after:
            await self._response.write(data[: self.cut.after - self._sent])
            if self.cut.how != "clean":
                await asyncio.sleep(0)  # what was written is on its way before the connection breaks
                break_connection(self.request.transport, reset=self.cut.how == "reset")
            raise CutError
        self._sent += len(data)
        await self._response.write(data)

    async def send(
        self, status: int, body: bytes | Object, content_type: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
        await self.begin(status, content_type or "application/json", headers)
        await self.write(raw)

    def mute(self) -> None:
        """Let whatever is sent be lost."""
        self._muted = True

    async def refuse(self, refusal: Refusal) -> None:
        """Send a Status."""
        await self.send(refusal.code, refusal.body)

    @property
    def begun(self) -> bool:
        """Say whether status and headers were sent."""
        return self._response is not None

    def response(self) -> web.StreamResponse:
        """Return what was sent."""
        assert self._response is not None, f"nobody answered {self.call.method} {self.call.path}"
        return self._response


def break_connection(transport: asyncio.BaseTransport | None, *, reset: bool) -> None:
    """Close a connection in the middle of an answer, or reset it."""
    if not isinstance(transport, asyncio.Transport):
        return
    raw = transport.get_extra_info("socket")
    if reset and raw is not None:
        # Lingering for no time at all makes the close a reset.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
