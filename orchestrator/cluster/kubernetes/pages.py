"""Long lists in pages, each of which is gone before the next one comes: a large cluster has a hundred thousand pods."""

from collections.abc import AsyncIterator, Mapping

from orchestrator.cluster.kubernetes.transport import Object, Transport

PAGE = "500"


async def pages(transport: Transport, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[Object]:
    """Yield the pages of a list; ApiError passes through, among them 410 when a list takes too long."""
    asked = {**(params or {}), "limit": PAGE}
    while True:
        page = await transport.call("GET", path, asked)
        yield page
        token = (page.get("metadata") or {}).get("continue")
        if not token:
            return
        asked["continue"] = token


async def items(transport: Transport, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[Object]:
    """Yield the objects of a list."""
    async for page in pages(transport, path, params):
        for item in page.get("items") or []:
            yield item
