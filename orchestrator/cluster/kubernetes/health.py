"""Whether the API server answers, how far its clock is off, and which streams must be opened anew after an outage."""

import asyncio
import random
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import aiohttp

OUTAGE_THAT_KILLS_STREAMS_SECONDS = 3.0
LOOK_SECONDS = 5.0
SLEPT_SECONDS = 30.0
SPREAD_SECONDS = 5.0  # over which all take up their work again after an outage
HURRIED_SPREAD_SECONDS = 1.0  # the same when there is no more time to wait


def boot_time() -> float:
    """Return seconds that go on while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if clock is None else time.clock_gettime(clock)


class Health:
    """What all calls of one transport learn about the API server together.

    A stream that lived through an outage, or through the sleep of this machine, may be silent for ever without
    being closed: it is dropped, and whoever reads it opens it anew.
    """

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._streams: set[aiohttp.ClientResponse] = set()
        self._recovered = asyncio.Event()
        self._hurried = asyncio.Event()
        self.clock_skew_seconds: float | None = None
        self.give_up_at: float | None = None  # by the monotonic clock, when there is no more time for outages

    @property
    def late(self) -> bool:
        """Say whether the time that was left for cleaning up is over."""
        return self.give_up_at is not None and time.monotonic() >= self.give_up_at

    @property
    def answering(self) -> bool:
        """Say whether the last call was answered."""
        return self._failing_since is None

    def failed(self) -> None:
        """Note a call that was not answered, or with a server error."""
        if self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()

    def answered(self, date: str | None) -> None:
        """Note an answered call and the Date of the answer."""
        began, self._failing_since = self._failing_since, None
        if began is not None and asyncio.get_running_loop().time() - began > OUTAGE_THAT_KILLS_STREAMS_SECONDS:
            self.drop_streams()
            self._recovered.set()
            self._recovered = asyncio.Event()
        if date is not None:
            with suppress(ValueError, TypeError):
                self.clock_skew_seconds = time.time() - parsedate_to_datetime(date).timestamp()

    async def pause(self, seconds: float) -> None:
        """Wait before something is tried again; when an outage ends meanwhile, only for a moment, each its own."""
        try:
            async with asyncio.timeout(seconds):
                await self._recovered.wait()
        except TimeoutError:
            return
        await asyncio.sleep(random.uniform(0, min(seconds, SPREAD_SECONDS)))  # noqa: S311 - guards nothing

    def hurry(self, seconds: float) -> None:
        """Leave only so much time for outages, and end the waits that have begun."""
        self.give_up_at = time.monotonic() + seconds
        self._hurried.set()

    async def wait(self, seconds: float) -> None:
        """Wait before a call is repeated; when there is no more time meanwhile, only for a moment, each its own."""
        if self._hurried.is_set():
            await asyncio.sleep(seconds)  # it was measured by the time that is left
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
                await asyncio.sleep(random.uniform(0, HURRIED_SPREAD_SECONDS))  # noqa: S311 - guards nothing

    def opened(self, stream: aiohttp.ClientResponse) -> None:
        """Note a stream that will be read for long."""
        self._streams.add(stream)

    def closed(self, stream: aiohttp.ClientResponse) -> None:
        """Forget a stream."""
        self._streams.discard(stream)

    def drop_streams(self) -> None:
        """Close every stream; its reader sees a connection error."""
        for stream in list(self._streams):
            stream.close()

    async def drop_streams_after_sleep(self) -> None:
        """Watch for a sleep of this machine or process, for ever."""
        while True:
            before = boot_time()
            await asyncio.sleep(LOOK_SECONDS)
            if boot_time() - before > LOOK_SECONDS + SLEPT_SECONDS:
                self.drop_streams()
