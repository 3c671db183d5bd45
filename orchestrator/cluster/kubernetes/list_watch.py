"""List, then watch from there, for ever: relist on 410, resume after cuts, back off, never spin."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from orchestrator.cluster.kubernetes.pages import pages
from orchestrator.cluster.kubernetes.transport import (
    REFUSED_SECONDS,
    RETRIED,
    TRANSPORT_ERRORS,
    WATCH_IDLE_SECONDS,
    ApiError,
    Transport,
)
from orchestrator.cluster.port import Change, PodSnapshot
from orchestrator.errors import ClusterError

HEALTHY_SECONDS = 5.0  # a watch that lived this long, or told something, resets the back-off
MAX_WAIT_SECONDS = 30.0
RELIST_SECONDS = 300.0  # a watch from a version of the future is silent for ever; a fresh list is not


Read = Callable[[Mapping[str, Any]], PodSnapshot]


async def list_watch(transport: Transport, path: str, selector: str, read: Read) -> AsyncIterator[Change]:
    """Yield a listing first and after every relist, then changes. Raises ClusterError when access stays denied.

    `read` makes a snapshot of one object as the API server sends it.
    """
    clock = asyncio.get_running_loop().time
    version: str | None = None
    failures, listed = 0, 0.0
    refused: float | None = None
    while True:
        begin, alive = clock(), False
        try:
            if version is None or clock() - listed > RELIST_SECONDS:
                found, version = await _list(transport, path, selector)
                listed = clock()
                yield Change(listing=[read(item) for item in found])
            async for kind, item in _watch(transport, path, selector, version):
                version = (item.get("metadata") or {}).get("resourceVersion") or version
                alive, refused = True, None
                if kind != "BOOKMARK":
                    yield Change(pod=read(item), deleted=kind == "DELETED")
            refused = None
        except ApiError as error:
            denied = error.code in {401, 403}
            refused = (begin if refused is None else refused) if denied else None
            if error.code in {404, 405} or (refused is not None and clock() - refused > REFUSED_SECONDS):
                what = path.rpartition("/")[2]
                raise ClusterError(f"watching {what}: {error.message}", remedy="see docs/rbac.md") from error
            if error.code not in RETRIED or "resource version" in error.message.lower():
                alive = version is not None and clock() - listed > HEALTHY_SECONDS  # after an outage, list at once
                version = None  # too old, or of a future that a restored etcd does not know
        except TimeoutError:
            alive, refused = True, None  # an idle watch: go on from the last version
        except (*TRANSPORT_ERRORS, ValueError, KeyError, TypeError):
            pass  # a cut, or half an answer: go on from the last version
        # A watch that lived, or that told something, was healthy; the next one need not wait long.
        failures = 0 if alive or clock() - begin > HEALTHY_SECONDS else failures + 1
        longest = min(MAX_WAIT_SECONDS, 0.2 * 2 ** min(failures, 10))
        await transport.health.pause(random.uniform(longest / 2, longest))  # noqa: S311 - spreads retries, guards nothing


async def _list(transport: Transport, path: str, selector: str) -> tuple[list[dict[str, Any]], str]:
    found: list[dict[str, Any]] = []
    version = ""
    async for page in pages(transport, path, {"labelSelector": selector}):
        found += page.get("items") or []
        version = str(page["metadata"]["resourceVersion"])
    return found, version


async def _watch(
    transport: Transport, path: str, selector: str, version: str
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    params = {
        "labelSelector": selector,
        "watch": "1",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(random.randint(240, 300)),  # noqa: S311 - spreads reconnects, guards nothing
    }
    async with transport.follow(path, params, idle_seconds=WATCH_IDLE_SECONDS) as reply:
        rest = b""
        async for chunk in reply.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not line.strip():
                    continue
                event = json.loads(line)
                item = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(int(item.get("code") or 0), str(item.get("reason")), str(item.get("message")))
                yield event["type"], item
