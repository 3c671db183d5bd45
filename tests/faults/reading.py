"""What is read of the server as a stream: watches and logs."""

import asyncio
import json

from tests.faults.calls import Exchange, Target
from tests.faults.kubelet import PodPlay
from tests.faults.objects import Objects
from tests.faults.selection import matches
from tests.faults.statuses import Object, Refusal, expired, status, too_large

JSON_LINES = "application/json;stream=watch"
RUNTIME_BYTES = 16 << 10  # of a line without a line feed, which a container runtime writes at a time


def version_of(exchange: Exchange, objects: Objects, *, silent_future: bool) -> int:
    """Return the version that a watch begins after; raises Refusal for one that cannot be served."""
    asked = int(exchange.call.query.get("resourceVersion") or objects.version)
    if asked > objects.version and not silent_future:
        raise too_large(asked, objects.version)
    return asked


async def watch(exchange: Exchange, target: Target, objects: Objects, version: int, bookmark_seconds: float) -> None:
    """Send every change after a version; one that was forgotten ends the watch with an ERROR event."""
    query = exchange.call.query
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    await exchange.begin(200, JSON_LINES)
    while True:
        change = objects.next_change()  # taken before looking, so that nothing written meanwhile is missed
        if version < objects.oldest:
            await _event(exchange, "ERROR", expired(version, objects.oldest).body)
            return
        for event in [event for event in objects.history if event.version > version]:
            version = event.version
            selected = event.key[0] == target.resource and target.namespace in {"", event.key[1]}
            if selected and matches(event.object, labels, fields):
                await _event(exchange, event.type, event.object)
        try:
            async with asyncio.timeout(bookmark_seconds):
                await change.wait()
        except TimeoutError:
            marker = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(objects.version)}}
            await _event(exchange, "BOOKMARK", marker)


async def _event(exchange: Exchange, kind: str, item: Object) -> None:
    text = json.dumps({"type": kind, "object": item}, ensure_ascii=False)
    await exchange.write(text.encode() + b"\n")


async def log(exchange: Exchange, play: PodPlay | None, name: str) -> None:
    """Send a log; a following reader gets each finished line as it is printed, until the container ended.

    Of a line that is not finished it gets what the container runtime has written.
    """
    if play is None:
        raise Refusal(404, "NotFound", f'pods "{name}" not found')
    query = exchange.call.query
    if not play.object["spec"].get("nodeName"):
        await exchange.send(200, b"", "text/plain")
        return
    if play.state not in {"running", "terminated"}:
        words = f'container "vllm" in pod "{name}" is waiting to start: ContainerCreating'
        raise Refusal(400, "BadRequest", words)
    since = query.get("sinceTime", "")[:19]  # the API server cuts it to whole seconds
    stamped, follow = query.get("timestamps") == "true", query.get("follow") == "true"
    await exchange.begin(200, "text/plain")
    lines, sent, begun = play.lines, 0, 0
    while True:
        more = play.more()
        ended = play.state != "running"
        if sent > len(lines):
            sent = begun = 0  # a rotation began a new file
        for stamp, line in lines[sent:]:
            whole = ended or line.endswith(b"\n")
            end = len(line) if whole else len(line) // RUNTIME_BYTES * RUNTIME_BYTES
            if stamp[:19] >= since and end > begun:
                await exchange.write((stamp.encode() + b" " if stamped and not begun else b"") + line[begun:end])
            if not whole:
                begun = end
                break
            sent, begun = sent + 1, 0
        if ended or not follow:
            return
        await more.wait()


def error_event(code: int, reason: str, message: str) -> bytes:
    """Return an ERROR event as a watch sends it."""
    return json.dumps({"type": "ERROR", "object": status(code, reason, message)}).encode() + b"\n"
