"""Work that may start the login command of a kubeconfig, which may hang: it gets half a minute, then it is ended."""

import asyncio
import os
import signal
import threading
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
    before = _children()
    try:
        return _started(work).result(LOGIN_SECONDS)
    except TimeoutError as error:
        _end(_children() - before)
        words = f"kubeconfig: the login command did not end within {LOGIN_SECONDS:g} s"
        raise ClusterError(words, remedy="run the context's login command by hand") from error


async def within_limit_async(work: Callable[[], T]) -> T:
    """Do the work while the loop goes on; raises TimeoutError when it takes too long."""
    before = _children()
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            return await asyncio.wrap_future(_started(work))
    except (TimeoutError, asyncio.CancelledError):
        _end(_children() - before)
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


def _children() -> set[int]:
    """Return the processes that this one started; empty where there is no /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def _end(processes: set[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
