"""The server in a thread of its own, for tests that run kprof as a process."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from tests.faults.kubelet import Script
from tests.faults.server import FaultServer
from tests.faults.simulated import simulator

T = TypeVar("T")
CALL_SECONDS = 30.0


class BackgroundServer:
    """Runs a FaultServer; `do` and `wait` work in its loop, everything else of it may only be read."""

    def __init__(self, script: Script = simulator) -> None:
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> FaultServer:
            return await FaultServer(self._script).__aenter__()

        self.server = self.wait(start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def cancel_what_is_left() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        try:
            self.wait(lambda: self.server.__aexit__(kind, error, trace))
        finally:
            self.wait(cancel_what_is_left)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_SECONDS)
            self._loop.close()

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await something in the server's loop."""

        async def awaited() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(CALL_SECONDS)

    def do(self, work: Callable[[], T]) -> T:
        """Call something in the server's loop."""

        async def called() -> T:
            return work()

        return self.wait(called)
