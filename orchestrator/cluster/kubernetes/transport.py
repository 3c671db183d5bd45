"""Requests to the API server: every one has a limit, retries transport trouble, and never follows a redirect."""

import asyncio
import copy
import json
import re
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from orchestrator import __version__
from orchestrator.cluster.excerpt import excerpt
from orchestrator.cluster.kubernetes.credentials import Credentials
from orchestrator.cluster.kubernetes.health import Health
from orchestrator.errors import ClusterError

AGENT = f"kprof/{__version__}"
CONNECT_SECONDS = 5
CALL_SECONDS = 30.0
SHORTEST_CALL_SECONDS = 5.0
WATCH_IDLE_SECONDS = 75.0  # a watch hears a bookmark about once a minute
OUTAGE_SECONDS = 1800.0  # an API server that is away for a quarter of an hour is still waited for
HURRIED_OUTAGE_SECONDS = 15.0
REFUSED_SECONDS = 60.0  # an API server that has just started may know its rules only after a while
LAST_CALL_SECONDS = 1.0  # what a call gets when there is no time left
RETRIED = frozenset({429, 500, 502, 503, 504})
TRANSPORT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
MAX_RETRY_AFTER_SECONDS = 60.0
_OBJECT = re.compile(r"(/namespaces/[^/]+/[^/]+)/[^/]+")
_NO_RIGHT = re.compile(r"cannot \w+ resource")  # RBAC's words; admission has others

# asyncio gives each TLS connection a read buffer of 256 KiB, for which it has no option; a thousand logs need no more
# than 32 KiB each. Without that attribute, in a Python to come, they take what they took.
SSLProtocol.max_size = 32 * 1024

Params = Mapping[str, str]
Object = dict[str, Any]


class ApiError(Exception):
    """The API server answered with a Status: its code, reason and message."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


def _retryable(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        # A quota that changes while it is being charged is a conflict on create; the name may not be taken yet.
        return error.code in RETRIED or (error.code == 409 and error.reason == "Conflict" and "quota" in error.message)
    return isinstance(error, TRANSPORT_ERRORS)


def _is_refusal(error: BaseException) -> bool:
    """Say whether the API server did not let the caller in, or knew no rule that gives the right."""
    if not isinstance(error, ApiError):
        return False
    words = error.message
    return error.code == 401 or (
        error.code == 403 and _NO_RIGHT.search(words) is not None and "admission webhook" not in words
    )


_BACKOFF = wait_random_exponential(multiplier=0.25, max=30)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ApiError) else None
    return max(min(asked or 0.0, MAX_RETRY_AFTER_SECONDS), _BACKOFF(state))


async def _websockets_stay(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let no websocket follow a redirect: aiohttp has no option against it."""
    reply = await handler(request)
    if reply.status in range(300, 400) and "Sec-WebSocket-Key" in request.headers:
        reply.close()
        raise aiohttp.ClientError(f"the API server answered {reply.status}")
    return reply


class Transport:
    """Two pools of connections: one for short calls, one for streams, so that neither starves the other."""

    def __init__(self, credentials: Credentials, *, outage_seconds: float = OUTAGE_SECONDS) -> None:
        self._credentials = credentials
        self._outage_seconds = outage_seconds
        self._call_seconds = CALL_SECONDS
        self._host = credentials.endpoint.host
        self._route: dict[str, Any] = credentials.route()
        self._bears_refusals = True
        self._refused_since: dict[str, float] = {}  # by what was asked for, until another answer
        self.health = Health()

    async def __aenter__(self) -> Self:
        self._calls = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=16),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._streams = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=WATCH_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 16,
            middlewares=(_websockets_stay,),
        )
        self._sleeping = asyncio.create_task(self.health.drop_streams_after_sleep(), name="watch for sleep")
        return self

    def with_outage(self, seconds: float) -> "Transport":
        """Return the same connections with another limit on how long an outage is sat out, and a call waited for."""
        other = self.strict()  # there is no minute for a refusal
        other._outage_seconds = seconds  # noqa: SLF001 - a copy of itself
        other._call_seconds = min(CALL_SECONDS, max(SHORTEST_CALL_SECONDS, seconds))  # noqa: SLF001
        return other

    def strict(self) -> "Transport":
        """Return the same connections for calls to which a refusal is an answer."""
        other = copy.copy(self)
        other._bears_refusals = False  # noqa: SLF001 - a copy of itself
        return other

    def optional(self, seconds: float) -> "Transport":
        """Return the same connections for what is not needed: no answer to it says that the cluster is away."""
        other = self.with_outage(seconds)
        other.health = Health()
        return other

    def hurry(self) -> None:
        """Give up on outages a few seconds from now, however many calls they hold up, and for however long."""
        self.health.hurry(HURRIED_OUTAGE_SECONDS)

    def _gives_up(self, state: RetryCallState) -> bool:
        if state.seconds_since_start is None:
            return False
        end = self.health.give_up_at
        hurried = end is not None and time.monotonic() + state.upcoming_sleep >= end
        return hurried or state.seconds_since_start + state.upcoming_sleep >= self._outage_seconds

    def _again(self, error: BaseException, what: str) -> bool:
        return _retryable(error) or (_is_refusal(error) and self._bears_refusals and self._bearable(what))

    def _bearable(self, what: str) -> bool:
        """Say whether this is refused for less than a minute, to credentials that were good before."""
        now = asyncio.get_running_loop().time()
        since = self._refused_since.setdefault(what, now)
        return self._credentials.accepted and now - since < REFUSED_SECONDS

    def _way(self) -> dict[str, Any]:
        """Return aiohttp's options for the way to the API server; renewed credentials open connections of their own."""
        return {**self._route, "ssl": self._credentials.tls()}

    def _limit_of_call(self) -> float:
        end = self.health.give_up_at
        return (
            self._call_seconds
            if end is None
            else min(self._call_seconds, max(LAST_CALL_SECONDS, end - time.monotonic()))
        )

    async def __aexit__(self, *exc: object) -> None:
        self._sleeping.cancel()
        await asyncio.gather(self._sleeping, return_exceptions=True)
        await self._calls.close()
        await self._streams.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: bytes | None = None,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        total_seconds: float | None = None,
        idle_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and yield the open answer, whatever its status; renews credentials once on 401.

        `total_seconds` limits the whole request, `idle_seconds` each silence of a stream.
        """
        session = self._streams if stream else self._calls
        timeout = None
        if total_seconds is not None or idle_seconds is not None:
            timeout = aiohttp.ClientTimeout(
                total=total_seconds, sock_connect=CONNECT_SECONDS, sock_read=None if total_seconds else idle_seconds
            )
        for renew in (False, True):
            async with asyncio.timeout(total_seconds):
                own = await self._credentials.headers(renew=renew)
            send = {"User-Agent": AGENT, **(headers or {}), **own}
            if body is not None:
                send.setdefault("Content-Type", "application/json")
            options = self._way()
            if timeout is not None:
                options["timeout"] = timeout
            async with session.request(
                method, self._host + path, params=params, data=body, headers=send, allow_redirects=False, **options
            ) as reply:
                if reply.status == 401 and not renew:
                    continue
                self._credentials.accepted |= reply.status < 300
                yield reply
                return

    @asynccontextmanager
    async def follow(self, path: str, params: Params, *, idle_seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a watch or a log, which is dropped when the API server was away; raises ApiError for a refusal."""
        async with self.open("GET", path, params, stream=True, idle_seconds=idle_seconds) as reply:
            if reply.status >= 300:
                raise api_error(reply.status, await reply.read(), reply.headers.get("Retry-After"))
            self.health.opened(reply)
            try:
                yield reply
            finally:
                self.health.closed(reply)

    @asynccontextmanager
    async def websocket(
        self, path: str, params: Params, protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket, which speaks for one connection; renews credentials once on 401."""
        for renew in (False, True):
            headers = {"User-Agent": AGENT, **await self._credentials.headers(renew=renew)}
            opening = self._streams.ws_connect(
                self._host + path, params=params, headers=headers, protocols=[protocol], max_msg_size=0, **self._way()
            )
            try:
                stream = await opening
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 401 and not renew:
                    continue
                raise
            try:
                yield stream
            finally:
                await stream.close()
            return

    async def send(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: Object | None = None,
        *,
        accept: str | None = None,
    ) -> Object:
        """Send one request once; raises ApiError for any Status, aiohttp's errors for transport trouble."""
        raw = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept} if accept else None
        try:
            async with self.open(
                method, path, params, raw, headers=headers, total_seconds=self._limit_of_call()
            ) as reply:
                data = await reply.read()
        except TRANSPORT_ERRORS:
            self.health.failed()
            raise
        if reply.status in RETRIED:
            self.health.failed()
        else:
            self.health.answered(reply.headers.get("Date"))
        error = None if reply.status < 300 else api_error(reply.status, data, reply.headers.get("Retry-After"))
        if error is None or not _is_refusal(error):
            self._refused_since.pop(_what(method, path), None)
        if error is not None:
            raise error
        return _object(data)

    async def call(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: Object | None = None,
        *,
        accept: str | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Object:
        """Send a request until it is answered: names are deterministic, so a POST may be repeated.

        `before` is awaited ahead of each try; what it raises ends the call. What was allowed before is asked again for
        a minute when it is refused.

        Raises ApiError for an answer that repeating cannot mend, ClusterError when the outage lasts too long.
        """
        what = _what(method, path)
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: self._again(error, what)),
            wait=_wait,
            stop=self._gives_up,
            sleep=self.health.wait,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if before is not None:
                        await before()
                    return await self.send(method, path, params, body, accept=accept)
        except TRANSPORT_ERRORS as error:
            raise ClusterError(
                f"the API server {self._host} does not answer: {error or type(error).__name__}",
                remedy="check the network and the context, then run the same command again",
            ) from error
        raise AssertionError  # the loop returns or raises


def _what(method: str, path: str) -> str:
    """Return what a right is given for: a verb on a kind of object, whatever the object's name."""
    kind = _OBJECT.sub(r"\1", path)
    return f"{method} {kind}"


def api_error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """Build an ApiError from an answer that may be a Status, plain text or a proxy's HTML."""
    wait = float(retry_after) if retry_after and retry_after.isdigit() else None
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and parsed.get("kind") == "Status":
        return ApiError(status, str(parsed.get("reason") or ""), str(parsed.get("message") or ""), wait)
    return ApiError(status, "NotAStatus", excerpt(data, 200), wait)


def _object(data: bytes) -> Object:
    try:
        parsed = json.loads(data)
    except ValueError as error:
        raise aiohttp.ClientPayloadError("the answer is no JSON") from error
    if not isinstance(parsed, dict):
        raise aiohttp.ClientPayloadError("the answer is no JSON object")
    return parsed
