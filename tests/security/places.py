"""Every place from which foreign text comes to kprof: a point for each, played on the fault server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cluster.port import POINT_ID_LABEL
from tests.fakes.cluster import NO_ROOM_LOG, SIMULATOR_LOG, FakeServer
from tests.fakes.matrix import document, group
from tests.faults.calls import Call
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import be_ready
from tests.faults.server import FaultServer
from tests.faults.statuses import Object, Refusal

Play = Callable[[PodPlay, str], Awaitable[None]]
Says = Callable[[str], str]
REFUSED = "refused"
QUEUED_SECONDS = 2.5  # long enough for the live view to be drawn several times


async def _log(pod: PodPlay, text: str) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG + _bytes(text) + b"\n")
    be_ready(pod)
    await pod.forever()


async def _log_in_utf_16(pod: PodPlay, text: str) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG + text.encode("utf-16-le", "surrogatepass") + b"\n")
    be_ready(pod)
    await pod.forever()


async def _last_words(pod: PodPlay, text: str) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG + _bytes(text))
    pod.exit(1)
    await pod.forever()


async def _failure(pod: PodPlay, text: str) -> None:
    pod.run()
    pod.say(SIMULATOR_LOG + b"".join(NO_ROOM_LOG[:-1] + b" " + _bytes(line) + b"\n" for line in text.split("\n")))
    pod.exit(1)
    await pod.forever()


async def _waiting(pod: PodPlay, text: str) -> None:
    pod.schedule()
    pod.wait("InvalidImageName", text)
    await pod.forever()


async def _reason(pod: PodPlay, text: str) -> None:
    pod.run()
    pod.fail("DeadlineExceeded", text)
    await pod.forever()


async def _start_error(pod: PodPlay, text: str) -> None:
    pod.schedule()
    pod.exit(128, "StartError", text)
    await pod.forever()


async def _queue(pod: PodPlay, text: str) -> None:
    pod.unschedulable(text)
    await asyncio.sleep(QUEUED_SECONDS)
    pod.condition("PodScheduled", "True")
    await _log(pod, "")


async def _answer(pod: PodPlay, text: str) -> None:
    server = FakeServer()

    async def refusal() -> AsyncIterator[bytes]:
        yield _bytes(text)

    def http(method: str, path: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
        return (400, refusal()) if method == "POST" else server.answer(method, path, body)

    pod.run()
    pod.say(SIMULATOR_LOG)
    be_ready(pod)
    pod.http = http
    await pod.forever()


PLACES: Mapping[str, Play] = {
    "log": _log,
    "log-in-utf-16": _log_in_utf_16,
    "last-words": _last_words,
    "failure": _failure,
    "waiting": _waiting,
    "reason": _reason,
    "start-error": _start_error,
    "queue": _queue,
    "answer": _answer,
    REFUSED: _log,
}


def script(says: Says) -> Script:
    """Return what pods do where each place says its text."""

    async def played(pod: PodPlay) -> None:
        place = _place(pod.object)
        await PLACES[place](pod, says(place))

    return played


def refuse(server: FaultServer, says: Says) -> None:
    """Let an admission webhook refuse the pod of one point, with its text."""

    def admission(call: Call, item: Object) -> None:
        if not call.is_dry and call.path.endswith("/pods") and _place(item) == REFUSED:
            raise Refusal(422, "Invalid", says(REFUSED))

    server.api.admission = admission


def matrix(folder: Path, **defaults: Any) -> Path:
    """Write a matrix with a point for each place."""
    groups = [group(place, arguments={"seed": number}) for number, place in enumerate(PLACES)]
    fields = {"pod": {"imagePullPolicy": "IfNotPresent"}} | defaults
    path = folder / "places.yaml"
    path.write_text(yaml.safe_dump(document(*groups, **fields), sort_keys=False), encoding="utf-8")
    return path


def _place(pod: Object) -> str:
    return str(pod["metadata"]["labels"][POINT_ID_LABEL])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
