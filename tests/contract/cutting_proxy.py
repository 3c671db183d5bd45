"""A TCP proxy that cuts each connection after a random number of bytes, cleanly or with a reset."""

import asyncio
import random
import socket
import struct
from types import TracebackType
from typing import Self

BUFFER_BYTES = 4096


class CuttingProxy:
    """Forwards a port of this machine to a host; `cuts` counts the connections it broke off, `most` ends that."""

    def __init__(
        self, host: str, port: int, *, seed: int, smallest: int, largest: int, most: int | None = None
    ) -> None:
        self._target = host, port
        self._random = random.Random(seed)
        self._range = smallest, largest
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._most = most
        self.cuts = 0

    @property
    def port(self) -> int:
        """Return the port on 127.0.0.1."""
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        """Start listening."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and drop every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def calm(self) -> bool:
        """Say whether the proxy has cut often enough, and cuts no connection at a number of bytes any more."""
        return self._most is not None and self.cuts >= self._most

    def cut_all(self) -> None:
        """Break off every connection now."""
        for writer in list(self._connections):
            self._cut(writer)

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        self.cuts += 1
        raw = writer.get_extra_info("socket")
        if raw is not None and self._random.random() < 0.5:
            # Lingering for no time at all makes the close a reset.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort() if self._random.random() < 0.5 else writer.close()
        self._connections.discard(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            back = asyncio.create_task(self._pump(up_reader, writer, self._random.randint(*self._range)))
            there = asyncio.create_task(self._pump(reader, up_writer, None))
            await asyncio.wait({back, there}, return_when=asyncio.FIRST_COMPLETED)
            for pump in (back, there):
                pump.cancel()
            await asyncio.gather(back, there, return_exceptions=True)
            up_writer.close()
        except OSError:
            pass  # the server refused, or one side left while it was being connected
        finally:
            self._tasks.discard(task)
            self._connections.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        while data := await reader.read(BUFFER_BYTES):
            if limit is not None and not self.calm and passed + len(data) >= limit:
                writer.write(data[: max(0, limit - passed)])
                self._cut(writer)
                return
            passed += len(data)
            writer.write(data)
            await writer.drain()
