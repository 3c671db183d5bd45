"""A pod's port over the API server's port-forward, as a socket file that only this user can open."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import aiohttp

from orchestrator.cluster.kubernetes.transport import TRANSPORT_ERRORS, Transport
from orchestrator.cluster.port import PodUnreachableError

PROTOCOL = "v4.channel.k8s.io"  # frames of one channel byte and data: 0 is the stream, 1 says what went wrong
DATA, ERROR = 0, 1
CHUNK_BYTES = 1 << 16


class PortForward:
    """Forwards connections to one port of one pod; every connection is a websocket of its own."""

    def __init__(self, transport: Transport, path: str, port: int) -> None:
        self._transport = transport
        self._path = path
        self._port = port
        self._folder = tempfile.TemporaryDirectory(prefix="kprof-")
        self.socket = str(Path(self._folder.name) / "http")
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start listening; raises PodUnreachableError when the API server refuses to forward."""
        async with self._connected():
            pass
        self._server = await asyncio.start_unix_server(self._accept, self.socket)

    async def close(self) -> None:
        """Stop, and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._folder.cleanup()

    @contextlib.asynccontextmanager
    async def _connected(self):  # type: ignore[no-untyped-def]
        try:
            async with self._transport.websocket(self._path, {"ports": str(self._port)}, PROTOCOL) as stream:
                yield stream
        except TRANSPORT_ERRORS as error:
            raise PodUnreachableError(f"port-forward: {error or type(error).__name__}") from error

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with self._connected() as stream:
                there = asyncio.create_task(_to_pod(reader, stream))
                back = asyncio.create_task(_from_pod(stream, writer))
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                for pump in (there, back):
                    pump.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except PodUnreachableError:
            pass  # the client sees its connection closed
        finally:
            self._connections.discard(task)
            writer.close()


async def _to_pod(reader: asyncio.StreamReader, stream: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await stream.send_bytes(bytes([DATA]) + data)


async def _from_pod(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    greeted: set[int] = set()
    async for message in stream:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            return
        channel, data = message.data[0], message.data[1:]
        if channel not in greeted:
            greeted.add(channel)  # the first frame of a channel only repeats the port
        elif channel == ERROR:
            return
        else:
            writer.write(data)
            await writer.drain()
