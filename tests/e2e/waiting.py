"""Waiting on facts: a predicate, a limit, and words for the report when the limit passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05
REAL_SECONDS = 10.0  # a busy machine needs its time also where a test's clock is hurried


def wait_until(what: str, fact: Callable[[], T | None], *, seconds: float, every: float = POLL_SECONDS) -> T:
    """Return the first true value of `fact`; fails with `what` when none came within the limit."""
    end = time.monotonic() + seconds
    while True:
        value = fact()
        if value:
            return value
        assert time.monotonic() < end, f"within {seconds:g} s it did not happen that {what}"
        time.sleep(every)


async def eventually(
    what: str, fact: Callable[[], Awaitable[T | None]], *, seconds: float = 60.0, every: float = POLL_SECONDS
) -> T:
    """Return the first true value that `fact` gives when awaited; fails with `what` when none came in time."""
    clock = asyncio.get_running_loop().time
    end, real_end = clock() + seconds, time.monotonic() + min(seconds, REAL_SECONDS)
    while True:
        value = await fact()
        if value:
            return value
        assert clock() < end or time.monotonic() < real_end, f"within {seconds:g} s it did not happen that {what}"
        await asyncio.sleep(every)
