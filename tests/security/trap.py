"""Another server on loopback, to which kprof has no business to speak: it notes whatever comes."""

import asyncio
from types import TracebackType
from typing import Self


class Trap:
    """Listens on a port of its own; `heard` is what each connection sent first."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._note, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def _note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()
