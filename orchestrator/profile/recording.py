"""Calls of a store that may be full, locked or away for a while."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import KprofError

TRIES = 12
PAUSE_SECONDS = 5.0


Result = TypeVar("Result")


async def patiently(call: Callable[[], Result]) -> Result:
    """Call the store, trying again for a minute; raises its KprofError when that is over, or when it is stopped."""
    for _ in range(TRIES - 1):
        try:
            return call()
        except KprofError as error:
            try:
                await asyncio.sleep(PAUSE_SECONDS)
            except asyncio.CancelledError:
                raise error from None  # whoever stops now must learn that the call failed
    return call()
