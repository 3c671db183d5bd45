"""What waits to try again does not wait on when the API server is back."""

import asyncio

import pytest

from orchestrator.cluster.kubernetes.health import SPREAD_SECONDS, Health

pytestmark = pytest.mark.looptime
LONG = 30.0


async def _paused(health: Health) -> float:
    clock = asyncio.get_running_loop().time
    begin = clock()
    await health.pause(LONG)
    return clock() - begin


@pytest.mark.parametrize(("outage_seconds", "least", "most"), [(10.0, 10.0, 10.0 + SPREAD_SECONDS), (1.0, LONG, LONG)])
async def test_a_pause_ends_with_the_outage(outage_seconds: float, least: float, most: float) -> None:
    """The end of a real outage ends it; a single call that failed and was answered a moment later does not."""
    health = Health()
    health.failed()
    pausing = [asyncio.create_task(_paused(health)) for _ in range(20)]
    await asyncio.sleep(outage_seconds)
    health.answered(None)
    took = await asyncio.gather(*pausing)
    assert least <= min(took) <= max(took) <= most


async def test_those_that_go_on_are_spread() -> None:
    """A thousand logs are not opened anew in one moment."""
    health = Health()
    health.failed()
    pausing = [asyncio.create_task(_paused(health)) for _ in range(20)]
    await asyncio.sleep(10)
    health.answered(None)
    took = await asyncio.gather(*pausing)
    assert max(took) - min(took) > SPREAD_SECONDS / 4
