"""An event loop whose clock runs faster, so that a test need not sit through the minutes that kprof waits.

Sockets and files are as fast as ever: only what is timed by the loop shrinks.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / self._factor)


class HurriedLoop(asyncio.SelectorEventLoop):
    """A loop for which `factor` seconds pass in one."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        super().__init__(_Selector(factor))

    def time(self) -> float:
        """Return the hurried clock."""
        return super().time() * self._factor


def hurried(work: Coroutine[Any, Any, T], *, factor: float) -> T:
    """Run a coroutine to its end with a clock that is `factor` times as fast."""
    with asyncio.Runner(loop_factory=lambda: HurriedLoop(factor)) as runner:
        return runner.run(work)
