"""The clock of one point: it counts only what the point can be blamed for."""

import asyncio
from collections.abc import Callable

SLEPT_SECONDS = 30.0  # whoever waits looks every second; a longer step means that this process did not run


class PointClock:
    """Seconds in which the cluster answered and this process ran, counted from look to look.

    While the cluster does not answer nobody knows what the point does, and after a sleep of this machine nobody
    looked: neither may use up a limit of the point.
    """

    def __init__(self, answering: Callable[[], bool]) -> None:
        self._answering = answering
        self._time = asyncio.get_running_loop().time
        self._last = self._time()
        self._counted = 0.0
        self.uncounted_seconds = 0.0

    def __call__(self) -> float:
        """Return the seconds counted so far; call it at least every few seconds."""
        now = self._time()
        step, self._last = now - self._last, now
        if self._answering() and step <= SLEPT_SECONDS:
            self._counted += step
        else:
            self.uncounted_seconds += step
        return self._counted
