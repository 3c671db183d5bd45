"""What a test can break: which requests, how, and how often."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.faults.calls import Call, Cut, Exchange
from tests.faults.reading import JSON_LINES, error_event
from tests.faults.statuses import Object, status

Where = Callable[[Call], bool]
Serve = Callable[[Exchange], Awaitable[None]]
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def anywhere(_call: Call) -> bool:
    """Match every request."""
    return True


def on(method: str, end: str = "") -> Where:
    """Match one method on paths with an end, dry runs excepted."""
    return lambda call: call.method == method and call.path.endswith(end) and not call.is_dry and not call.is_watch


def is_create(call: Call) -> bool:
    """Match the creation of a pod that is meant."""
    return on("POST", "/pods")(call)


def is_dry_run(call: Call) -> bool:
    """Match the trial of a pod."""
    return call.method == "POST" and call.path.endswith("/pods") and call.is_dry


@dataclass
class Fault(ABC):
    """Meets the requests that `where` matches, `times` of them, or all while it is on; `met` counts them."""

    where: Where = anywhere
    times: int | None = None
    met: int = field(default=0, init=False)

    def wants(self, call: Call) -> bool:
        """Say whether this request is to be met."""
        return (self.times is None or self.met < self.times) and self.where(call)

    @abstractmethod
    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Answer in place of the server; False leaves it to the server."""


@dataclass
class Answer(Fault):
    """Answer with these bytes or this object; `done` lets the server do what was asked before."""

    status: int = 500
    body: bytes | Object = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    done: bool = False

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Answer."""
        if self.done:
            aside = Exchange(exchange.request, exchange.call)
            aside.mute()
            await serve(aside)
        await exchange.send(self.status, self.body, self.content_type, self.headers)
        return True


@dataclass
class Hang(Fault):
    """Never answer."""

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Wait until the client goes away."""
        await asyncio.get_running_loop().create_future()
        return True


@dataclass
class Slow(Fault):
    """Answer late."""

    seconds: float = 1.0

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Wait, then let the server answer."""
        await asyncio.sleep(self.seconds)
        return False


@dataclass
class CutOff(Fault):
    """Break the answer off after some bytes of its body."""

    after: int = 0
    how: str = "clean"

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Let the server answer so far."""
        exchange.cut = Cut(self.after, self.how)
        return False


def empty_list(*, times: int | None = 1) -> Answer:
    """Answer a list of a run's pods with none, as a stale cache does."""
    nothing: Object = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}
    return Answer(lambda call: call.is_list, times, 200, nothing)


def refusal(
    code: int, reason: str, message: str, *, where: Where = anywhere, times: int | None = None, cause: str = ""
) -> Answer:
    """Answer with a Status."""
    return Answer(where, times, code, status(code, reason, message, cause))


def too_many_requests(seconds: int, *, where: Where = anywhere, times: int | None = None) -> Answer:
    """Answer as API priority and fairness does: 429, plain text, and when to come again."""
    words = b"Too many requests, please try again later.\n"
    return Answer(where, times, 429, words, "text/plain; charset=utf-8", {"Retry-After": str(seconds)})


def watch_error(code: int, reason: str, message: str, *, times: int | None = 1) -> Answer:
    """Answer a watch with an ERROR event."""
    return Answer(lambda call: call.is_watch, times, 200, error_event(code, reason, message), JSON_LINES)


class Faults:
    """The faults that are on; of several that match, the one switched on last meets the request."""

    def __init__(self) -> None:
        self._on: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Switch a fault on for good, or for as often as it says."""
        self._on.append(fault)
        return fault

    @contextmanager
    def during(self, fault: Fault) -> Iterator[Fault]:
        """Switch a fault on while the body runs."""
        self.add(fault)
        try:
            yield fault
        finally:
            self._on.remove(fault)

    def take(self, call: Call) -> Fault | None:
        """Return the fault that meets this request."""
        for fault in reversed(self._on):
            if fault.wants(call):
                fault.met += 1
                return fault
        return None
