"""What pods do in these tests: come up and serve, print and die, or never start."""

import asyncio
from collections.abc import Callable

from tests.fakes.cluster import READY_LOG, SIMULATOR_LOG, FakeServer
from tests.faults.kubelet import PodPlay, Script


async def serving(pod: PodPlay) -> None:
    """Come up, and serve until deleted."""
    pod.run()
    pod.say(SIMULATOR_LOG)
    be_ready(pod)
    await pod.forever()


def be_ready(pod: PodPlay) -> None:
    """Print what a server that came up prints, and answer requests."""
    server = FakeServer()
    pod.http = server.answer
    pod.say(READY_LOG)


def starting(step: Callable[[PodPlay], None]) -> Script:
    """Do one thing before the container starts, and stay so."""

    async def script(pod: PodPlay) -> None:
        pod.schedule()
        step(pod)
        await pod.forever()

    return script


def mending(step: Callable[[PodPlay], None], seconds: float) -> Script:
    """Do one thing before the container starts, and start it after some time all the same."""

    async def script(pod: PodPlay) -> None:
        pod.schedule()
        step(pod)
        await asyncio.sleep(seconds)
        await serving(pod)

    return script


def printing(log: bytes, step: Callable[[PodPlay], None]) -> Script:
    """Run, print, and then do one thing."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(log)
        await asyncio.sleep(0.5)
        step(pod)
        await pod.forever()

    return script


def exiting(code: int, reason: str = "") -> Callable[[PodPlay], None]:
    """End the container."""
    return lambda pod: pod.exit(code, reason)


def first(script: Script, then: Script) -> Script:
    """Play one script for the first pod, another one for those after it."""
    played: list[str] = []

    async def chosen(pod: PodPlay) -> None:
        played.append(pod.uid)
        await (script if len(played) == 1 else then)(pod)

    return chosen
