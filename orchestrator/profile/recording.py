"""Writes to a store that may be full or locked for a while."""

import asyncio
from collections.abc import Callable

from orchestrator.errors import KprofError

TRIES = 12
PAUSE_SECONDS = 5.0


async def written(write: Callable[[], None]) -> None:
    """Write, trying again for a minute; raises the store's KprofError when that is over, or when it is stopped."""
    for left in reversed(range(TRIES)):
        try:
            write()
        except KprofError as error:
            if not left:
                raise
            try:
                await asyncio.sleep(PAUSE_SECONDS)
            except asyncio.CancelledError:
                raise error from None  # whoever stops now must learn that nothing was written
        else:
            return
