"""Work that may start the login command of a kubeconfig, which may hang: it gets half a minute, then it is ended."""

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import ClusterError

LOGIN_SECONDS = 30.0
T = TypeVar("T")


def within_limit(work: Callable[[], T]) -> T:
    """Do the work; raises ClusterError when it takes too long."""
    begin = _ticks()
    try:
        return _started(work).result(LOGIN_SECONDS)
    except TimeoutError as error:
        _end_what_started(begin)
        words = f"kubeconfig: the login command did not end within {LOGIN_SECONDS:g} s"
        raise ClusterError(words, remedy="run the context's login command by hand") from error


async def within_limit_async(work: Callable[[], T]) -> T:
    """Do the work while the loop goes on; raises TimeoutError when it takes too long."""
    begin = _ticks()
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            return await asyncio.wrap_future(_started(work))
    except (TimeoutError, asyncio.CancelledError):
        _end_what_started(begin)
        raise


def _started(work: Callable[[], T]) -> Future[T]:
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def call() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - carried over
            done.set_exception(error)

    # Not a thread of the pool: the end of the program waits for these.
    threading.Thread(target=call, name="login", daemon=True).start()
    return done


def _ticks() -> float:
    """Return the time since boot as /proc tells it of processes; infinite where there is no such clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return math.inf if clock is None else time.clock_gettime(clock) * os.sysconf("SC_CLK_TCK")


def _end_what_started(begin: float) -> None:
    """End the processes that this one, or one of those, has started since then; kprof has no others on a cluster."""
    children: dict[int, list[tuple[int, float]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append((int(entry.name), float(fields[19])))
    parents = [os.getpid()]
    while parents:
        for pid, started in children.get(parents.pop(), []):
            if started >= begin - 1:
                parents.append(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
