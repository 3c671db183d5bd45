"""Calls of a store that may be full, locked or away for a while."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from orchestrator.errors import KprofError

TRIES = 12
PAUSE_SECONDS = 5.0


Result = TypeVar("Result")
# A call blocks its event loop: of many that are tried again, one has its turn, then whatever else waits.
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def patiently(call: Callable[[], Result]) -> Result:
    """Call the store, trying again for a minute; raises its KprofError when that is over, or when it is stopped."""
    try:
        return call()
    except KprofError as error:
        failed = error
    turn = _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    for _ in range(TRIES - 1):
        try:
            await asyncio.sleep(PAUSE_SECONDS)
            async with turn:
                return call()
        except KprofError as error:
            failed = error
        except asyncio.CancelledError:
            break  # whoever stops now must learn that the call failed
    raise failed
