"""A wait before a call is repeated, when kprof is told to stop meanwhile."""

import asyncio

import pytest

from orchestrator.cluster.kubernetes.health import HURRIED_SPREAD_SECONDS, Health

pytestmark = pytest.mark.looptime
LONG = 60.0


async def _waited(health: Health, seconds: float) -> float:
    clock = asyncio.get_running_loop().time
    begin = clock()
    await health.wait(seconds)
    return clock() - begin


async def test_a_wait_that_has_begun_is_cut_short() -> None:
    """It ends a moment after the word, each at its own time: the API server may have asked many to wait."""
    health = Health()
    waiting = [asyncio.create_task(_waited(health, LONG)) for _ in range(20)]
    await asyncio.sleep(10)
    health.hurry(15)
    took = await asyncio.gather(*waiting)
    assert 10 <= min(took) < max(took) <= 10 + HURRIED_SPREAD_SECONDS


async def test_a_wait_that_begins_later_takes_its_time() -> None:
    """What is tried again in the time that is left is not tried in a rush."""
    health = Health()
    assert await _waited(health, 3) == pytest.approx(3)
    health.hurry(15)
    assert await _waited(health, 3) == pytest.approx(3)
